#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Installs the build into a scratch folder and builds somebody else's program against that copy.

usage: run.py MESON MESON_BUILD_DIR SOURCE.c

Plain compilers and pkg-config only, as C11 and C++17, against the shared library and the archive.
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


def run(command, **options):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}\n{done.stdout}exit status {done.returncode}")
    return done.stdout


def install(meson, build, scratch):
    """Returns the folder of replayrt.pc in the installed copy."""
    run([meson, "install", "-C", build, "--no-rebuild", "--quiet", "--destdir", str(scratch)])
    found = list(scratch.rglob("replayrt.pc"))
    if len(found) != 1:
        sys.exit(f"{len(found)} replayrt.pc were installed, expected 1")
    return found[0].parent


def pkg_config(pc_dir, scratch, *arguments):
    environment = dict(os.environ, PKG_CONFIG_PATH=str(pc_dir), PKG_CONFIG_SYSROOT_DIR=str(scratch))
    return shlex.split(run(["pkg-config", *arguments, "replayrt"], env=environment))


def check_program(compiler, language, source, program, pc_dir, scratch, archive):
    """archive: None links the shared library."""
    flags = pkg_config(pc_dir, scratch, "--cflags")
    if archive:
        libs = [str(archive) if word == "-lreplayrt" else word
                for word in pkg_config(pc_dir, scratch, "--static", "--libs")]
    else:
        libs = pkg_config(pc_dir, scratch, "--libs")
    run([*compiler, *WARNINGS, *flags, "-x", language, str(source), "-x", "none",
         "-o", str(program), *libs])
    run([str(program)], env=dict(os.environ, LD_LIBRARY_PATH=str(pc_dir.parent)))


def main():
    meson, build, source = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    compilers = (("c", ["cc", "-std=c11"]), ("c++", ["c++", "-std=c++17"]))
    with tempfile.TemporaryDirectory(prefix="replayrt-installed-") as name:
        scratch = pathlib.Path(name)
        pc_dir = install(meson, build, scratch)
        archives = list(scratch.rglob("libreplayrt.a"))
        if len(archives) != 1:
            sys.exit(f"{len(archives)} libreplayrt.a were installed, expected 1")
        ran = 0
        for language, compiler in compilers:
            if not shutil.which(compiler[0]):
                print(f"{language}: no {compiler[0]}, skipped")
                continue
            for kind, archive in (("shared", None), ("archive", archives[0])):
                check_program(compiler, language, source, scratch / "program", pc_dir, scratch,
                              archive)
                print(f"{language} {kind}: ok")
                ran += 1
    sys.exit(0 if ran else SKIP)


main()
