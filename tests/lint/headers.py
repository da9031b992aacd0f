#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every header stands alone and may be included twice, and examples of the prose compile.

usage: headers.py SOURCE_ROOT

Public headers as C99, C11 and C++17, seeing only include/; the rooms' own headers as C11; those
that the device compiler reads too also as C++17. Of README.md and docs/ each example that includes
what it needs; what it defines need not be used. With gcc and clang, whichever is there.
"""
import pathlib
import re
import shutil
import subprocess
import sys

SKIP = 77
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
ROOMS = ("common", "config", "buffers", "kernels", "graphs", "runtime", "models", "tools",
         "bench")
DEVICE_FOLDERS = ("kernels/device/", "kernels/generic/", "kernels/sm90/")
BOTH_COMPILERS = ("common/math.h", "common/record.h", "kernels/abi/")
UNUSED = '#pragma GCC diagnostic ignored "-Wunused-function"'
COMPILERS = {"c": ("gcc", "clang"), "c++": ("g++", "clang++")}


def needs_toolkit(header):
    return "#include <cuda" in header.read_text(encoding="utf-8")


def jobs(root):
    """(name, text, language, standard, include folders) of each thing to compile."""
    public = sorted((root / "include").rglob("*.h"))
    for header in public:
        name = header.relative_to(root / "include").as_posix()
        for language, standard in (("c", "c99"), ("c", "c11"), ("c++", "c++17")):
            yield name, twice(name), language, standard, [root / "include"]
    for room in ROOMS:
        for header in sorted((root / room).rglob("*.h")):
            name = header.relative_to(root).as_posix()
            if name.startswith(DEVICE_FOLDERS) or needs_toolkit(header):
                continue
            yield name, twice(name), "c", "c11", [root, root / "include"]
            if name.startswith(BOTH_COMPILERS):
                yield name, twice(name), "c++", "c++17", [root, root / "include"]
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        for example in re.findall(r"^```c$(.*?)^```$", text, flags=re.M | re.S):
            if "#include" in example:
                yield page.name, UNUSED + example, "c", "c11", [root / "include"]


def twice(header):
    return f'#include "{header}"\n#include "{header}"\nint header_stands_alone;\n'


def compile_text(compiler, name, text, language, standard, folders):
    command = [compiler, f"-std={standard}", *WARNINGS, "-D_POSIX_C_SOURCE=200809L",
               *[f"-I{folder}" for folder in folders], "-fsyntax-only", "-x", language, "-"]
    done = subprocess.run(command, input=text, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return f"{compiler} -std={standard} {name}\n{done.stdout}" if done.returncode else None


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    complaints, count = [], 0
    for name, text, language, standard, folders in jobs(root):
        for compiler in filter(shutil.which, COMPILERS[language]):
            count += 1
            complaint = compile_text(compiler, name, text, language, standard, folders)
            if complaint:
                complaints.append(complaint)
    print("\n".join(complaints) if complaints else f"{count} compilations, no warning")
    if count == 0:
        sys.exit(SKIP)
    sys.exit(1 if complaints else 0)


main()
