#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Ranks that share a context, each with the kernels' own source in the emulator: the tokens that
the references choose.

usage: context_ranks.py COMMAND EMULATED_COMMAND SOURCE_ROOT
"""
import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[3]).resolve()


def tokens(command):
    done = subprocess.run(
        [command, "decode", "--checkpoint", str(ROOT / "tests/data/golden/tiny_deepseek_v3"),
         "--config", str(ROOT / "tests/emu/context.yaml"), "--device", "host", "--ranks", "2",
         "--prompt-ids", ",".join(map(str, range(3, 20))), "--max-new-tokens", "3",
         "--ignore-eos", "--json"], capture_output=True, text=True, timeout=280)
    if done.returncode != 0 or done.stderr:
        sys.exit(f"{command}: {done}")
    return json.loads(done.stdout)["prompts"][0]["tokens"]


def main():
    reference, emulated = tokens(sys.argv[1]), tokens(sys.argv[2])
    if len(reference) != 3 or emulated != reference:
        sys.exit(f"emulated {emulated}, by the references {reference}")


main()
