# SPDX-License-Identifier: Apache-2.0
"""Commands of several ranks for tests: those that the command starts itself, and those that a
launcher has started, of which it is one. Every case that fails is told, with all that its command
has said; the others go on.
"""
import os
import subprocess
import sys

PORT = str(20000 + os.getpid() % 20000)


FAILED = []   # cases
STARTED = []  # processes of the case that runs


class Failure(Exception):
    """Of a case; the others go on."""


def expect(good, story):
    if not good:
        raise Failure(story)


def case(name, check, *arguments):
    try:
        check(*arguments)
    except Failure as failure:
        FAILED.append(name)
        print(f"FAILED {name}: {failure}", flush=True)
        for process in STARTED:
            process.kill()
            process.communicate()
    STARTED.clear()


def told(command, code, out, err):
    """All of it, for people."""
    return f"{' '.join(command)}\nended with {code}\n---- stderr\n{err}\n---- stdout\n{out}\n----"


def finish(process, seconds):
    """Of one that does not end, what it has said so far."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise Failure(f"does not end within {seconds} s: "
                      f"{told(process.args, process.returncode, out, err)}") from None
    return process.returncode, out, err


def started(command, **more):
    STARTED.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                    text=True, **more))
    return STARTED[-1]


def ended(command, **more):
    return finish(started(command, **more), 120)


# ---- ranks that somebody else starts ----------------------------------------------------------

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
MPIRUNS = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),
           ("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"))


def launched(command, rank, world="2", by=TORCHRUN, **extra):
    """mpirun gives no port: this process is what ranks have in common."""
    environment = {**os.environ, by[0]: str(rank), by[1]: world,
                   **({"MASTER_PORT": PORT} if by == TORCHRUN else {by[2]: world}), **extra}
    return started(command, env=environment)


def end(process):
    return finish(process, 100)


def finish_cases():
    if FAILED:
        sys.exit("\n".join(["failed:", *FAILED]))
