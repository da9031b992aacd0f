#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The manual pages keep up with what they are about.

usage: man.py SOURCE_ROOT [REPLAYRT]

Every option of a command's help stands in its page, and no other; every function that a header
exports stands in the header's page, every status in that of statuses; pages refer to pages that are
there. The source is sane mdoc: known macros, blocks closed, and groff and mandoc, whichever is
there, have nothing to say.
"""
import pathlib
import re
import shutil
import subprocess
import sys

COMMANDS = {
    "replayrt.1": [],
    "replayrt-plan.1": ["plan"],
    "replayrt-verify.1": ["verify"],
    "replayrt-decode.1": ["decode"],
    "replayrt-bench-step.1": ["bench", "step"],
    "replayrt-bench-layer.1": ["bench", "layer"],
    "replayrt-bench-prefill.1": ["bench", "prefill"],
    "replayrt-bench-attention.1": ["bench", "attention"],
    "replayrt-bench-allreduce.1": ["bench", "allreduce"],
    "replayrt-bench-convert.1": ["bench", "convert"],
}
HEADERS = {"rt.h": "replayrt.3", "rt_config.h": "replayrt.3",
           "rt_sequences.h": "replayrt.3", "rt_tensors.h": "replayrt.3",
           "layer.h": "replayrt-layer.3", "memory.h": "replayrt-layer.3",
           "checkpoint.h": "replayrt-models.3", "models.h": "replayrt-models.3",
           "decoder.h": "replayrt-models.3",
           "ops.h": "replayrt-ops.3", "block_ops.h": "replayrt-ops.3",
           "model_ops.h": "replayrt-ops.3", "prefill_ops.h": "replayrt-ops.3",
           "ranks.h": "replayrt-ranks.3",
           "kv_ops.h": "replayrt-ops.3", "sparse_ops.h": "replayrt-ops.3",
           "status.h": "replayrt-status.3",
           "version.h": "replayrt-status.3"}
FIRST = ['.\\" SPDX-License-Identifier: Apache-2.0', ".Dd ", ".Dt ", ".Os ", ".Sh NAME", ".Nm ",
         ".Nd "]
MACROS = set("""Ar Bd Bl Cm Dd Dl Dt Dv Ed El Fa Fl Fn Ft Ic In It Nd Nm Op Os Pa Pp Ql Sh Ss Vt
    Xc Xo Xr""".split())
BLOCKS = {"Bl": "El", "Bd": "Ed"}
# A quote ends with its line: the second one would be inside of the first.
NESTED = re.compile(r"\.(It )?Ql .* Ql ")


def form_complaints(text):
    lines = text.split("\n")
    for line, start in zip(lines, FIRST):
        if not line.startswith(start):
            yield f"{line!r} where {start!r} is expected"
    open_blocks, literal = [], False
    for number, line in enumerate(lines, 1):
        macro = re.match(r"\.(\w+)", line)
        if line != line.rstrip() or "\t" in line:
            yield f"{number}: blank at the end, or a tab"
        if not macro:
            if line.startswith((".", "'")) and not line.startswith('.\\"'):
                yield f"{number}: a control line without a macro"
            if not line and not literal and number < len(lines):
                yield f"{number}: an empty line outside of a display"
            continue
        name = macro.group(1)
        if name not in MACROS:
            yield f"{number}: macro {name}"
        if NESTED.match(line):
            yield f"{number}: a quote in a quote; .It Xo has several"
        if name in BLOCKS:
            open_blocks.append(BLOCKS[name])
        elif name in BLOCKS.values() and (not open_blocks or open_blocks.pop() != name):
            yield f"{number}: {name} closes nothing"
        literal = "Ed" in open_blocks
    if open_blocks:
        yield f"{open_blocks[-1]} is missing"


def options_of(text):
    return set(re.findall(r"Fl -([a-z][a-z-]*)", text))


def option_complaints(text, command, words):
    done = subprocess.run([command, *words, "--help"], capture_output=True, text=True)
    if done.returncode:
        yield f"{words}: no help"
    help_text = done.stdout if words else done.stdout[done.stdout.rindex("\n\n  --version"):]
    if words:
        help_text = help_text.split("\n\n")[1]
    helped = set(re.findall(r"^ +--([a-z][a-z-]*)|, --([a-z][a-z-]*)", help_text, flags=re.M))
    wanted = {a or b for a, b in helped} | {"help"}
    for name in sorted(wanted - options_of(text)):
        yield f"option --{name} is missing"
    for name in sorted(options_of(text) - wanted):
        yield f"option --{name} is not in the help"


def header_complaints(text, header):
    source = re.sub(r"/\*.*?\*/", " ", header.read_text(encoding="utf-8"), flags=re.S)
    source = re.sub(r"^[ \t]*#[ \t]*define RT_API.*$", "", source, flags=re.M)
    names = re.findall(r"\bRT_API\b[^;(]*?(\w+)\s*\(", source)
    names += re.findall(r"\bX\((RT_ERR_\w+)", source)
    said = set(re.findall(r"\bFn (\w+)", text)) | set(re.findall(r"\bDv (\w+)", text))
    for name in names:
        if name not in said:
            yield f"{name} of {header.name} is missing"
    if f".In replayrt/{header.name}" not in text:
        yield f"{header.name} is not named"


def tool_complaints(page):
    tools = (["groff", "-mdoc", "-Tutf8", "-ww", "-z", str(page)],
             ["mandoc", "-Tlint", "-Wwarning", str(page)])
    for tool in tools:
        if shutil.which(tool[0]):
            done = subprocess.run(tool, text=True, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
            if done.returncode or done.stdout.strip():
                yield f"{tool[0]}: {done.stdout.strip()}"


def main():
    root = pathlib.Path(sys.argv[1])
    command = sys.argv[2] if len(sys.argv) > 2 else None
    pages = sorted(page for page in (root / "man").iterdir() if re.search(r"\.[1-9]$", page.name))
    known = {page.name for page in pages}
    complaints = [f"{name} is missing" for name in {*COMMANDS, *HEADERS.values()} - known]
    headers = {p.name for p in (root / "include/replayrt").glob("*.h")}
    complaints += [f"{name} has no page" for name in sorted(headers - set(HEADERS))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        found = [*form_complaints(text), *tool_complaints(page)]
        for name, section in re.findall(r"^\.Xr (\S+) (\d)", text, flags=re.M):
            if f"{name}.{section}" not in known:
                found.append(f"refers to {name}({section}), which is not here")
        if command and page.name in COMMANDS:
            found += option_complaints(text, command, COMMANDS[page.name])
        for header in [h for h, name in HEADERS.items() if name == page.name and h in headers]:
            found += header_complaints(text, root / "include/replayrt" / header)
        complaints += [f"man/{page.name}: {what}" for what in found]
    print("\n".join(complaints) if complaints else f"{len(pages)} pages keep up")
    sys.exit(1 if complaints or not pages else 0)


main()
