#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""rt_tensors.h lists the public ones of buffers/tensors.inc, with their dtypes.

usage: tensors.py SOURCE_ROOT
"""
import pathlib
import re
import sys

LINE = re.compile(r'^RT_TENSOR\(\w+, "(\w+)", (\w+), \w+, \w+, PUBLIC,', re.M)
WORD = re.compile(r'^RT_TENSOR_WORD\("(\w+)",', re.M)
# Public, but of no use to a caller: named in messages and plans only.
UNLISTED = {"slot_tokens", "partial_lse", "partial_out"}


def table(text):
    tensors = {name: {"DATA": "bf16", "CACHE": "bf16"}.get(dtype, dtype.lower())
               for name, dtype in LINE.findall(text)}
    tensors.update({name: "i32" for name in WORD.findall(text)})
    return {name: dtype for name, dtype in tensors.items() if name not in UNLISTED}


def listed(text):
    """Of the comment above struct rt_tensor: `name dtype [shape]`, one or two a line."""
    comment = text[:text.index("struct rt_tensor {")].rsplit("/*", 1)[1]
    return dict(re.findall(r"\b(\w+) +(bf16|f32|i32|u8) +\[", comment))


def main():
    root = pathlib.Path(sys.argv[1])
    ours = table((root / "buffers/tensors.inc").read_text(encoding="utf-8"))
    theirs = listed((root / "include/replayrt/rt_tensors.h").read_text(encoding="utf-8"))
    wrong = [f"{name}: {ours.get(name, 'no tensor')} in tensors.inc, "
             f"{theirs.get(name, 'not listed')} in rt_tensors.h"
             for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    print("\n".join(wrong) if wrong else f"rt_tensors.h lists all {len(ours)} tensors")
    sys.exit(1 if wrong or not ours else 0)


main()
