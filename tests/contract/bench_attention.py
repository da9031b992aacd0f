#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt bench attention on the host device: what it prints, what it writes, when it fails.

usage: bench_attention.py COMMAND
"""
import json
import math
import pathlib
import subprocess
import sys
import tempfile

COMMAND = sys.argv[1]
Q1 = {"heads": 2, "s_q": 1, "kv_rank": 256, "rope_dim": 32, "page_size": 16, "kv_lens": [40, 1, 7],
      "label": "three q1", "flashmla_layer_us": 10.0, "flashmla_metadata_us": 20.5,
      "floor_us": 12.5}
Q2 = {"heads": 1, "s_q": 2, "kv_rank": 512, "rope_dim": 0, "page_size": 64, "kv_lens": [9],
      "note": {"is": ["skipped"]}}
TIMES = ("layer_us", "append_attend_us", "schedule_us", "append_us")
COUNTS = ("parts", "layers", "layer_bytes", "compared")

complaints = []


def expect(holds, what):
    if not holds:
        complaints.append(what)


def run(folder, shapes, *options, device="host", out=None):
    """(exit code, stdout, stderr, objects of --out, which otherwise is a new file of the folder)"""
    path = folder / "shapes.jsonl"
    named, out = out, folder / "out.jsonl"
    path.write_text(shapes, encoding="utf-8")
    out.unlink(missing_ok=True)
    done = subprocess.run([COMMAND, "bench", "attention", "--shapes", path, "--out",
                           named or out, "--device", device, *options],
                          capture_output=True, text=True, timeout=300)
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    return done.returncode, done.stdout, done.stderr, [json.loads(line) for line in lines]


def near(a, b):
    return math.isclose(a, b, rel_tol=1e-6)


def check_object(o, shape):
    d_v = shape["kv_rank"]
    d_qk, tokens = d_v + shape["rope_dim"], sum(shape["kv_lens"])
    rows = shape["heads"] * shape["s_q"]
    expect(o["ok"] is True and o["wrong"] == 0, f"wrong output: {o}")
    expect(o["flop"] == 2 * (d_qk + d_v) * tokens * rows, "flop")
    expect(o["bytes"] == 2 * (tokens * d_qk + len(shape["kv_lens"]) * rows * (d_qk + d_v)), "bytes")
    expect(o["compared"] == len(shape["kv_lens"]) * rows * (d_v + 1), "elements compared")
    expect(o["backend"] == "generic" and o["kernel"].startswith("rt_mla_attend_"), "kernel")
    expect(o["device"] and near(o["softmax_scale"], 0.1352338), "device and scale")
    expect(all(o[key] > 0 for key in TIMES + COUNTS), f"a figure is 0: {o}")
    expect(near(o["tflops"], o["flop"] / o["layer_us"] / 1e6), "TFLOPS")
    expect(near(o["gbps"], o["bytes"] / o["layer_us"] / 1e3), "GB/s")
    expect(near(o["layer_per_floor"], o["layer_us"] / o["floor_us"]), "layer/floor")


def good_run(folder):
    text = f"\n{json.dumps(Q1)}\n  \n{json.dumps(Q2)}"
    code, out, err, objects = run(folder, text)
    expect(code == 0, f"good shapes: exit {code}, {err}")
    expect("0 FAILED" in out and "FAILED:" not in out, f"good shapes: {out}")
    expect("softmax scale 0.1352338" in out, "the scale is said")
    expect("three q1" in out and "b1 h1 q2 k9" in out, "both labels")
    expect([o["label"] for o in objects] == ["three q1", "b1 h1 q2 k9"], "a line a shape")
    for o, shape in zip(objects, (Q1, Q2)):
        check_object(o, shape)
        expect(o["step_layers"] == 61 and o["step_us"] > 0, f"no step: {o}")
        # Figures are rounded when they are written, and a difference may be far smaller than both.
        other = o["step_us"] - 61 * o["layer_us"]
        expect(math.isclose(other, o["step_other_us"], abs_tol=1e-6 * o["step_us"]),
               f"step_other_us: {o}")
    first, second = objects
    expect(first["class"] == "memory" and first["floor_us"] == 12.5, "the list's own floor")
    expect(near(first["peer_per_ours"], 10.0 / first["layer_us"]), "peer/ours")
    expect(first["flashmla_metadata_us"] == 20.5, "the other's metadata")
    expect("peer_per_ours" not in second and second["class"] == "latency", "nobody to compare")


def choices(folder):
    both = f"{json.dumps(Q1)}\n{json.dumps(Q2)}\n"
    code, out, _, objects = run(folder, both, "--no-step", "--only", "q1", "--backend", "generic")
    expect(code == 0 and len(objects) == 1 and objects[0]["step_layers"] == 0, "--only, --no-step")
    expect("step_us" not in objects[0], "no step, no figure")
    expect("sustained_layer_us" not in objects[0], "no sustained load, no figure")
    code, out, _, objects = run(folder, both, "--no-step", "--only", "q1", "--sustained", "1")
    expect(code == 0 and objects[0]["sustained_layer_us"] > 0, f"--sustained: {code} {out}")
    expect(objects[0]["sustained_layers"] == 61, "a step's layers")
    expect("sustained_step_j" not in objects[0] and "no energy counter" in out, "the host's none")
    code, _, err, _ = run(folder, both, "--only", "q7")
    expect(code == 1 and 'no label has "q7"' in err, f"--only nothing: {code} {err}")
    # What a backend cannot serve is that shape's failure; the others are measured.
    code, out, _, objects = run(folder, both, "--no-step", "--backend", "sm90")
    expect(code == 1 and out.count("FAILED: ") == 2 and "2 FAILED" in out, f"sm90: {code} {out}")
    expect([o["ok"] for o in objects] == [False, False], "ok is false")
    expect(all("sm90" in o["problem"] for o in objects), "and why")
    odd = dict(Q2, kv_rank=256, rope_dim=0, label="odd")
    code, out, _, objects = run(folder, f"{json.dumps(odd)}\n{json.dumps(Q2)}", "--no-step")
    expect(code == 1 and [o["ok"] for o in objects] == [False, True], f"256/256: {code} {out}")


def refusals(folder):
    for text, words in [
            ("", "no shape in it"),
            (json.dumps(Q1) + "\n{\"heads\": 0}", "shapes.jsonl:2: heads is 0: must be"),
            (json.dumps(dict(Q1, page_size="64")), 'shapes.jsonl:1: page_size is "64"'),
            (json.dumps(dict(Q1, kv_lens=[0])), "kv_lens[0] is 0"),
            ("not JSON", "shapes.jsonl:1: not JSON near column")]:
        code, out, err, objects = run(folder, text)
        expect(code == 1 and words in err and not out and not objects,
               f"{text!r}: exit {code}, {err!r} must have {words!r}")
    for options, words in [(["--backend", "cuda"], "expected auto, sm90 or generic"),
                           (["--small-tiles", "static"], "expected auto or off"),
                           (["more.jsonl"], "more.jsonl: only options")]:
        code, _, err, _ = run(folder, json.dumps(Q1), *options)
        expect(code == 2 and words in err, f"{options}: exit {code}, {err!r}")
    code, _, err, _ = run(folder, json.dumps(Q1), out=folder / "no" / "such" / "folder")
    expect(code == 1 and "cannot be written: " in err, f"--out nowhere: exit {code}, {err!r}")
    shapes = folder / "shapes.jsonl"
    code, _, err, _ = run(folder, json.dumps(Q1), out=shapes)
    expect(code == 1 and "is the list of shapes itself" in err
           and shapes.read_text(encoding="utf-8") == json.dumps(Q1), f"--out list: {code}, {err!r}")
    kept = folder / "kept.jsonl"
    kept.write_text("earlier figures", encoding="utf-8")
    code, _, err, _ = run(folder, json.dumps(Q1), device="cuda:9999", out=kept)
    expect(code == 1 and "no such device" in err, f"--device: exit {code}, {err!r}")
    expect(kept.read_text(encoding="utf-8") == "earlier figures", "--out of a device that is not")


def main():
    with tempfile.TemporaryDirectory(prefix="replayrt-bench-") as name:
        folder = pathlib.Path(name)
        good_run(folder)
        choices(folder)
        refusals(folder)
    print("\n".join(complaints) if complaints else "every figure is there, every failure is told")
    sys.exit(1 if complaints else 0)


main()
