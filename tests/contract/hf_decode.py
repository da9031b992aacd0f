#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Examples print what replayrt decode does, and end where a model does.

usage: hf_decode.py REPLAYRT FOLDER EXAMPLE...
"""
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

COMMAND, FOLDER = sys.argv[1:3]
EXAMPLES = sys.argv[3:]
PROMPTS = ["5,7,9", "1", "200,100,50,25,12,6,3"]
TOKENS = 20  # more than the ring has records

complaints = []


def run(*arguments):
    return subprocess.run([str(a) for a in arguments], capture_output=True, text=True, timeout=60)


def example(program, folder, prompts=PROMPTS, tokens=TOKENS):
    done = run(program, folder, "host", tokens, *prompts)
    rows = [[] for _ in prompts]
    for line in done.stdout.splitlines():
        row, token = line.split(": ")
        rows[int(row) - 1].append(int(token))
    if done.returncode or done.stderr:
        complaints.append(f"{program} {folder}: {done}")
    return rows


def command(folder, prompts=PROMPTS, tokens=TOKENS, *more):
    asked = [word for prompt in prompts for word in ("--prompt-ids", prompt)]
    done = run(COMMAND, "decode", "--checkpoint", folder, "--device", "host", "--max-new-tokens",
               tokens, "--json", *asked, *more)
    return [prompt["tokens"] for prompt in json.loads(done.stdout)["prompts"]]


def expect_same(program, folder, prompts, tokens, expected):
    rows = example(program, folder, prompts, tokens)
    if rows != expected:
        complaints.append(f"{program} {folder}: {rows}, and by the command {expected}")


whole = command(FOLDER)
# A prompt of more tokens than a chunk has.
long = ["5,7,9", ",".join(str((7 * i + 3) % 256) for i in range(530))]
one_by_one = command(FOLDER, long, 4, "--chunk", "0")
with tempfile.TemporaryDirectory() as scratch:
    model = pathlib.Path(scratch) / "model"
    shutil.copytree(FOLDER, model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    config["eos_token_id"] = whole[0][6]
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    ended = command(model)
    for example_path in EXAMPLES:
        expect_same(example_path, FOLDER, PROMPTS, TOKENS, whole)
        expect_same(example_path, FOLDER, long, 4, one_by_one)
        expect_same(example_path, model, PROMPTS, TOKENS, ended)
if [len(row) for row in whole] != [TOKENS] * 3 or [len(row) for row in one_by_one] != [4] * 2:
    complaints.append(f"{whole} and one by one {one_by_one}")
if not 1 <= len(ended[0]) <= 7 or ended[0][-1] != whole[0][6]:
    complaints.append(f"ended: {ended}")
for arguments, words in [((), "usage"), ((FOLDER, "host", "0", "5"), "1 to "),
                         ((FOLDER, "host", "6x", "5"), "1 to "),
                         ((FOLDER, "host", "4", "5,256"), "id 256 is not below the model's 256"),
                         ((FOLDER, "host", "8192", "5"), "8193 tokens are more than the model's"),
                         ((FOLDER, "host", "4", "5,x"), '"5,x" is no list'),
                         (("/nowhere", "host", "4", "5"), "/nowhere"),
                         ((FOLDER, "cuda:x", "4", "5"), "cuda:x")]:
    for example_path in EXAMPLES:
        refused = run(example_path, *arguments)
        if refused.returncode == 0 or words not in refused.stderr:
            complaints.append(f"{example_path} {arguments}: {refused}")
print("\n".join(complaints))
sys.exit(1 if complaints else 0)
