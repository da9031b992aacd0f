#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt bench step on the host device: graphs without blocks, with them, and of ranks.

usage: bench_step.py COMMAND SOURCE_ROOT
"""
import json
import pathlib
import subprocess
import sys

COMMAND, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
SMALL = ROOT / "tests/replay/small.yaml"  # attention alone
LAYER = ROOT / "tests/replay/layer.yaml"  # blocks of 3 heads in 2 layers
QUICK = ("--length", "40", "--steps", "5", "--device", "host")
OF_RANKS = {"start_spread_ns", "start_spread_p99_ns"}

complaints = []


def expect(holds, what):
    if not holds:
        complaints.append(what)


def replayrt(*arguments):
    return subprocess.run([COMMAND, "bench", "step", *map(str, arguments), *QUICK],
                          capture_output=True, text=True, timeout=100)


def measured(*arguments):
    done = replayrt(*arguments, "--json")
    expect(done.returncode == 0, f"{arguments}: {done}")
    report = json.loads(done.stdout) if done.returncode == 0 else {"graphs": []}
    for graph in report["graphs"]:
        expect(all(graph[name] > 0 for name in ("bare_launch_ns", "rt_step_ns", "rt_step_ahead_ns",
                                                "gpu_ns", "nodes", "capture_ns")), f"{graph}")
    return report


def alone():
    for config in (SMALL, LAYER):
        report = measured(config, "--batch", 3)
        expect([g["batch"] for g in report["graphs"]] == [3], f"one graph: {report}")
        expect("ranks" not in report and not OF_RANKS & set(report["graphs"][0]), f"{report}")


def of_ranks():
    report = measured(LAYER, "--batch", 3, "--ranks", 3)
    expect((report["ranks"], report["heads"]) == (3, 1), f"heads of one rank: {report}")
    expect(report["peers"] == "not mapped", f"memory of the others: {report}")
    for graph in report["graphs"]:
        expect(0 < graph["start_spread_ns"] <= graph["start_spread_p99_ns"] < 1e9, f"{graph}")
    one = measured(LAYER, "--batch", 3, "--ranks", 1)
    expect(all(g["start_spread_p99_ns"] == 0 for g in one["graphs"]), f"of one rank: {one}")
    done = replayrt(LAYER, "--batch", 3, "--ranks", 3)
    expect(done.returncode == 0 and "rank 0 of 3; memory of the others: not mapped\n" in done.stdout
           and done.stdout.count("ranks launch a step within ") == 1, f"text: {done}")


def refusals():
    for arguments, words in (((SMALL, "--ranks", 2), "--ranks wants layer: true"),
                             ((LAYER, "--ranks", 2), "3 heads cannot be cut evenly over 2 ranks")):
        done = replayrt(*arguments)
        expect(done.returncode == 2 and words in done.stderr and not done.stdout, f"{done}")


def main():
    alone()
    of_ranks()
    refusals()
    if complaints:
        sys.exit("\n".join(complaints))
    print("every figure is there, of ranks too")


main()
