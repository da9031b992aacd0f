#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt bench layer on the host device: what it prints, and when it refuses.

usage: bench_layer.py COMMAND SOURCE_ROOT
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile

COMMAND, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
LORA = ROOT / "tests/replay/layer.yaml"         # heads 3, L 256, R 32, hidden 32, P 8, V 16
PLAIN = ROOT / "tests/replay/layer_plain.yaml"  # no q_lora_rank, no input_norm; factors of q
QUICK = ("--length", "40", "--steps", "3", "--device", "host")
# Numbers of the products' weights in LORA, with its heads and with one.
WEIGHTS = {3: {"qkv_a": 32 * (24 + 288), "q_b": 24 * 3 * 40, "preattend_absorb": 3 * 8 * 256,
               "w_uv": 3 * 16 * 256, "o_proj": 32 * 3 * 16},
           1: {"qkv_a": 32 * (24 + 288), "q_b": 24 * 40, "preattend_absorb": 8 * 256,
               "w_uv": 16 * 256, "o_proj": 32 * 16}}
STAGES = ["input_norm", "qkv_a", "q_b", "preattend_absorb", "attend", "reduce", "w_uv", "o_proj"]
BY_LIBRARY = STAGES[:2] + ["preattend", "q_b", "w_uk", "preattend 2"] + STAGES[4:]
OF_PLAIN = ["qkv_a", "preattend", "w_uk"] + STAGES[4:]

complaints = []


def expect(holds, what):
    if not holds:
        complaints.append(what)


def replayrt(*arguments):
    return subprocess.run([COMMAND, "bench", "layer", *map(str, arguments)], capture_output=True,
                          text=True, timeout=300)


def near(a, b):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


def measured(*arguments):
    done = replayrt(*arguments, *QUICK, "--json")
    expect(done.returncode == 0, f"{arguments}: exit {done.returncode}, {done.stderr}")
    return json.loads(done.stdout) if done.returncode == 0 else None


def check_graph(graph, layers, names):
    stages = graph["stages"]
    expect([s["name"] for s in stages] == names, f"stages: {stages}")
    expect(all(s["us"] > 0 and s["by"] for s in stages), f"a stage without a time: {stages}")
    expect(near(graph["layer_us"] * layers, graph["step_us"]), f"a layer's share: {graph}")
    expect(near(sum(s["us"] for s in stages), graph["sum_us"]), f"the sum: {graph}")
    expect(0.001 < graph["hidden_rms"] < 10, f"what is left has vanished or grown: {graph}")


def check_weights(graph, heads):
    as_one = {"w_uk": "preattend_absorb"}
    weights = {as_one.get(s["name"], s["name"]): s["weight_bytes"]
               for s in graph["stages"] if "weight_bytes" in s}
    expect(weights == {name: 2 * n for name, n in WEIGHTS[heads].items()}, f"weights: {weights}")
    for s in graph["stages"]:
        expect("gbps" not in s or near(s["gbps"], s["weight_bytes"] / s["us"] / 1e3), f"GB/s: {s}")


def figures():
    report = measured(LORA, "--batch", 3, "--query-len", 2, "--versus-library")
    if not report:
        return
    own, library = report["runs"]
    expect((report["layers"], report["heads"], report["length"]) == (2, 3, 40), f"{report}")
    expect(report["weight_bytes"] > 2 * 2 * sum(WEIGHTS[3].values()), "weights of both layers")
    expect([r["projections"] for r in report["runs"]] == ["auto", "cublaslt"], "two runs")
    for run, names, words in ((own, STAGES, ("rt_project", "rt_preattend_absorb")),
                              (library, BY_LIBRARY, "matmul")):
        expect([(g["batch"], g["query_len"]) for g in run["graphs"]] == [(3, 2)], "one graph")
        check_graph(run["graphs"][0], 2, names)
        check_weights(run["graphs"][0], 3)
        expect(all(s["by"].startswith(words) for s in run["graphs"][0]["stages"]
                   if "gbps" in s), f"who multiplies: {run}")
    # Of the same inputs and weights, whoever multiplies.
    expect(math.isclose(own["graphs"][0]["hidden_rms"], library["graphs"][0]["hidden_rms"],
                        rel_tol=0.02), "own and library differ")


def choices():
    report = measured(LORA, "--heads", 1, "--layers", 5)
    if report:
        graphs = report["runs"][0]["graphs"]
        expect([g["batch"] for g in graphs] == [1, 3, 4], f"all batch sizes: {graphs}")
        expect((report["layers"], report["heads"]) == (5, 1), f"--layers, --heads: {report}")
        for graph in graphs:
            check_graph(graph, 5, STAGES)
            check_weights(graph, 1)
    report = measured(PLAIN, "--batch", 2)
    if report:
        check_graph(report["runs"][0]["graphs"][0], 2, OF_PLAIN)
    done = replayrt(LORA, "--batch", 1, *QUICK)
    expect(done.returncode == 0 and "projections: auto" in done.stdout and not done.stderr
           and "batch 1, query length 1: step " in done.stdout
           and all(f"\n  {name} " in done.stdout for name in STAGES), f"text: {done}")


def of_ranks():
    """Which way each sum goes, and why: on the host device there is one."""
    why = "no one-shot sum: no memory of the ranks is mapped"
    asked = (LORA, "--heads", 2, "--ranks", 2, "--batch", 3, "--query-len", 2)
    report = measured(*asked)
    if report:
        sums = report["sums"]  # of every graph, whether it is measured or not: hidden is 32 wide
        expect({3 * 2 * 32} <= {s["numbers"] for s in sums}, f"sums: {sums}")
        expect(all(s["reason"] == why and s["one_shot"] is False for s in sums), f"why: {sums}")
        expect(len(sums) == len({s["numbers"] for s in sums}), f"once each: {sums}")
    done = replayrt(*asked, *QUICK)
    expect(done.returncode == 0 and f"\nsums of 192 numbers over ranks: {why}\n" in done.stdout,
           f"text: {done}")
    expect("over ranks:" not in replayrt(LORA, "--batch", 1, *QUICK).stdout, "no ranks, no sums")


def a_model(folder):
    path = folder / "model.yaml"
    path.write_text(f"model: {ROOT}/tests/data/golden/tiny_deepseek_v3/config.json\nlayer: true\n"
                    "graphs: {batch_sizes: [2]}\n", encoding="utf-8")
    report = measured(path)
    if report:
        check_graph(report["runs"][0]["graphs"][0], 2, STAGES[1:])


def refusals():
    small = ROOT / "tests/replay/small.yaml"
    for arguments, code, words in [
            ([small], 2, "small.yaml: bench layer measures layer: true alone"),
            (["/nowhere/replayrt.yaml"], 1, "replayrt: cannot read /nowhere/replayrt.yaml: "),
            ([], 2, "which configuration"),
            ([LORA, "--batch", 2], 2, "batch 2 with query length 1 is not captured"),
            ([LORA, "--length", 1048576], 2, "more exceed 1048576"),
            ([LORA, "--heads", 129], 2, "expected a number from 1 to 128"),
            ([LORA, "--device", "cuda:9999"], 1, "no such device"),
            ([LORA, "--device", "cuda:9999", "--json"], 1, "no such device")]:
        done = replayrt(*arguments)
        expect(done.returncode == code and words in done.stderr and not done.stdout,
               f"{arguments}: exit {done.returncode}, {done.stdout!r}, {done.stderr!r}: {words!r}")


def example():
    done = subprocess.run([COMMAND, "plan", ROOT / "examples/bench_layer.yaml", "--assume", "h200"],
                          capture_output=True, text=True, timeout=60)
    expect(done.returncode == 0 and "hidden" in done.stdout, f"the example: {done.stderr}")


def main():
    with tempfile.TemporaryDirectory(prefix="replayrt-bench-") as name:
        figures()
        choices()
        of_ranks()
        a_model(pathlib.Path(name))
        refusals()
        example()
    print("\n".join(complaints) if complaints else "every figure is there, every failure is told")
    sys.exit(1 if complaints else 0)


main()
