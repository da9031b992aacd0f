#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""replayrt decode on the host device: every option, what it prints and writes, what it refuses.

usage: decode.py COMMAND SOURCE_ROOT
"""
import json
import os
import pathlib
import pty
import resource
import signal
import subprocess
import sys
import tempfile

from dumped import tensors

COMMAND, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
GOLDEN = ROOT / "tests/data/golden/tiny_deepseek_v3"  # 256 ids, 8192 positions, ends at 1
MISSING = "/nowhere/model"
VOCAB, STEPS, LONGEST = 256, 16, 130
PROMPT = ("--prompt-ids", "5,7,9")
TINY = ("--checkpoint", GOLDEN, "--device", "host")
ASKED = (*TINY, *PROMPT, "--max-new-tokens", "4")

# Arguments, exit code, words of stderr.
REFUSED = [
    ([], 2, "decode needs --checkpoint"),
    (["--checkpoint", GOLDEN], 2, "decode needs --prompt-ids"),
    ([*TINY, *PROMPT], 2, "decode needs --max-new-tokens"),
    ([*ASKED, "config.yaml"], 2, "config.yaml: only options"),
    ([*ASKED, "--device", "host"], 2, "--device is given twice"),
    ([*ASKED, "--max-new-tokens", "5"], 2, "--max-new-tokens is given twice"),
    ([*ASKED, "--seed", "1", "--seed", "1"], 2, "--seed is given twice"),
    ([*ASKED, "--random", "1", "--random", "2"], 2, "--random is given twice"),
    ([*ASKED, "--ignore-eos", "--ignore-eos"], 2, "--ignore-eos is given twice"),
    ([*ASKED, "--json", "--json"], 2, "--json is given twice"),
    ([*ASKED, "--temprature", "1"], 2, "did you mean --temperature?"),
    ([*TINY, *PROMPT, "--max-new-tokens", "0"], 2, "--max-new-tokens 0: expected a number from 1"),
    ([*TINY, *PROMPT, "--max-new-tokens", "1.5"], 2, "--max-new-tokens 1.5: expected a number"),
    ([*ASKED, "--prompt-ids", ""], 2, "--prompt-ids is empty"),
    ([*ASKED, "--prompt-ids", "5,,7"], 2, '--prompt-ids: id 2 is ""'),
    ([*ASKED, "--prompt-ids", "5,7,"], 2, '--prompt-ids: id 3 is ""'),
    ([*ASKED, "--prompt-ids", "5, 7"], 2, '--prompt-ids: id 2 is " 7"'),
    ([*ASKED, "--prompt-ids", "5,-1"], 2, '--prompt-ids: id 2 is "-1"'),
    ([*ASKED, "--prompt-ids", "5,x7,8"], 2, '--prompt-ids: id 2 is "x7"'),
    ([*ASKED, "--prompt-ids", "2147483648"], 2, '--prompt-ids: id 1 is "2147483648"'),
    ([*ASKED, "--prompt-ids", "9,256"], 2,
     "--prompt-ids list 2: id 2 is 256, the model's vocabulary has ids 0 to 255"),
    ([*ASKED, "--teacher-ids", "1,2,999"], 2, "--teacher-ids list 1: id 3 is 999"),
    ([*ASKED, "--teacher-ids", "1,2"], 2,
     "--teacher-ids list 1 has 2 ids: --max-new-tokens 4 needs 3"),
    ([*ASKED, *PROMPT, *PROMPT, "--teacher-ids", "1,2,3", "--teacher-ids", "1,2,3"], 2,
     "--teacher-ids is given 2 times for 3 prompts"),
    ([*ASKED, "--temperature", "-1"], 2, "--temperature -1: expected a number from 0 to 100"),
    ([*ASKED, "--temperature", "nan"], 2, "--temperature nan: expected"),
    ([*ASKED, "--temperature", "0x1"], 2, "--temperature 0x1: expected"),
    ([*ASKED, "--temperature", ""], 2, "--temperature : expected"),
    ([*ASKED, "--temperature", "1", "--top-p", "1.01"], 2, "--top-p 1.01: expected"),
    ([*ASKED, "--temperature", "1", "--top-p", "0"], 2, "--top-p 0: expected a number above 0"),
    ([*ASKED, "--temperature", "1", "--top-p", "1e-60"], 2, "--top-p 1e-60: expected"),
    ([*ASKED, "--top-p", "0"], 2, "--top-p 0: expected a number above 0, at most 1"),
    ([*ASKED, "--temperature", "1", "--top-k", "0"], 2, "--top-k 0: expected"),
    ([*ASKED, "--top-k", "5"], 2, "--top-k without a --temperature above 0"),
    ([*ASKED, "--temperature", "0", "--top-p", "0.5"], 2, "--top-p without a --temperature"),
    ([*ASKED, "--seed", "5"], 2, "--seed without a --temperature"),
    ([*ASKED, "--chunk", "20000"], 2, "--chunk 20000: expected a number from 0 to 16384"),
    ([*ASKED, "--chunk", "08"], 2, "--chunk 08: expected a number from 0 to 16384"),
    ([*ASKED, "--precision", "f16"], 2, "--precision f16: expected bf16 or f32"),
    ([*TINY, *PROMPT, "--max-new-tokens", "8190"], 2,
     "the longest prompt's 3 tokens and --max-new-tokens 8190 are 8193: the model's "
     "max_position_embeddings is 8192"),
    ([*PROMPT, "--max-new-tokens", "4", "--checkpoint", MISSING], 1, MISSING),
    ([*PROMPT, "--max-new-tokens", "4", "--checkpoint", GOLDEN / "config.json"], 2,
     "config.json is a configuration, without weights: name its folder, or give --random SEED"),
    ([*ASKED, "--context", "2"], 2, "--context 2 without --ranks"),
    ([*ASKED, "--context", "2", "--ranks", "3"], 2, "--context 2 does not divide --ranks 3"),
    ([*ASKED, "--context", "3", "--ranks", "3"], 2,
     "--context 3 does not divide the model's 4 heads"),
    ([*PROMPT, "--max-new-tokens", "4", "--checkpoint", GOLDEN, "--device", "cuda:x"], 2,
     "cuda:x"),
    ([*ASKED, "--config", "/nowhere/c.yaml"], 1, "/nowhere/c.yaml"),
    ([*ASKED, "--config", ROOT / "tests/replay/small.yaml"], 1, "name its config.json by model:"),
    ([*ASKED, "--dump", "/nowhere/d.safetensors"], 1,
     "/nowhere/d.safetensors: cannot be written: No such file"),
    ([*ASKED, "--dump", ROOT], 1, "cannot be written: it is there and no regular file"),
]

complaints = []


def expect(holds, what):
    if not holds:
        complaints.append(what)


def decode(*arguments, **options):
    return subprocess.run([COMMAND, "decode", *map(str, arguments)], capture_output=True,
                          text=True, timeout=120, **options)


def report(*arguments):
    done = decode(*arguments, "--json")
    expect(done.returncode == 0 and not done.stderr, f"{arguments}: {done}")
    return json.loads(done.stdout)


def tokens(*arguments):
    return [row["tokens"] for row in report(*arguments)["prompts"]]


def refuse(arguments, code, words):
    done = decode(*arguments)
    expect(done.returncode == code and words in done.stderr and not done.stdout,
           f"{arguments}: {done}: expected exit {code} and {words!r}")


def recorded():
    """Options for the recorded prompts and what followed them, forced."""
    golden = tensors(GOLDEN / "golden.safetensors")
    prompts, lens = golden["prompts"][1], golden["prompt_lens"][1]
    arguments = []
    for p, length in enumerate(lens):
        ids = prompts[p * LONGEST:p * LONGEST + length]
        after = golden["greedy_tokens"][1][p * STEPS:(p + 1) * STEPS]
        arguments += ["--prompt-ids", ",".join(map(str, ids)),
                      "--teacher-ids", ",".join(map(str, after))]
    return golden, [*arguments, "--max-new-tokens", STEPS]


def copy_model(folder, **changes):
    """The tiny model's config.json alone, changed."""
    config = json.loads((GOLDEN / "config.json").read_text(encoding="utf-8"))
    config.update(changes)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


# ---- what it prints ---------------------------------------------------------------------------


def check_text():
    done = decode(*ASKED)
    ids = tokens(*ASKED)[0]
    lines = done.stdout.split("\n")
    expect(done.returncode == 0 and not done.stderr and len(ids) == 4 and len(lines) == 5 and
           lines[0].startswith("deepseek_v3 on host") and "weights 0.003 GiB" in lines[0] and
           lines[1] == "prompt 1, 3 tokens: " + ",".join(map(str, ids)) and
           "the mean of 3 steps" in lines[2] and lines[3] == "5 steps, 5 graph launches",
           f"text: {done}")
    done = decode(*TINY, *PROMPT, "--max-new-tokens", 1)
    expect("no step was decode alone" in done.stdout, f"one token: {done}")


def check_json():
    r = report(*ASKED, "--prompt-ids", "3,4,5,6,7", "--config", GOLDEN / "replayrt.yaml")
    expect(r["family"] == "deepseek_v3" and r["host"] is True and r["precision"] == "bf16" and
           "host" in r["device"] and r["checkpoint"] == str(GOLDEN) and "random" not in r,
           f"what: {r}")
    expect([p["prompt_tokens"] for p in r["prompts"]] == [3, 5] and
           [len(p["tokens"]) for p in r["prompts"]] == [4, 4] and
           not any(p["ended"] for p in r["prompts"]), f"prompts: {r}")
    expect(r["steps"] == r["replays"] == 5 + 4 - 1 and r["one_launch_a_step"] is True and
           r["decode_steps"] == 3, f"steps: {r}")
    # The first prompt's last token is of the first of these steps: four tokens in three.
    first = [p["first_token_us"] for p in r["prompts"]]
    expect(0 < first[0] < first[1] == r["first_token_us"] < r["total_us"] and
           0 < r["token_us_median"] and
           abs(r["tokens_per_second"] * 3 * r["token_us_mean"] / 4e6 - 1) < 1e-9 and
           0 < r["step_host_us_mean"] and r["step_device_us_mean"] > 0, f"times: {r}")
    expect(r["weight_bytes"] > 1 << 20 and r["scratch_bytes"] > 0 and r["pool_bytes"] > 0 and
           r["load_s"] > 0 and r["create_s"] >= r["capture_s"] > 0 and r["graphs"] >= 1,
           f"sizes: {r}")
    expect("token_us_mean" not in report(*TINY, *PROMPT, "--max-new-tokens", 1), "no decode step")


def check_batch():
    """What a prompt gets does not depend on its batch, nor on how a step is cut into replays."""
    more = ["--prompt-ids", "1", "--prompt-ids", "200,100,50,25,12,6,3"]
    whole = tokens(*ASKED, *more)
    expect(whole == [tokens(*TINY, "--prompt-ids", ids, "--max-new-tokens", 4)[0]
                     for ids in ("5,7,9", more[1], more[3])], f"a batch: {whole}")
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "cut.yaml"
        text = f"model: {GOLDEN / 'config.json'}\nsequences: {{max: 8, max_length: 32}}\n" \
               "graphs: {batch_sizes: [1, 2], ring_depth: 4}\nkv_cache: {pages: 3}\n"
        config.write_text(text, encoding="utf-8")
        cut = report(*ASKED, *more, "--config", config)
        expect([p["tokens"] for p in cut["prompts"]] == whole and cut["graphs"] == 2 and
               cut["replays"] == 2 * cut["steps"] and cut["one_launch_a_step"] is False,
               f"two replays a step: {cut}")
        refuse([*ASKED, *more, "--config", config, "--dump", f"{folder}/d"], 2,
               "--dump wants one for all 3 prompts")
        for old, new, code, words in [
                ("max: 8", "max: 2", 2, "sequences.max is 2: 3 prompts are one batch"),
                ("max_length: 32", "max_length: 10", 2, "are 11: the configuration's "
                 "sequences.max_length is 10"),
                ("pages: 3", "pages: 2", 2, "kv_cache.pages has 2 pages of 64 tokens"),
                ("[1, 2], ring_depth: 4", "[1], ring_depth: 2", 2, "is 3 replays of 1 rows"),
                ("[1, 2],", "[1, 2], query_lens: [2],", 2, "graphs.query_lens begins with 2"),
                ("model:", "bogus:", 1, "cut.yaml:1: unknown key bogus")]:
            config.write_text(text.replace(old, new), encoding="utf-8")
            refuse([*ASKED, *more, "--config", config], code, words)


def refuse_keys(asked, path, whole, changes):
    """A JSON configuration with a key changed: named, with the model's value; None: it is good."""
    for section, key, value, words in changes:
        config = json.loads(json.dumps(whole))
        config[section][key] = value
        path.write_text(json.dumps(config), encoding="utf-8")
        if words:
            refuse([*asked, "--config", path], 1, words)
        else:
            expect(tokens(*asked, "--config", path) == tokens(*asked), f"{key}: {value}")


def check_agreement():
    """A configuration is the checkpoint's, its numbers to three digits, key by key."""
    geometry = {"heads": 4, "kv_lora_rank": 512, "qk_rope_head_dim": 64, "layers": 2,
                "softmax_scale": 0.09357}
    block = {"hidden_size": 64, "q_lora_rank": 48, "qk_nope_head_dim": 128, "v_head_dim": 128}
    rope = {"type": "yarn", "theta": 10000, "factor": 4, "original_max_length": 64}
    has = "the checkpoint's model has"
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "geometry.json"
        refuse_keys(ASKED, config, {"geometry": geometry}, [
            ("geometry", "softmax_scale", 0.0936, None),
            ("geometry", "softmax_scale", 0.0938, f"geometry.softmax_scale is 0.0938, {has} 0.093"),
            ("geometry", "heads", 5, f"geometry.heads is 5, {has} 4"),
            ("geometry", "heads", 2, "it has 2 of the 4 heads of the checkpoint's model, as "
             "tensor_parallel: 2 gives: decode serves a whole model"),
            ("geometry", "kv_lora_rank", 256, f"geometry.kv_lora_rank is 256, {has} 512"),
            ("geometry", "qk_rope_head_dim", 0, f"geometry.qk_rope_head_dim is 0, {has} 64"),
            ("geometry", "layers", 3, f"geometry.layers is 3, {has} 2")])
        refuse_keys(ASKED, config,
                    {"geometry": geometry, "layer": True, "block": block, "rope": rope}, [
            ("block", "q_lora_rank", 48, None),
            ("block", "input_norm_eps", 0.5, None),  # nobody reads it without input_norm
            ("block", "hidden_size", 128, f"block.hidden_size is 128, {has} 64"),
            ("block", "q_lora_rank", 56, f"block.q_lora_rank is 56, {has} 48"),
            ("block", "qk_nope_head_dim", 64, f"block.qk_nope_head_dim is 64, {has} 128"),
            ("block", "v_head_dim", 64, f"block.v_head_dim is 64, {has} 128"),
            ("block", "norm_eps", 1e-4, f"block.norm_eps is 0.0001, {has} 1e-06"),
            ("block", "norm_one_plus", True, f"block.norm_one_plus is 1, {has} 0"),
            ("rope", "type", "none", f"rope.type is none, {has} yarn"),
            ("rope", "order", "half", f"rope.order is half, {has} interleaved"),
            ("rope", "theta", 5000, f"rope.theta is 5000, {has} 10000"),
            ("rope", "factor", 8, f"rope.factor is 8, {has} 4"),
            ("rope", "original_max_length", 65, f"rope.original_max_length is 65, {has} 64"),
            ("rope", "truncate", False, f"rope.truncate is 0, {has} 1"),
            ("rope", "attention_factor", 2, f"rope.attention_factor is 2, {has} 1"),
            ("rope", "query_scale_beta", 0.1, f"rope.query_scale_beta is 0.1, {has} 0")])
        config.with_suffix(".yaml").write_text(
            f"model: {GOLDEN / 'config.json'}\ntensor_parallel: 2\n", encoding="utf-8")
        refuse([*ASKED, "--config", config.with_suffix(".yaml")], 1, "no share of one")


def check_pages():
    """Too few pages are told before weights are looked for, of which there are none."""
    with tempfile.TemporaryDirectory() as folder:
        model = copy_model(pathlib.Path(folder) / "model")
        config = pathlib.Path(folder) / "pages.yaml"
        config.write_text(f"model: {model / 'config.json'}\nkv_cache: {{pages: 1}}\n"
                          "graphs: {batch_sizes: [1]}\n", encoding="utf-8")
        asked = ["--checkpoint", model, "--device", "host", *PROMPT, "--config", config]
        refuse([*asked, "--max-new-tokens", 63], 2, "the configuration's kv_cache.pages has 1 "
               "pages of 64 tokens, 1 sequences of 65 tokens need 2")
        refuse([*asked, "--max-new-tokens", 62], 1, "model.safetensors")


def check_bytes():
    """A path may be any bytes; JSON is UTF-8."""
    with tempfile.TemporaryDirectory() as folder:
        odd = b"\xff-\xc3\xa9-\xe0\x80-\xf4\x90\x80\x80-\xed\xa0\x80-\xf0\x9f\x90\xa2-\xc3"
        path = os.path.join(folder.encode(), odd)
        os.symlink(GOLDEN, path)
        done = subprocess.run([COMMAND.encode(), b"decode", b"--checkpoint", path, b"--device",
                               b"host", b"--prompt-ids", b"5", b"--max-new-tokens", b"1",
                               b"--json"], capture_output=True, timeout=120, check=False)
        bad = "\ufffd"
        name = f"{bad}-\u00e9-{bad * 2}-{bad * 4}-{bad * 3}-\U0001f422-{bad}"
        expect(done.returncode == 0 and
               json.loads(done.stdout.decode("utf-8"))["checkpoint"] == f"{folder}/{name}",
               f"bytes of a path: {done}")


# ---- how tokens are chosen --------------------------------------------------------------------


def check_sampling():
    two = [*TINY, *PROMPT, *PROMPT, "--max-new-tokens", 12]
    warm = [*two, "--temperature", "1.5", "--seed", 7]
    first = tokens(*warm)
    expect(first == tokens(*warm) and first[0] != first[1], f"a seed is a text: {first}")
    alone = tokens(*TINY, *PROMPT, "--max-new-tokens", 12, "--temperature", 1.5, "--seed", 8)
    expect(alone[0] == first[1], f"the second prompt's seed: {alone} and {first}")
    greedy = tokens(*two)
    expect(greedy[0] == greedy[1], f"greedy: {greedy}")
    for one in (["--top-k", 1], ["--top-p", "1e-6"]):
        expect(tokens(*two, "--temperature", 2, *one) == greedy, f"{one} is greedy")
    expect(tokens(*two, "--temperature", 2) != greedy, "a temperature")


def check_ends():
    """A row ends with its stop id, the other one goes on; nothing ends where that is said."""
    with tempfile.TemporaryDirectory() as folder:
        asked = ["--random", 3, "--device", "host", *PROMPT, "--prompt-ids", "11,12",
                 "--max-new-tokens", 10, "--checkpoint"]
        whole = tokens(*asked, GOLDEN)
        end = whole[0][4]
        at = [row.index(end) + 1 if end in row else 10 for row in whole]
        model = copy_model(pathlib.Path(folder) / "ends", eos_token_id=[end, 1])
        path = pathlib.Path(folder) / "dump"
        r = report(*asked, model, "--dump", path)
        expect([p["tokens"] for p in r["prompts"]] == [w[:n] for w, n in zip(whole, at)] and
               [p["ended"] for p in r["prompts"]] == [end in w for w in whole] and
               at[0] <= 5, f"ends: {r}, {whole}")
        dump = tensors(path)
        padded = [w[:n] + [-1] * (10 - n) for w, n in zip(whole, at)]
        expect(list(dump["tokens"][1]) == padded[0] + padded[1], f"-1: {dump['tokens']}")
        row = dump["logits"][1][:10 * VOCAB]
        expect(not any(row[at[0] * VOCAB:]) and any(row[(at[0] - 1) * VOCAB:at[0] * VOCAB]),
               "zeros behind an end")
        expect(tokens(*asked, model, "--ignore-eos") == whole, "--ignore-eos")
        # Nine steps behind the first token's, if nobody ended: a row that has, and the steps that
        # were launched behind the last end, count for nothing.
        kept = [n - 1 for n in at]
        r = report(*asked, model)
        expect(r["decode_steps"] == max(kept) and r["steps"] >= 2 + max(kept) and
               abs(r["tokens_per_second"] * max(kept) * r["token_us_mean"] / (1e6 * sum(kept)) - 1)
               < 1e-9, f"tokens that were kept: {r}, {kept}")
        forced = report(*asked, model, "--teacher-ids", ",".join([str(end)] * 9))
        expect(all(len(p["tokens"]) == 10 and not p["ended"] for p in forced["prompts"]),
               f"a teacher's list does not end: {forced}")
        done = decode(*asked, model)
        expect(f",{end} end\n" in done.stdout, f"end in text: {done}")


def check_random():
    with tempfile.TemporaryDirectory() as folder:
        model = copy_model(pathlib.Path(folder) / "model")
        asked = [*PROMPT, "--device", "host", "--max-new-tokens", 6, "--ignore-eos"]
        first = report(*asked, "--checkpoint", model, "--random", 5)
        again = tokens(*asked, "--checkpoint", model / "config.json", "--random", 5)
        other = tokens(*asked, "--checkpoint", model, "--random", 6)
        expect([p["tokens"] for p in first["prompts"]] == again != other and first["random"] == 5,
               f"random: {first} {again} {other}")
        # Weights are missing: what stood there is untouched, and nothing is left beside it.
        (model / "dump").write_text("mine")
        refuse([*asked, "--checkpoint", model, "--dump", model / "dump"], 1, "model.safetensors")
        expect(sorted(os.listdir(model)) == ["config.json", "dump"] and
               (model / "dump").read_text() == "mine", f"left behind: {os.listdir(model)}")
        llama = copy_model(pathlib.Path(folder) / "llama", model_type="llama")
        refuse([*asked, "--checkpoint", llama, "--random", 5], 1, "llama")


def check_targets():
    """What is read is not written over, by whatever name; other files of the folder are."""
    with tempfile.TemporaryDirectory() as folder:
        model = copy_model(pathlib.Path(folder) / "model")
        config = pathlib.Path(folder) / "config.yaml"
        config.write_text("bogus: 1\n", encoding="utf-8")
        for name in ("model.safetensors", "model.safetensors.index.json"):
            (model / name).write_text("mine")
        os.symlink(model / "model.safetensors", model / "alias")
        asked = ["--device", "host", *PROMPT, "--max-new-tokens", 2, "--config", config]
        for checkpoint in (model, model / "config.json"):
            for name in ("model.safetensors", "model.safetensors.index.json", "config.json",
                         "../model/config.json", "alias"):
                refuse([*asked, "--checkpoint", checkpoint, "--dump", model / name], 2,
                       "of the checkpoint: name another file")
        refuse([*asked, "--checkpoint", model, "--dump", config], 2, "written over --config")
        refuse([*asked, "--checkpoint", model, "--dump", model / "dump"], 1, "unknown key bogus")
        expect((model / "model.safetensors").read_text() == "mine" and
               config.read_text() == "bogus: 1\n", "files that were refused")


# ---- against the recording --------------------------------------------------------------------


def check_dump():
    golden, asked = recorded()
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "dump.safetensors"
        for precision, bound in (("f32", 1e-3), ("bf16", None)):
            r = report(*TINY, *asked, "--precision", precision, "--dump", path)
            found = tensors(path)
            expect(r["precision"] == precision and r["one_launch_a_step"] is True and
                   os.listdir(folder) == ["dump.safetensors"], f"{precision}: {r}")
            expect(found["logits"][0] == [6, STEPS, VOCAB] and found["tokens"][0] == [6, STEPS],
                   f"shapes {found['logits'][0]}, {found['tokens'][0]}")
            expect(list(found["tokens"][1]) == [t for p in r["prompts"] for t in p["tokens"]],
                   "tokens of dump and report")
            want = golden["logits"][1]
            off = [abs(a - b) for a, b in zip(found["logits"][1], want)]
            if bound:
                expect(max(off) <= bound and
                       found["tokens"][1] == golden["greedy_tokens"][1],
                       f"f32: {max(off)} off")
            deviation = (sum(x * x for x in want) / len(want)) ** 0.5
            expect(sum(off) / len(off) <= 0.04 * deviation, f"{precision}: {sum(off) / len(off)}")
            expect(bool(bound) == (max(off) < 1e-3), f"{precision}: worst {max(off)}")


def no_room():
    """No file may have more than 4000 bytes: a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))


def check_full_disk():
    with tempfile.TemporaryDirectory() as folder:
        done = decode(*ASKED, "--dump", f"{folder}/dump", preexec_fn=no_room)
        expect(done.returncode == 1 and "dump: cannot be written: File too large" in done.stderr and
               not done.stdout and not os.listdir(folder), f"a full disk: {done}")


def check_progress():
    """On a terminal a line that comes and goes; in a file nothing of it."""
    ours, theirs = pty.openpty()
    done = subprocess.run([COMMAND, "decode", *map(str, ASKED)], stdout=subprocess.PIPE,
                          stderr=theirs, timeout=120, check=False)
    os.close(theirs)
    seen = os.read(ours, 65536).decode()
    os.close(ours)
    expect(done.returncode == 0 and "loading weights: 100 %\r\x1b[K" in seen and
           "capturing graphs: 100 %\r\x1b[K" in seen and seen.endswith("\r\x1b[K"),
           f"progress: {seen!r}")


def check_chunks():
    """However prompts go in, what comes out is the same, in fewer launches."""
    lengths = (40, 3, 1, 17)
    prompts = []
    for row, length in enumerate(lengths):
        ids = ",".join(str((7 * i + 31 * row + 3) % 256) for i in range(length))
        prompts += ["--prompt-ids", ids]
    asked = (*TINY, *prompts, "--max-new-tokens", "5", "--precision", "f32", "--ignore-eos")
    one_by_one = report(*asked, "--chunk", "0")
    fed = sum(lengths) - len(lengths)  # all but every prompt's last
    expect(one_by_one["replays"] == 40 + 4, f"one by one: {one_by_one['replays']} launches")
    for chunk in (None, 9, 200):
        found = report(*asked, *([] if chunk is None else ["--chunk", chunk]))
        expect([p["tokens"] for p in found["prompts"]] ==
               [p["tokens"] for p in one_by_one["prompts"]], f"chunks of {chunk}: other tokens")
        launches = -(-fed // (chunk or fed)) + 5
        expect(found["replays"] == launches,
               f"chunks of {chunk}: {found['replays']} launches, expected {launches}")
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "c.yaml"
        config.write_text(f"model: {GOLDEN}\nprefill: {{chunks: [4], rows: 1, mixed_rows: [1], "
                          "context_piece: 64}\n")
        found = report(*ASKED, "--config", config, "--chunk", "0")
        expect(found["replays"] == 6, f"--chunk 0 with a configuration: {found}")


for refused in REFUSED:
    refuse(*refused)
check_text()
check_json()
check_batch()
check_chunks()
check_agreement()
check_pages()
check_bytes()
check_sampling()
check_ends()
check_random()
check_targets()
check_dump()
check_full_disk()
check_progress()
print("\n".join(complaints))
sys.exit(1 if complaints else 0)
