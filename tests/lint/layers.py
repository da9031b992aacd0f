#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The include law: which room may know which, as drawn in docs/design.md.

usage: layers.py SOURCE_ROOT
"""
import pathlib
import re
import sys

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]')
HOST = (".c", ".h", ".cpp", ".inc")
DEVICE = (".cu", ".cuh")

# Room -> the rooms that it may include besides itself. "replayrt" is the front door.
MAY_INCLUDE = {
    "include": set(),
    "common": {"replayrt"},
    "driver": {"replayrt", "common"},
    "config": {"replayrt", "common"},
    "buffers": {"replayrt", "common", "driver"},
    "kernels": {"replayrt", "common", "driver"},
    "graphs": {"replayrt", "common", "driver"},
    "runtime": {"replayrt", "common", "driver", "config", "buffers", "kernels", "graphs"},
    "models": {"replayrt"},
    "tools": {"replayrt"},
    "bench": {"replayrt", "common", "driver", "config", "buffers", "kernels", "graphs", "runtime",
              "tools"},
    "examples": {"replayrt"},
}
MAY_INCLUDE["tests"] = set(MAY_INCLUDE) - {"include"} | {"replayrt"}
# Device text, which host code never reads; kernels/abi is the text that both compilers read.
DEVICE_FOLDERS = ("kernels/device/", "kernels/generic/", "kernels/sm90/")
# Compiles device text for the CPU: a reader of it, like the CUDA compiler.
EMULATOR = "tests/emu/"
# Public headers need nothing but these.
PUBLIC_SYSTEM = {"stddef.h", "stdint.h", "stdbool.h"}
# Besides device code, who reads the toolkit's headers: one back end, its fake, users' own kernels.
CUDA_READERS = ("driver/cuda/", "tests/unit/fake_cuda", "examples/own_kernels")
CUDA_HEADER = re.compile(r"^(cuda|cublas|nv)|^(mma|cooperative_groups)\.h$")


def objection(path, quoted, name, exists):
    """Why `path` may not include `name`, or None. `exists` tells whether a path is in the tree."""
    room = path.split("/")[0]
    host = path.endswith(HOST) and not path.startswith((*DEVICE_FOLDERS, EMULATOR))
    if not quoted and not name.startswith("replayrt/"):
        if room == "include" and name not in PUBLIC_SYSTEM:
            return f"public headers include only {', '.join(sorted(PUBLIC_SYSTEM))}"
        if host and CUDA_HEADER.search(name) and not path.startswith(CUDA_READERS):
            return "host code is built without any CUDA header"
        return None
    if ".." in name.split("/") or name.startswith("/"):
        return "includes are written from the root"
    if not exists("include/" + name if name.startswith("replayrt/") else name):
        return "no such file from the root"
    other = name.split("/")[0]
    if other != room and not (room == "include" and other == "replayrt"):
        if other not in MAY_INCLUDE[room]:
            return f"{room} may not include {other}"
    if host and (name.startswith(DEVICE_FOLDERS) or name.endswith(DEVICE)):
        return "host code may not include device code"
    return None


def own_header_objection(path, text, exists):
    """X.c begins with its own header, so that every header is known to stand alone."""
    own = re.sub(r"\.c$", ".h", path)
    if not path.endswith(".c") or not exists(own):
        return None
    own = own[len("include/"):] if own.startswith("include/") else own
    first = next((m.group(2) for m in map(INCLUDE.match, text.splitlines()) if m), None)
    return None if first == own else f'first include is "{first}", not "{own}"'


def check(root):
    def exists(name):
        return (root / name).is_file()

    complaints, files = [], 0
    for room in MAY_INCLUDE:
        for file in sorted((root / room).rglob("*")):
            if not file.name.endswith(HOST + DEVICE):
                continue
            files += 1
            path = file.relative_to(root).as_posix()
            text = file.read_text(encoding="utf-8")
            own = own_header_objection(path, text, exists)
            if own:
                complaints.append(f"{path}: {own}")
            for number, line in enumerate(text.splitlines(), 1):
                match = INCLUDE.match(line)
                if not match:
                    continue
                why = objection(path, match.group(1) == '"', match.group(2), exists)
                if why:
                    complaints.append(f'{path}:{number}: "{match.group(2)}": {why}')
    return complaints, files


def self_test():
    """The law must bite: each of these is refused, or allowed, whatever the tree looks like."""
    refused = [
        ("buffers/arena.c", True, "kernels/kernels.h"),
        ("kernels/mla.c", True, "graphs/program.h"),
        ("graphs/build.c", True, "runtime/runtime.h"),
        ("config/config_load.c", True, "graphs/spec.h"),
        ("buffers/layout.c", True, "config/config.h"),
        ("common/check.c", True, "buffers/arena.h"),
        ("common/check.c", True, "driver/driver.h"),
        ("driver/driver.c", True, "kernels/kernels.h"),
        ("include/replayrt/rt.h", True, "common/check.h"),
        ("include/replayrt/rt.h", False, "stdio.h"),
        ("tools/plan.c", True, "common/check.h"),
        ("tools/plan.c", True, "bench/measure.h"),
        ("runtime/step.c", True, "bench/measure.h"),
        ("models/places.c", True, "common/check.h"),
        ("models/family.c", True, "config/tree.h"),
        ("runtime/step.c", True, "models/places.h"),
        ("examples/loop.c", True, "kernels/abi/mla.h"),
        ("examples/loop.c", True, "tools/json.h"),
        ("runtime/step.c", True, "../common/check.h"),
        ("runtime/step.c", True, "kernels/device/tile.h"),
        ("kernels/kernels.c", True, "kernels/device/tile.cuh"),
        ("graphs/build.c", False, "cuda.h"),
    ]
    allowed = [
        ("runtime/step.c", True, "kernels/kernels.h"),
        ("kernels/mla.c", True, "kernels/abi/mla.h"),
        ("kernels/generic/attend.cu", True, "kernels/device/tile.cuh"),
        ("kernels/generic/attend.cu", False, "cuda_bf16.h"),
        ("driver/cuda/cuda_device.h", False, "cuda.h"),
        ("tests/unit/layout.c", True, "buffers/layout.h"),
        ("include/replayrt/ops.h", True, "replayrt/rt.h"),
        ("models/places.c", True, "replayrt/layer.h"),
        ("models/places.c", True, "models/fields.h"),
        ("examples/loop.c", False, "replayrt/rt.h"),
        ("examples/loop.c", True, "examples/tensors.h"),
        ("bench/measure.c", True, "runtime/runtime.h"),
        ("bench/cmd_bench.c", True, "tools/options.h"),
    ]
    wrong = [c for c in refused if not objection(*c, lambda _: True)]
    wrong += [c for c in allowed if objection(*c, lambda _: True)]
    if not objection("runtime/a.c", True, "common/none.h", lambda _: False):
        wrong.append("a file that does not exist")
    if not own_header_objection("graphs/a.c", '#include <stdio.h>\n', lambda _: True):
        wrong.append("own header not first")
    return [f"self-test: {case}" for case in wrong]


def main():
    complaints, files = check(pathlib.Path(sys.argv[1]))
    complaints += self_test()
    print("\n".join(complaints) if complaints else f"{files} files obey the include law")
    sys.exit(1 if complaints or not files else 0)


main()
