#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What CONTRIBUTING.md says about text, checked.

usage: style.py SOURCE_ROOT
"""
import pathlib
import re
import shutil
import subprocess
import sys

ROOMS = ("include", "common", "config", "buffers", "kernels", "graphs", "runtime", "models",
         "tools", "bench")
PRUNED = re.compile(r"^(\.git|build.*|shared|subprojects|tests/data)$|(^|/)__pycache__$")
CODE = {".c", ".h", ".cu", ".cuh", ".cpp", ".inc"}
TABLES = {".inc"}  # one entry to a line, however wide
SCRIPTS = {".py", ".sh", ".map"}
TEXT = CODE | SCRIPTS | {".md", ".txt", ".build", ".yaml", ".yml", ".in", ""}
MAX_LINES = 600
MAX_COLUMNS = 100
# Each version of clang-format lays out the same text a little differently; this one decides.
FORMAT_MAJOR = "14"

INVISIBLE = re.compile("[\u00a0\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]")
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X|HA" r"CK)\b")
MACHINE_PATH = re.compile(r"(?<![\w.)}])/(?:work|root|home)/")


def files(root):
    """Hand-written text files, as paths relative to the root."""
    found, folders = [], [root]
    while folders:
        for entry in folders.pop().iterdir():
            name = entry.relative_to(root)
            if PRUNED.search(name.as_posix()) or entry.is_symlink():
                continue
            if entry.is_dir():
                folders.append(entry)
            elif entry.suffix in TEXT:
                found.append(name)
    return sorted(found)


def line_complaints(name, lines):
    code = name.suffix in CODE | SCRIPTS
    for number, line in enumerate(lines, 1):
        if "\t" in line:
            yield number, "tab"
        if line != line.rstrip():
            yield number, "blank at the end of the line"
        if INVISIBLE.search(line):
            yield number, "invisible character"
        if MACHINE_PATH.search(line):
            yield number, "path of one machine"
        if code and len(line) > MAX_COLUMNS and name.suffix not in TABLES:
            yield number, f"{len(line)} columns, at most {MAX_COLUMNS}"
        if code and UNFINISHED.search(line):
            yield number, "unfinished work belongs in an issue"


def guard(name):
    """kernels/abi/mla.h -> RT_KERNELS_ABI_MLA_H, include/replayrt/rt.h -> REPLAYRT_RT_H"""
    path = name.as_posix()
    path = path[len("include/"):] if path.startswith("include/") else "rt/" + path
    return re.sub(r"\W", "_", path).upper()


def file_complaints(name, text):
    lines = text.split("\n")
    if text and not text.endswith("\n"):
        yield "no newline at the end"
    if text.endswith("\n\n"):
        yield "empty line at the end"
    marked = name.suffix in CODE | SCRIPTS or name.name in ("meson.build", "meson_options.txt")
    if marked and not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:2]):
        yield "no SPDX line at the top"
    if name.suffix in CODE | SCRIPTS and len(lines) - 1 > MAX_LINES:
        yield f"{len(lines) - 1} lines, at most {MAX_LINES}: split it by idea"
    if name.suffix in (".h", ".cuh"):
        want = f"#ifndef {guard(name)}\n#define {guard(name)}\n"
        if want not in text:
            yield f"no include guard {guard(name)}"


def basename_complaints(names):
    """A file is known by its name alone; an ABI header shares that of the host half it serves."""
    seen = {}
    for name in names:
        if name.parts[0] not in ROOMS or name.suffix not in CODE or "abi" in name.parts:
            continue
        if name.name in seen:
            yield f"{name}: {seen[name.name]} has the same name"
        seen.setdefault(name.name, name)


def format_complaints(root, names):
    tool = shutil.which(f"clang-format-{FORMAT_MAJOR}") or shutil.which("clang-format")
    version = subprocess.run([tool, "--version"], stdout=subprocess.PIPE, text=True).stdout \
        if tool else "none"
    if f"version {FORMAT_MAJOR}." not in version:
        print(f"layout not checked: clang-format {FORMAT_MAJOR} wanted, {version.strip()} found")
        return []
    code = [str(name) for name in names if name.suffix in CODE - {".inc"}]
    done = subprocess.run([tool, "--dry-run", "-Werror", *code], cwd=root, text=True,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    loose = re.findall(r"^(.+?):\d+:\d+: error: ", done.stderr, flags=re.M)
    return [f"{name}: not as clang-format lays it out" for name in sorted(set(loose))]


def main():
    root = pathlib.Path(sys.argv[1])
    names = files(root)
    complaints = []
    for name in names:
        text = (root / name).read_text(encoding="utf-8")
        complaints += [f"{name}:{n}: {why}" for n, why in line_complaints(name, text.split("\n"))]
        complaints += [f"{name}: {why}" for why in file_complaints(name, text)]
    complaints += basename_complaints(names)
    complaints += format_complaints(root, names)
    print("\n".join(complaints) if complaints else f"{len(names)} files keep the style")
    sys.exit(1 if complaints or not names else 0)


main()
