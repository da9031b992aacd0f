#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt verify --ranks on the host device: every configuration over ranks and shared contexts,
ranks of a launcher, ranks that see other bits, fail or die, and what is refused.

usage: verify_ranks.py COMMAND SOURCE_ROOT
"""
import json
import os
import pathlib
import sys
import tempfile
import time

from rank_cases import PORT, case, end, ended, expect, finish_cases, launched, started, told

COMMAND, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
REPLAY = ROOT / "tests/replay"
RANKS = REPLAY / "layer_ranks.yaml"
# Of one row, whatever the history: ranks of other seeds make steps of the same shape.
ONE_ROW = """geometry: {heads: 4, kv_lora_rank: 256, qk_rope_head_dim: 32, layers: 1,
           softmax_scale: 0.1581}
device: host
graphs: {batch_sizes: [1], query_lens: [1]}
sequences: {max: 1, max_length: 512}
kv_cache: {layout: bf16, page_size: 16, pages: 40}
layer: true
block: {hidden_size: 32, q_lora_rank: 24, qk_nope_head_dim: 8, v_head_dim: 16}
"""


def command(config, *more):
    return [COMMAND, "verify", str(config), *map(str, more)]


# ---- what ranks will run -----------------------------------------------------------------------


def check_plan(folder):
    """Tokens are rows where a context is shared: the plan names the kernel that they have."""
    path = pathlib.Path(folder, "wide.yaml")
    path.write_text(ONE_ROW.replace("heads: 4", "heads: 128").replace("256", "512")
                    .replace("dim: 32, layers", "dim: 64, layers").replace("[1]}", "[2]}")
                    .replace("[1],", "[16, 17],").replace("max: 1,", "max: 17,")
                    .replace("page_size: 16", "page_size: 64").replace("device: host", ""))
    asked = [COMMAND, "plan", str(path), "--assume", "h200", "--ranks", "2"]
    for context, kernels in ((1, ("m64", "m64")), (2, ("m64", "c64"))):
        path.write_text(path.read_text() + f"context_parallel: {context}\n" * (context > 1))
        got, out, err = ended(asked)
        for batch, kernel in zip((16, 17), kernels):
            line = "".join(x for x in out.splitlines() if x.startswith(f"graph  batch   {batch} "))
            expect(f"576x512_{kernel}:" in line, f"{kernel}: {told(asked, got, line, err)}")


# ---- all of it is equal ------------------------------------------------------------------------


def verified(config, *more):
    asked = command(config, *more, "--json")
    code, out, err = ended(asked)
    expect(code == 0, told(asked, code, out, err))
    expect(" bitwise equal\n" in err and "replayrt:" not in err, f"progress is told: {err}")
    return json.loads(out)


def check_equal(config, steps, ranks, context):
    shared = ("--context", context) if context > 1 else ()
    r = verified(config, "--steps", steps, "--ranks", ranks, *shared)
    expect((r["equal"], r["ranks"], r["context_parallel"]) == (True, ranks, context), f"{r}")
    expect(r["graphs"] > 0 and r["steps"] >= steps * r["graphs"], f"every graph has steps: {r}")
    expect(0 < r["bytes_of_ranks"] < r["bytes_compared"], f"ranks compare a part: {r}")


def check_alone():
    """The history is the same however many ranks there are; one rank has nobody to differ from."""
    alone = verified(RANKS, "--steps", 2)
    one, two = (verified(RANKS, "--steps", 2, "--ranks", n) for n in (1, 2))
    history = ("graphs", "steps", "rows", "padded_rows", "closes", "forks", "rewinds")
    for r in (one, two):
        expect([r[k] for k in history] == [alone[k] for k in history], f"{r}, alone {alone}")
    expect(alone.get("ranks", alone.get("bytes_of_ranks")) is None, f"no ranks: {alone}")
    expect(alone["bytes_compared"] == one["bytes_compared"] > two["bytes_compared"],
           f"heads are cut: {one}, {two}")


def check_text():
    code, out, err = ended(command(RANKS, "--steps", 1, "--ranks", 2))
    last = out.splitlines()[-2:]
    expect(code == 0 and not err and last[0].startswith("replay equals eager, bitwise: ")
           and last[1].startswith("on each of 2 ranks, context parallel 1; "), f"{out} {err}")
    expect(out.count("replay equals eager") == 1, f"one of them tells: {out}")


def check_launched():
    first, second = (launched(command(RANKS, "--steps", 1, "--ranks", 2, "--json"), rank)
                     for rank in (0, 1))
    code, out, err = end(first)
    expect(code == 0 and json.loads(out)["ranks"] == 2, f"{code} {out} {err}")
    code, out, err = end(second)
    expect(code == 0 and not out and not err, f"rank 1 has nothing to say: {code} {out} {err}")


# ---- not equal, or not there -------------------------------------------------------------------


def pair(folder, theirs, mine=ONE_ROW, more=(), others=()):
    """Rank 0 with `mine`, rank 1 with `theirs`: what each has ended with and said."""
    processes = []
    for rank, text, extra in ((0, mine, more), (1, theirs, others)):
        path = pathlib.Path(folder) / f"rank{rank}.yaml"
        path.write_text(text, encoding="utf-8")
        processes.append(launched(command(path, "--steps", 20, "--ranks", 2, *extra), rank))
    return [end(p) for p in processes]


def check_told(ended_with, *words):
    """Both have failed, the first one alone has told it, once."""
    (code, out, err), (other, silent, nothing) = ended_with
    expect(code == other == 1 and not nothing and not silent, f"{code} {err}; {other} {nothing}")
    expect(err.count("replayrt:") == 1 and all(w in err for w in words), f"{words}: {err}")
    return out


def check_differ(folder):
    # Which word is the first to differ, chance decides; that one does, and whose, it does not.
    out = check_told(pair(folder, ONE_ROW, more=("--json",), others=("--seed", 2)),
                     ": rank 1 has other bits than rank 0; batch 1, query length 1, 1 live, step ")
    r = json.loads(out)
    expect(not r["equal"] and "other bits" in r["message"] and r["ranks"] == 2, f"{r}")


def check_others(folder):
    """What a rank fails at by itself is told with its number, not that it has left."""
    check_told(pair(folder, ONE_ROW.replace("heads: 4", "heads: 5")),
               "rank 1 of 2: 5 heads cannot be cut evenly over 2 ranks: 1, 5 ranks can be")
    check_told(pair(folder, ONE_ROW, mine=ONE_ROW.replace("heads: 4", "heads: 5")),
               "rank 0 of 2: 5 heads cannot be cut evenly over 2 ranks: 1, 5 ranks can be")
    check_told(pair(folder, ONE_ROW.replace("layers: 1", "layers: 2")), " has layers ")
    for text, words in (
            (ONE_ROW.replace("hidden_size: 32", "hidden_size: 40"),
             "rank 1 has block.hidden_size 40, rank 0 (this one) has 32"),
            (ONE_ROW.replace("0.1581", "0.25"),
             "rank 1 has geometry.softmax_scale 0.25, rank 0 (this one) has 0.1581"),
            (ONE_ROW + "input_norm: true\n", "rank 1 has input_norm 1, rank 0 (this one) has 0"),
            (ONE_ROW + "rope: {order: half}\n", "rank 1 has another rope.order than rank 0 (this")):
        check_told(pair(folder, text), f"rank 0 of 2: {words}")
    larger = ONE_ROW.replace("page_size: 16", "page_size: 32")
    shared = {"more": ("--context", 2), "others": ("--context", 2)}
    check_told(pair(folder, larger, **shared),
               "rank 1 has kv_cache.page_size 32, rank 0 (this one) has 16")


def children(process):
    """Those that it has started by now."""
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    until = time.monotonic() + 20
    while len(pids := path.read_text(encoding="utf-8").split()) < 2 and time.monotonic() < until:
        time.sleep(0.01)
    return [int(pid) for pid in pids]


def check_killed(after):
    """One of three that the command has started itself."""
    asked = command(RANKS, "--steps", 100000, "--ranks", 3)
    process = started(asked)
    pids = children(process)
    expect(len(pids) == 2, f"two more processes: {pids}")
    time.sleep(after)
    os.kill(pids[1], 9)
    begun = time.monotonic()
    code, _, err = end(process)
    expect(code == 1 and "rank 2 is gone, its process has ended" in err, f"{code} {err}")
    expect(time.monotonic() - begun < 10, f"noticed late: {err}")
    expect(not pathlib.Path(f"/proc/{pids[0]}").exists(), "the other one is left behind")


# ---- what is refused ---------------------------------------------------------------------------


def refused(words, *more, code=2, config=RANKS):
    asked = command(config, *more)
    got, out, err = ended(asked)
    expect(got == code and words in err and not out, f"{words}: {told(asked, got, out, err)}")
    expect(err.count("replayrt:") == 1, f"once: {err}")


def check_refused():
    refused("small.yaml: --ranks 2 wants layer: true", "--ranks", 2, config=REPLAY / "small.yaml")
    refused("--context 2 without --ranks: it is ranks that share a context", "--context", 2)
    refused("--context 2 does not divide --ranks 3", "--context", 2, "--ranks", 3)
    refused("--ranks 0: expected a number from 1 to 64", "--ranks", 0)
    refused("device cuda:1 with --ranks 2: rank r is on cuda:r, by auto, or all are on the host",
            "--ranks", 2, "--device", "cuda:1")
    refused("--ranks 65: expected a number from 1 to 64", "--ranks", 65)
    refused("12 heads cannot be cut evenly over 5 ranks: 1, 2, 3, 4, 6, 12 ranks can be",
            "--ranks", 5)
    refused("topk is 70: must be absent with context_parallel above 1", "--ranks", 2, "--context",
            2, code=1, config=REPLAY / "sparse_layer.yaml")


def check_shared_key(folder):
    path = pathlib.Path(folder) / "shared.yaml"
    path.write_text(ONE_ROW + "context_parallel: 2\n", encoding="utf-8")
    refused("shared.yaml: context_parallel 2 without --ranks", config=path)
    refused("shared.yaml: context_parallel 2 does not divide --ranks 1", "--ranks", 1, config=path)
    check_equal(path, 3, 4, 2)


def check_devices():
    """Of a launcher's ranks each sees one GPU alone, or all see the same; here there is none."""
    for visible, device in (("-1", "cuda:0"), ("-1,-1", "cuda:1")):
        asked = command(RANKS, "--ranks", 2, "--device")
        first, second = launched([*asked, "host"], 0), launched([*asked, "auto"], 1,
                                                                CUDA_VISIBLE_DEVICES=visible)
        both = [end(first), end(second)]
        # Where there is a driver, it has none to number.
        named = device if "this build has no CUDA kernels" in both[0][2] else ""
        check_told(both, f"no such device: rank 1 of 2: {named}",
                   "; --device host has all ranks there")


def left_behind():
    names = [p.name for p in pathlib.Path("/dev/shm").glob("replayrt-*")]
    return [n for n in names if n.endswith(PORT)]


def main():
    for ranks, context in ((2, 1), (3, 1), (4, 1), (2, 2), (3, 3), (4, 2)):
        case(f"--ranks {ranks} --context {context}", check_equal, RANKS, 3, ranks, context)
    for name, ranks, context in (("layer", 3, 1), ("sparse_layer", 2, 1), ("layer_v32", 2, 1),
                                 ("layer_v32", 2, 2), ("layer_plain", 2, 2), ("whole_block", 4, 1)):
        case(f"{name}, --ranks {ranks} --context {context}", check_equal, REPLAY / f"{name}.yaml",
             3, ranks, context)
    case("beside one rank", check_alone)
    case("as text", check_text)
    case("ranks of a launcher", check_launched)
    with tempfile.TemporaryDirectory() as folder:
        case("ranks that differ", check_differ, folder)
        case("ranks of other configurations", check_others, folder)
        case("a context that is configured", check_shared_key, folder)
        case("what the plan names", check_plan, folder)
    for after in (0.05, 1):
        case(f"a rank killed after {after} s", check_killed, after)
    case("what is refused", check_refused)
    case("which device", check_devices)
    case("nothing is left", lambda: expect(not left_behind(), f"{left_behind()}"))
    finish_cases()


main()
