#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt bench allreduce on the host device: what it prints, and what it refuses.

usage: bench_allreduce.py COMMAND
"""
import json
import subprocess
import sys

COMMAND = sys.argv[1]
SIZES = [4 << 10, 8 << 10, 16 << 10, 32 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20]
HOST = ("--device", "host", "--steps", "1")


def bench(*arguments):
    return subprocess.run([COMMAND, "bench", "allreduce", *arguments], capture_output=True,
                          text=True, timeout=100)


def expect(good, story):
    if not good:
        sys.exit(story)


def main():
    done = bench("--ranks", "2", *HOST, "--json")
    expect(done.returncode == 0 and not done.stderr, f"{done}")
    report = json.loads(done.stdout)
    rows = report["sizes"]
    expect(report["ranks"] == 2 and report["steps"] == 1, f"{report}")
    expect([row["bytes"] for row in rows] == SIZES, f"sizes: {rows}")
    for row in rows:
        expect(0 < row["us_least"] <= row["us_median"] and row["us_launch"] > 0, f"times: {row}")
        rate = row["bytes"] / row["us_median"] / 1e3  # of two ranks each number once
        expect(abs(row["gb_per_second"] - rate) <= 1e-3 * rate, f"rate: {row}")
    done = bench("--ranks", "2", *HOST)
    expect(done.returncode == 0 and len(done.stdout.splitlines()) == 2 + len(SIZES), f"{done}")
    for arguments, words in (((), "needs --ranks"),
                             (("--ranks", "1"), "--ranks 1: expected a number from 2 to 64"),
                             (("--ranks", "2", "--device", "cuda:0"), "cuda:0: expected host")):
        done = bench(*arguments)
        expect(done.returncode == 2 and words in done.stderr and not done.stdout, f"{done}")


main()
