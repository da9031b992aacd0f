#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt decode --ranks on the host device: recorded models cut over ranks, beside one rank and
the recording; ranks that a launcher starts; one that is killed, one with other prompts.

usage: decode_ranks.py COMMAND SOURCE_ROOT [GPUS]

With GPUS, a number of them, on these instead: over so many ranks, where it divides the heads.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from dumped import tensors
from rank_cases import (FAILED, MPIRUNS, PORT, TORCHRUN, case, end, ended, expect, finish_cases,
                        launched, told)

COMMAND, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
GPUS = int(sys.argv[3]) if len(sys.argv) > 3 else 0
os.environ.pop("NCCL_DEBUG", None)  # which would write where the answers are
GOLDEN = ROOT / "tests/data/golden"
# The heads of each, and their divisors above 1.
FAMILIES = {"deepseek_v2": (2, 4), "deepseek_v3": (2, 4), "glm4_moe_lite": (5,),
            "minicpm3": (2, 4), "mistral4": (2, 4), "youtu": (2, 4)}
LONGEST, STEPS = 130, 16
F32_BOUND = 1e-5   # of any logit, from one rank's
BF16_BOUND = 0.04  # of the mean difference from one rank's, in deviations


def options(family, *more):
    """Of a recorded model, or of a folder."""
    folder = family if isinstance(family, pathlib.Path) else GOLDEN / f"tiny_{family}"
    return [COMMAND, "decode", "--checkpoint", str(folder), "--device",
            "auto" if GPUS else "host", *map(str, more)]


def run(family, *more):
    command = options(family, *more, "--json")
    code, out, err = ended(command)
    # Ranks whose libraries have no way in common multiply by kernels of ours, and say so.
    said = err.splitlines()
    stray = [line for line in said if not (GPUS and "the library has no way: rank" in line)]
    expect(code == 0 and not stray, told(command, code, out, err))
    if said:
        print(f"{len(said)} products by kernels of ours:", *said, sep="\n")
    return json.loads(out)


# ---- the same tokens --------------------------------------------------------------------------


def recorded(family):
    """Options for three of the recorded prompts, and what was chosen behind them."""
    golden = tensors(GOLDEN / f"tiny_{family}" / "golden.safetensors")
    prompts, lens = golden["prompts"][1], golden["prompt_lens"][1]
    arguments, greedy = ["--max-new-tokens", STEPS, "--ignore-eos"], []
    for p in range(3):
        ids = prompts[p * LONGEST:p * LONGEST + lens[p]]
        arguments += ["--prompt-ids", ",".join(map(str, ids))]
        greedy.append(list(golden["greedy_tokens"][1][p * STEPS:(p + 1) * STEPS]))
    return arguments, greedy


def decoded(family, folder, *more):
    path = pathlib.Path(folder) / "dump"
    r = run(family, *more, "--dump", path)
    return [p["tokens"] for p in r["prompts"]], tensors(path)["logits"][1]


def ways(counts, precision):
    """Heads cut over ranks; contexts shared by all of them; and by some, where they are exact."""
    for ranks in counts:
        yield ("--ranks", ranks)
        yield ("--ranks", ranks, "--context", ranks)
        if precision == "f32" and ranks == 4:
            yield ("--ranks", ranks, "--context", 2)


def check_way(family, precision, folder, asked, greedy, alone, way):
    tokens, one = alone
    got, many = decoded(family, folder, *asked, *way)
    off = [abs(a - b) for a, b in zip(one, many)]
    if precision == "f32":
        expect(got == tokens, f"{got}, one rank {tokens}")
        expect(got == greedy, f"{got}, recorded {greedy}")
        expect(max(off) <= F32_BOUND, f"a logit is {max(off)} off")
    deviation = (sum(x * x for x in one) / len(one)) ** 0.5
    mean = sum(off) / len(off)
    expect(mean <= BF16_BOUND * deviation, f"{mean} of {deviation} off")
    print(f"{family}, {precision}, {' '.join(map(str, way))}: worst {max(off):.3g}, mean "
          f"{mean / deviation:.2g} deviations")


def check_precision(family, precision, counts):
    prompts, greedy = recorded(family)
    # In bf16 a choice may be nearly a tie: what is fed is the same there.
    teacher = [a for g in greedy for a in ("--teacher-ids", ",".join(map(str, g)))]
    asked = [*prompts, "--precision", precision, *(teacher if precision == "bf16" else [])]
    with tempfile.TemporaryDirectory() as folder:
        alone = decoded(family, folder, *asked)
        for way in ways(counts, precision):
            case(f"{family}, {precision}, {' '.join(map(str, way))}", check_way, family, precision,
                 folder, asked, greedy, alone, way)


def check_family(family, counts):
    for precision in ("bf16",) if GPUS else ("f32", "bf16"):
        case(f"{family}, {precision}", check_precision, family, precision, counts)


# ---- parts that are not alike -----------------------------------------------------------------

# Of 12 heads, whose other dimensions no number of ranks divides into units of 8: of 4 ranks one has
# nothing of experts, and the last 11 ids of 203; the table is the head too in the second.
UNEVEN = {"deepseek_v3": {"num_attention_heads": 12, "num_key_value_heads": 12, "vocab_size": 203,
                          "intermediate_size": 72, "moe_intermediate_size": 40,
                          "n_shared_experts": 2},
          "youtu": {"num_attention_heads": 12, "num_key_value_heads": 12, "vocab_size": 37,
                    "intermediate_size": 24, "tie_word_embeddings": True}}
SAMPLED = ("--temperature", 1.5, "--top-k", 20, "--top-p", 0.9, "--seed", 3)


def check_uneven(family, changes, counts):
    """Random weights: logits, and the tokens that are drawn from them, as of one rank."""
    config = json.loads((GOLDEN / f"tiny_{family}/config.json").read_text())
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        asked = ("--random", 1, "--prompt-ids", "5,7,9,11,13", "--prompt-ids", "4",
                 "--max-new-tokens", 12, "--ignore-eos", *SAMPLED, "--precision",
                 "bf16" if GPUS else "f32")
        tokens, one = decoded(folder, folder, *asked)
        for ranks in counts:
            got, many = decoded(folder, folder, *asked, "--ranks", ranks)
            off = [abs(a - b) for a, b in zip(one, many)]
            name = f"{family}, uneven, --ranks {ranks}"
            if not GPUS:
                expect(got == tokens, f"{name}: {got}, one rank {tokens}")
                expect(max(off) <= F32_BOUND, f"{name}: a logit is {max(off)} off")
            deviation = (sum(x * x for x in one) / len(one)) ** 0.5
            mean = sum(off) / len(off)
            # Drawn tokens of bf16 may be others, and all behind them.
            expect(got != tokens or mean <= BF16_BOUND * deviation,
                   f"{name}: {mean} of {deviation} off")
            print(f"{name}: worst {max(off):.3g}, mean {mean / deviation:.2g} deviations")


# ---- ranks that somebody else starts ----------------------------------------------------------


def launch(rank, *more, **by):
    return launched(options("deepseek_v3", *more, "--ranks", 2), rank, **by)


def check_launcher():
    asked = ("--prompt-ids", "5,7,9", "--max-new-tokens", 8)
    alone = [p["tokens"] for p in run("deepseek_v3", *asked)["prompts"]]
    code, out, err = end(launch(0, *asked, world="3"))
    expect(code == 1 and "--ranks 2, but this is RANK=0 of WORLD_SIZE=3" in err, f"world: {err}")
    code, out, err = end(launch("x", *asked))
    expect(code == 1 and "RANK=x in the environment: expected a number" in err, f"no number: {err}")
    code, out, err = end(launch(0, *asked, LOCAL_WORLD_SIZE="1"))
    expect(code == 1 and "ranks are of one machine" in err, f"two machines: {err}")
    for by in MPIRUNS:
        for extra, words in (({by[2]: "1"}, f"{by[2]}=1 of {by[1]}=2: ranks are of one machine"),
                             ({by[1]: "3"}, f"but this is {by[0]}=0 of {by[1]}=3"),
                             ({"MASTER_PORT": "x"}, "MASTER_PORT=x in the environment")):
            code, out, err = end(launch(0, *asked, by=by, **{by[2]: "0", **extra}))
            expect(code == 1 and words in err, f"{by[0]}, {extra}: {err}")
    for by, extra in [(by, {}) for by in (TORCHRUN, *MPIRUNS)] + [(MPIRUNS[0],
                                                                    {"MASTER_PORT": PORT})]:
        first, second = (launch(rank, *asked, "--json", by=by, **extra) for rank in (0, 1))
        code, out, err = end(first)
        expect(code == 0 and [p["tokens"] for p in json.loads(out)["prompts"]] == alone,
               f"{by[0]}, rank 0: {code} {out} {err}")
        code, out, err = end(second)
        expect(code == 0 and json.loads(out or "{}") == {}, f"{by[0]}, rank 1: {code} {out} {err}")


def check_killed(after):
    """On GPUs: while it opens its device, while NCCL connects, while it decodes."""
    asked = (*("--prompt-ids", "5,7,9") * (64 if GPUS else 1), "--max-new-tokens", 8000,
             "--ignore-eos")
    first, second = launch(0, *asked), launch(1, *asked)
    time.sleep(after)
    second.kill()
    begun = time.monotonic()
    code, _, err = end(first)
    expect(code == 1 and "rank 1 is gone, its process has ended; its last step was" in err,
           f"killed after {after} s: {code} {err}")
    expect(time.monotonic() - begun < 10, f"a rank killed after {after} s is noticed late")
    end(second)


def check_others():
    """Two prompts here, one there: other graphs."""
    asked = ("--prompt-ids", "5,7,9", "--max-new-tokens", 8)
    first, second = launch(0, *asked), launch(1, *asked, "--prompt-ids", "4")
    code, _, err = end(first)
    expect(code == 1 and "rank 1 has batch size 2, rank 0 (this one) has 1" in err, f"{code} {err}")
    code, _, err = end(second)
    expect(code == 1 and "rank 0 has batch size 1, rank 1 (this one) has 2" in err, f"{code} {err}")


def refused(*more, code=1, **extra):
    """What a command that must fail has said."""
    command = options("deepseek_v3", "--prompt-ids", "5", "--max-new-tokens", 2, *more)
    if "env" in extra:  # which device is to be found out
        command = [o for o in command if o not in ("--device", "host", "auto")]
    got, out, err = ended(command, **extra)
    expect(got == code, told(command, got, out, err))
    return err


def check_refused():
    err = refused("--ranks", 3, code=2)
    told_once = "replayrt: 4 heads cannot be cut evenly over 3 ranks: 1, 2, 4 ranks can be\n"
    expect(err == told_once, err)
    err = refused("--ranks", 0, code=2)
    expect("--ranks 0: expected a number from 1 to 64" in err, err)
    for more, story in ((("--ranks", 2), "does not divide --ranks 2"), ((), "without --ranks")):
        err = refused("--context", 4, *more, code=2)
        expect(f"--context 4 {story}" in err, err)
    err = refused("--ranks", 2, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    expect("no such device: " in err and "; --device host has all ranks there" in err, err)


def check_ranks():
    case("ranks of a launcher", check_launcher)
    for after in (0.4, 0.7, 1, 1.6) if GPUS else (1,):
        case(f"a rank killed after {after} s", check_killed, after)
    case("ranks with other prompts", check_others)
    case("what is refused", check_refused)


def main():
    for family, counts in FAMILIES.items():
        check_family(family, [c for c in counts if not GPUS or c == GPUS])
    for family, changes in UNEVEN.items():
        case(f"{family}, uneven", check_uneven, family, changes,
             [c for c in (2, 3, 4) if not GPUS or c == GPUS])
    if GPUS in (0, 2):
        check_ranks()
    finish_cases()


main()
