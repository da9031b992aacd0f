#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt bench prefill on the host device: what it prints, and when it refuses.

usage: bench_prefill.py COMMAND SOURCE_ROOT
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile

COMMAND, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
LORA = ROOT / "tests/replay/layer.yaml"  # heads 3, L 256, R 32, hidden 32, P 8, V 16
GOLDEN = ROOT / "tests/data/golden/tiny_deepseek_v3"  # heads 4, L 512, R 64; absorbed
MODEL = GOLDEN / "replayrt.yaml"
QUICK = ("--steps", "3", "--batch", "2", "--length", "20", "--device", "host")
ABSORBED = ["input_norm", "qkv_a", "q_b", "preattend", "w_uk", "attend", "reduce", "w_uv", "o_proj"]
EXPANDED = ["input_norm", "qkv_a", "q_b", "preattend", "kv_gather", "kv_b", "prefill_attend",
            "o_proj"]
BESIDE = ["w_uk", "attend", "reduce", "w_uv"]

complaints = []


def expect(holds, what):
    if not holds:
        complaints.append(what)


def replayrt(*arguments):
    return subprocess.run([COMMAND, "bench", "prefill", *map(str, arguments)], capture_output=True,
                          text=True, timeout=300)


def near(a, b):
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)


def measured(*arguments):
    done = replayrt(LORA, *arguments, *QUICK, "--json")
    expect(done.returncode == 0 and not done.stderr, f"{arguments}: {done}")
    return json.loads(done.stdout) if done.returncode == 0 else None


def check_row(report, tokens, width, names):
    """width: numbers that a pair of query and key multiplies, of a head."""
    row, = report["prefill"]
    pairs, layers = tokens * (tokens + 1) / 2, report["layers"]
    attention = 2 * pairs * report["heads"] * width
    weights = report["weight_bytes"] / layers
    compute = (tokens * weights + attention) / report["peak_tflops"] / 1e6
    memory = weights / report["peak_gbps"] / 1e3
    expect(row["tokens"] == tokens and row["attention_flop"] == attention, f"attention: {row}")
    expect(near(row["layer_flop"], tokens * weights + attention), f"a layer's work: {row}")
    expect(near(row["floor_us"], max(compute, memory)) and
           row["floor_by"] == ("compute" if compute >= memory else "memory"), f"floor: {row}")
    expect(near(row["layer_us"] * layers, row["step_us"]), f"a layer's share: {row}")
    expect([s["name"] for s in row["stages"]] == names, f"stages: {row['stages']}")
    expect(all(s["us"] > 0 and s["count"] == 1 for s in row["stages"]), f"{row['stages']}")
    alone = sum(s["us"] for s in row["stages"] if s["name"] in ("prefill_attend", "attend",
                                                                "reduce"))
    expect(near(row["attention_us"], alone), f"attention alone: {row}")
    expect(near(row["attention_tflops"], attention / alone / 1e6), f"its speed: {row}")
    expect(near(row["layer_tflops"], row["layer_flop"] / row["layer_us"] / 1e6), f"speed: {row}")
    expect(0.001 < row["hidden_rms"] < 10, f"what is left has vanished or grown: {row}")
    return row


def check_beside(report, chunk, names):
    mix = report["beside"]
    expect((mix["chunk"], mix["batch"], mix["length"]) == (chunk, 2, 20), f"beside: {mix}")
    expect(min(mix["chunk_us"], mix["decode_us"], mix["mixed_us"]) > 0, f"times: {mix}")
    expect(near(mix["mixed_share"], mix["mixed_us"] / mix["chunk_us"]), f"its share: {mix}")
    expect([s["name"] for s in mix["stages"]] == names and
           all(s["us"] > 0 for s in mix["stages"]), f"its stages: {mix['stages']}")


def figures():
    report = measured("--tokens", 24, "--chunk", 4)
    if report:
        row = check_row(report, 24, 8 + 32 + 16, EXPANDED)
        expect(row["form"].startswith("expanded") and row["floor_by"] == "memory", f"{row}")
        expect((report["peak_tflops"], report["peak_gbps"]) == (784, 4559), f"peaks: {report}")
        check_beside(report, 4, ABSORBED)
    report = measured("--tokens", 4, "--chunk", 4, "--heads", 2, "--layers", 3, "--tflops", "0.5",
                      "--gbps", 100000)
    if report:
        row = check_row(report, 4, 2 * 256 + 32, ABSORBED)
        expect(row["form"].startswith("absorbed") and row["floor_by"] == "compute", f"{row}")
        expect((report["layers"], report["heads"], report["steps"]) == (3, 2, 3), f"{report}")
        check_beside(report, 4, ABSORBED)

    report = measured("--tokens", 24, "--chunk", 24)
    if report:
        check_beside(report, 24, EXPANDED[:4] + BESIDE + EXPANDED[4:])


def model():
    """The same of a whole model, by its own weights and by random ones; without floors."""
    for source in ((), ("--random", 3)):
        done = replayrt(MODEL, "--checkpoint", GOLDEN, *source, "--tokens", 24, "--chunk", 4,
                        *QUICK, "--json")
        expect(done.returncode == 0 and not done.stderr, f"model {source}: {done}")
        if done.returncode:
            continue
        report = json.loads(done.stdout)
        row, = report["prefill"]
        expect(report["model"] == "deepseek_v3" and "peak_gbps" not in report, f"{report}")
        expect(report["weight_bytes"] > 2 << 20, f"weights of all of it: {report}")
        expect(row["tokens"] == 24 and "floor_us" not in row and 0.001 < row["hidden_rms"] < 100,
               f"model's row: {row}")
        expect(near(row["layer_us"] * report["layers"], row["step_us"]), f"a share: {row}")
        expect([s["name"] for s in row["stages"]] == ABSORBED, f"stages: {row['stages']}")
        check_beside(report, 4, ABSORBED)
    done = replayrt(MODEL, "--checkpoint", GOLDEN, "--tokens", 24, "--chunk", 4, *QUICK)
    expect(done.returncode == 0 and "\nmodel: deepseek_v3, whole: " in done.stdout
           and "\n24 tokens: chunk " in done.stdout and "floor" not in done.stdout, f"{done}")


def text():
    done = replayrt(LORA, "--tokens", 24, "--chunk", 24, *QUICK)
    expect(done.returncode == 0 and not done.stderr and "\n24 tokens: layer " in done.stdout
           and all(f"\n  {name} " in done.stdout for name in EXPANDED)
           and "\nbeside a chunk of 24 tokens, 2 rows with a past of 20: " in done.stdout
           and "medians of 3" in done.stdout, f"text: {done}")


def standard():
    """What nobody says is little on the host device, and no more than a model was made for."""
    done = replayrt(LORA, "--json")
    report = json.loads(done.stdout) if done.returncode == 0 else {"prefill": []}
    expect([row["tokens"] for row in report["prefill"]] == [8, 32] and report["steps"] == 3,
           f"lengths of the host device: {done}")
    beside = report.get("beside", {})
    expect([beside.get(k) for k in ("chunk", "batch", "length")] == [8, 2, 64], f"{beside}")
    with tempfile.TemporaryDirectory(prefix="replayrt-bench-") as name:
        folder = pathlib.Path(name)
        config = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
        config["max_position_embeddings"] = 24
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        of_model = (MODEL, "--checkpoint", folder, "--random", 1, "--device", "host", "--steps", 1)
        done = replayrt(*of_model, "--json")
        report = json.loads(done.stdout) if done.returncode == 0 else {"prefill": []}
        expect([row["tokens"] for row in report["prefill"]] == [8] and
               report["beside"]["length"] == 23, f"lengths of a short model: {done}")
        for arguments, words in [
                (("--tokens", 25), "--tokens 25"), (("--chunk", 25), "--chunk 25"),
                (("--length", 24), "--length 24 and the token behind it are 25")]:
            done = replayrt(*of_model, *arguments)
            expect(done.returncode == 2 and not done.stdout and
                   f"{words}: the model's max_position_embeddings is 24" in done.stderr, f"{done}")


def refusals():
    for arguments, code, words in [
            ([ROOT / "tests/replay/small.yaml"], 2,
             "small.yaml: bench prefill measures layer: true, or a model (--checkpoint)"),
            ([LORA, "--random", 3], 2, "--random 3: weights of blocks alone are random without it"),
            ([MODEL, "--checkpoint", GOLDEN, "--layers", 3], 2,
             "--layers 3: with --checkpoint the model says it"),
            ([LORA, "--checkpoint", GOLDEN], 1,
             "geometry.heads is 3, the checkpoint's model has 4"),
            ([MODEL, "--checkpoint", "/nowhere"], 1, "replayrt: /nowhere: No such file"),
            (["/nowhere/replayrt.yaml"], 1, "replayrt: cannot read /nowhere/replayrt.yaml: "),
            ([], 2, "which configuration"),
            ([LORA, "--tokens", 0], 2, "expected a number from 1 to 16384"),
            ([LORA, "--batch", 1025], 2, "expected a number from 1 to 1024"),
            ([LORA, "--tflops", 0], 2, "--tflops 0: expected a number above 0"),
            ([LORA, "--gbps", 0], 2, "--gbps 0: expected a number above 0"),
            ([LORA, "--device", "cuda:9999"], 1, "no such device"),
            ([LORA, "--device", "cuda:9999", "--json"], 1, "no such device")]:
        done = replayrt(*arguments)
        expect(done.returncode == code and words in done.stderr and not done.stdout,
               f"{arguments}: exit {done.returncode}, {done.stdout!r}, {done.stderr!r}: {words!r}")


figures()
model()
text()
standard()
refusals()
print("\n".join(complaints) if complaints else "every figure is there, every failure is told")
sys.exit(1 if complaints else 0)
