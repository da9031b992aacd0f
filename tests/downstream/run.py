#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installs the build, moves the installed tree, and builds somebody else's programs against it.

usage: run.py MESON MESON_BUILD_DIR PROGRAM.c DECODE_LOOP.c HF_DECODE.c PROMPT_DECODE.c MODEL
              SERVE.yaml

Plain compilers and pkg-config only. PROGRAM.c as C11 and C++17, against the shared library and the
archive; DECODE_LOOP.c, HF_DECODE.c and PROMPT_DECODE.c copied out alone, the latter two run with
the folder MODEL; the files of serve, which lie beside SERVE.yaml, by the line that they say; the
command from where the tree has been moved to. Programs find the library by LD_LIBRARY_PATH and by a
run path relative to themselves.
"""
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile

SKIP = 77
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
CLEAN = {name: value for name, value in os.environ.items()
         if name not in ("LD_LIBRARY_PATH", "PKG_CONFIG_PATH", "PKG_CONFIG_SYSROOT_DIR")}


def run(command, **options):
    options.setdefault("env", CLEAN)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}\n{done.stdout}exit status {done.returncode}")
    return done.stdout


def only(folder, name):
    found = list(folder.rglob(name))
    if len(found) != 1:
        sys.exit(f"{len(found)} of {name} were installed, expected 1")
    return found[0]


def install_and_move(meson, build, scratch):
    """Returns the prefix in the tree that was installed with DESTDIR and then moved."""
    staged = scratch / "staged"
    run([meson, "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", str(staged)])
    prefix = only(staged, "rt.h").parents[2]
    moved = scratch / "moved"
    prefix.rename(moved)
    shutil.rmtree(staged)
    return moved


class Installed:
    def __init__(self, prefix):
        self.prefix = prefix
        self.pc_dir = only(prefix, "replayrt.pc").parent
        self.lib_dir = self.pc_dir.parent
        self.archive = only(prefix, "libreplayrt.a")
        only(prefix, "replayrt.3*")

    def flags(self, *arguments):
        environment = dict(CLEAN, PKG_CONFIG_PATH=str(self.pc_dir))
        return shlex.split(run(["pkg-config", *arguments, "replayrt"], env=environment))

    def libraries(self, kind):
        if kind == "archive":
            return [str(self.archive) if word == "-lreplayrt" else word
                    for word in self.flags("--static", "--libs")]
        return self.flags("--libs")

    def run(self, program, *arguments):
        run([str(program), *arguments], env=dict(CLEAN, LD_LIBRARY_PATH=str(self.lib_dir)))


def check_program(installed, compiler, language, source, kind):
    program = installed.prefix / "bin" / "program"
    run([*compiler, *WARNINGS, *installed.flags("--cflags"), "-x", language, str(source), "-x",
         "none", "-o", str(program), *installed.libraries(kind)])
    installed.run(program)
    print(f"{language} {kind}: ok")


def check_run_path(installed, source):
    """Needs neither ldconfig nor the environment, and moves with the tree."""
    program = installed.prefix / "bin" / "relative"
    relative = os.path.relpath(installed.lib_dir, program.parent)
    run(["cc", *installed.flags("--cflags"), str(source), "-o", str(program),
         *installed.libraries("shared"), f"-Wl,-rpath,$ORIGIN/{relative}"])
    run([str(program)])
    print("relative run path: ok")


def check_alone(installed, source, scratch, *arguments):
    """As its first lines say, from a folder that has nothing else."""
    alone = scratch / source.stem
    alone.mkdir()
    shutil.copy(source, alone)
    for standard in ([], ["-std=c11", *WARNINGS]):
        run(["cc", *standard, source.name, *installed.flags("--cflags", "--libs")], cwd=alone)
        installed.run(alone / "a.out", *arguments)
    print(f"{source.name} alone: ok")


def check_serve(installed, configuration, scratch, model):
    """Files that know each other, from a folder that has no others."""
    folder = scratch / "serve" / "examples"
    folder.mkdir(parents=True)
    for path in configuration.parent.glob("serve*"):
        shutil.copy(path, folder)
    sources = [str(path) for path in sorted(folder.glob("serve*.c"))]
    for standard in ([], ["-std=c11", *WARNINGS]):
        run(["cc", *standard, "-I.", *sources, *installed.flags("--cflags", "--libs")],
            cwd=folder.parent)
        installed.run(folder.parent / "a.out", configuration, model, folder / "serve.jsonl")
    print("serve alone: ok")


def check_command(installed):
    """The command carries the library inside itself."""
    command = installed.prefix / "bin" / "replayrt"
    if command.exists():
        run([str(command), "--version"])
        only(installed.prefix, "replayrt.1*")
        print("the command, moved: ok")


def main():
    meson, build, model, configuration = sys.argv[1], sys.argv[2], sys.argv[7], sys.argv[8]
    source, decode_loop, hf_decode, prompt_decode = map(pathlib.Path, sys.argv[3:7])
    compilers = (("c", ["cc", "-std=c11"]), ("c++", ["c++", "-std=c++17"]))
    with tempfile.TemporaryDirectory(prefix="replayrt-installed-") as name:
        scratch = pathlib.Path(name)
        installed = Installed(install_and_move(meson, build, scratch))
        (installed.prefix / "bin").mkdir(exist_ok=True)
        check_command(installed)
        if not shutil.which("cc"):
            sys.exit(SKIP)
        check_alone(installed, decode_loop, scratch, "host")
        check_alone(installed, hf_decode, scratch, model, "host", "4", "5,7,9", "1")
        check_alone(installed, prompt_decode, scratch, model, "host", "4", "5,7,9", "1")
        check_serve(installed, pathlib.Path(configuration), scratch, model)
        check_run_path(installed, source)
        for language, compiler in compilers:
            if not shutil.which(compiler[0]):
                print(f"{language}: no {compiler[0]}, skipped")
                continue
            for kind in ("shared", "archive"):
                check_program(installed, compiler, language, source, kind)


main()
