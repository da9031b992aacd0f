#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt bench convert on the host device: what it prints, and what it refuses.

usage: bench_convert.py COMMAND
"""
import json
import subprocess
import sys

COMMAND = sys.argv[1]
BYTES = {"bf16": 1152, "fp8_tensor": 576, "fp8_token": 644, "v32": 656}
HOST = ("--device", "host", "--steps", "1", "--batch", "2", "--length", "70", "--page-size", "16")


def bench(*arguments):
    return subprocess.run([COMMAND, "bench", "convert", *arguments], capture_output=True,
                          text=True, timeout=100)


def expect(good, story):
    if not good:
        sys.exit(story)


def main():
    done = bench(*HOST, "--json")
    expect(done.returncode == 0 and not done.stderr, f"{done}")
    report = json.loads(done.stdout)
    expect((report["rows"], report["length"], report["page_size"]) == (2, 70, 16), f"{report}")
    ways = report["ways"]
    expect([(w["from"], w["to"]) for w in ways] == [(a, b) for a in BYTES for b in BYTES],
           f"ways: {ways}")
    for way in ways:
        rate = 140 * (BYTES[way["from"]] + BYTES[way["to"]]) / way["us"] / 1e3
        expect(way["us"] > 0 and abs(way["gb_per_second"] - rate) <= 1e-3 * rate, f"rate: {way}")
    expect(ways[0]["of_copy"] == 1, f"{ways[0]}")
    done = bench(*HOST)
    expect(done.returncode == 0 and len(done.stdout.splitlines()) == 1 + len(ways), f"{done}")
    for arguments, words in ((("--batch", "0"), "--batch 0: expected a number from 1 to"),
                             (("--page-size", "129"), "129: expected a number from 1 to 128")):
        done = bench(*arguments)
        expect(done.returncode == 2 and words in done.stderr and not done.stdout, f"{done}")
    done = bench("--device", "moon")
    expect(done.returncode == 2 and "moon" in done.stderr, f"{done}")


main()
