#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command's exit codes where nothing can be done: 1 with a sentence, 2 for a wrong line."""
import subprocess
import sys

COMMAND = sys.argv[1]
MISSING = "/nowhere/replayrt.yaml"
CASES = [
    (["plan", MISSING], 1, MISSING),
    (["verify", MISSING], 1, MISSING),
    (["bench", "step", MISSING], 1, MISSING),
    (["bench", "step", MISSING, "--json", "--length", "1", "--device", "host"], 1, MISSING),
    (["bench", "attention", "--shapes", MISSING], 1, MISSING),
    (["bench", "attention"], 2, "needs --shapes"),
    (["bench", "attention", MISSING, "--shapes", MISSING], 2, "only options"),
    (["bench", "attention", "--shapes"], 2, "needs a value"),
    ([], 2, "usage"),
    (["bench"], 2, "usage"),
    (["plan"], 2, "which configuration"),
    (["plan", "a", "b"], 2, "one configuration"),
    (["verify", MISSING, "--seeds", "1"], 2, "--seed"),
    (["verify", MISSING, "--steps"], 2, "needs a value"),
    (["verify", MISSING, "--steps", "-1"], 2, "expected a number"),
]

failed = 0
for arguments, code, words in CASES:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode != code or words not in done.stderr:
        failed += 1
        print(f"replayrt {' '.join(arguments)}: exit {done.returncode}, expected {code}; stderr "
              f"{done.stderr!r} must have {words!r}")
sys.exit(1 if failed else 0)
