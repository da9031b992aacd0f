#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes 1 with a sentence and 2 for a wrong line, help, JSON, progress.

usage: command.py REPLAYRT CONFIG.yaml
"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

COMMAND, CONFIG = sys.argv[1:3]
MISSING = "/nowhere/replayrt.yaml"
# Arguments, exit code, words of stderr.
REFUSED = [
    (["plan", MISSING], 1, MISSING),
    (["verify", MISSING], 1, MISSING),
    (["bench", "step", MISSING], 1, MISSING),
    (["bench", "step", MISSING, "--json", "--length", "1", "--device", "host"], 1, MISSING),
    (["bench", "layer", MISSING, "--json", "--length", "1", "--device", "host"], 1, MISSING),
    (["bench", "attention", "--shapes", MISSING], 1, MISSING),
    (["bench", "attention"], 2, "needs --shapes"),
    (["bench", "attention", MISSING, "--shapes", MISSING], 2, "only options"),
    (["bench", "attention", "--shapes"], 2, "needs a value"),
    ([], 2, "usage"),
    (["bench"], 2, "which bench? there are bench step, bench layer"),
    (["plan"], 2, "which configuration"),
    (["plan", "a", "b"], 2, "one configuration"),
    (["verify", MISSING, "--seeds", "1"], 2, "--seeds; did you mean --seed?; there are --steps"),
    (["verify", MISSING, "--stpes", "1"], 2, "did you mean --steps?"),
    (["plan", MISSING, "--frobnicate"], 2, "unknown option --frobnicate; there are --json"),
    (["plan", MISSING, "-j"], 2, "unknown option -j"),
    (["verify", MISSING, "--steps"], 2, "needs a value"),
    (["verify", MISSING, "--steps", "-1"], 2, "expected a number"),
    (["plna", MISSING], 2, "unknown command plna; did you mean plan?"),
    (["verfiy"], 2, "did you mean verify?"),
    (["bench", "xyzzy"], 2, "unknown command bench xyzzy; there are bench step, bench layer"),
    (["bench", "setp"], 2, "unknown command bench setp; did you mean bench step?"),
    (["bench", "layr"], 2, "unknown command bench layr; did you mean bench layer?"),
    (["bench", "prefil"], 2, "did you mean bench prefill?"),
    (["bench", "prefill", MISSING, "--json", "--length", "1", "--device", "host"], 1, MISSING),
    (["bench", "atention", "--shapes", MISSING], 2, "did you mean bench attention?"),
    (["help"], 2, "did you mean --help?"),
    (["version"], 2, "did you mean --version?"),
    (["--verson"], 2, "did you mean --version?"),
    (["plan", MISSING, "--json=1"], 2, "--json=1: options take no =, write --json\n"),
    (["plan", MISSING, "--dot=3"], 2, "--dot=3: options take no =, write --dot 3\n"),
    (["bench", "attention", "--shapes", MISSING], 1, f"replayrt: cannot read {MISSING}: "),
    (["bench", "step", MISSING], 1, f"replayrt: cannot read {MISSING}: "),
    (["plan", CONFIG, "--assume", "host", "--dot", "4"], 2, "captured are 1, 2, 3, 8\n"),
    (["plan", CONFIG, "--assume", "host", "--dot-chunk", "4"], 2, "captured are none\n"),
    (["plan", CONFIG, "--dot-chunk", "4", "--dot", "1"], 2, "one graph at a time"),
    (["plan", CONFIG, "--beside", "4"], 2, "--beside without --dot-chunk"),
    (["plan", CONFIG, "--dot", "1", "--context", "4"], 2, "--context without --dot-chunk"),
    (["plan", CONFIG, "--checkpoint", "a"], 2, "--checkpoint without --ranks"),
    (["plan", CONFIG, "--ranks", "2", "--layouts"], 2, "one at a time"),
    (["plan", CONFIG, "--query-len", "1"], 2, "--query-len without --dot or --dot-chunk"),
    (["plan", CONFIG, "--layouts", "--assume", "h300"], 2, '"h300" is not one of h200'),
    (["plan", CONFIG, "--assume", "h300"], 2, '"h300" is not one of h200, h100, a100, host'),
    *[(command.split() + ["--device", "cuda:01"], 2,
       "--device cuda:01: expected auto, host or cuda:N with N from 0 to 9999")
      for command in ("verify", "decode", "bench step", "bench layer", "bench prefill",
                      "bench attention", "bench convert")],
    (["frobnicate"], 2, "unknown command frobnicate; there are plan, verify, decode, bench step"),
    (["decod"], 2, "unknown command decod; did you mean decode?"),
    (["plan", "a\x1b[31m\n\rb\x7f", "c"], 2, r"a\x1b[31m\x0a\x0db\x7f, then c"),
    (["plan", "/nowhere/\x1b[31m\nok"], 1, r"/nowhere/\x1b[31m\x0aok"),
    (["bench", "attention", "--shapes", "a\x1b[31m\n"], 1, r"a\x1b[31m\x0a"),
    (["bench", "attention", "--shapes", MISSING, "--backend", "\x1b[2J"], 2, r"--backend \x1b[2J:"),
    (["bench", "step", "a\x1b[31m\n"], 1, r"a\x1b[31m\x0a"),
    (["\x07bell"], 2, r"unknown command \x07bell"),
]
# Arguments, words that stdout has, words that it has not.
HELP = [
    (["--help"], ["plan CONFIG", "verify CONFIG", "bench step", "bench layer", "bench attention",
                  "decode  "], []),
    (["-h"], ["plan CONFIG", "bench attention"], []),
    (["plan", "--help"], ["plan CONFIG", "--assume"], ["verify CONFIG", "--shapes"]),
    (["verify", "-h"], ["--seed"], ["--assume"]),
    (["verify", MISSING, "--steps", "3", "-h"], ["--seed"], ["--assume"]),
    (["decode", "--help"], ["--prompt-ids", "--dump"], ["--assume", "--shapes"]),
    (["bench", "--help"], ["bench step", "bench layer", "bench prefill", "bench attention"],
     ["--assume"]),
    (["bench", "step", "-h"], ["--query-len"], ["--shapes", "--assume"]),
    (["bench", "layer", "-h"], ["--versus-library"], ["--shapes", "--assume"]),
    (["bench", "prefill", "-h"], ["--tokens", "--tflops"], ["--shapes", "--query-len"]),
    (["bench", "attention", "--help"], ["--shapes"], ["--query-len"]),
]

complaints = []


def replayrt(*arguments):
    return subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=60)


def complain(arguments, done, expected):
    complaints.append(f"replayrt {' '.join(map(repr, arguments))}: exit {done.returncode}, stdout "
                      f"{done.stdout[:300]!r}, stderr {done.stderr[:300]!r}: expected {expected}")


def check_refused():
    for arguments, code, words in REFUSED:
        done = replayrt(*arguments)
        if done.returncode != code or words not in done.stderr or done.stdout:
            complain(arguments, done, f"exit {code} and {words!r}")


def check_help():
    for arguments, has, has_not in HELP:
        done = replayrt(*arguments)
        wrong = [w for w in has if w not in done.stdout] + [w for w in has_not if w in done.stdout]
        if done.returncode or wrong or done.stderr:
            complain(arguments, done, f"{has} and not {has_not}")


def check_json():
    arguments = ["verify", CONFIG, "--device", "host", "--steps", "3", "--seed", "7", "--json"]
    done = replayrt(*arguments)
    report = json.loads(done.stdout)
    if done.returncode or report["equal"] is not True or report["seed"] != 7 or \
            report["configuration"] != CONFIG or "host" not in report["device"] or \
            f"replayrt {report['version']}\n" != replayrt("--version").stdout or \
            not report["graphs"] or not report["steps"] or "bitwise equal" not in done.stderr:
        complain(arguments, done, "a report")
    arguments = ["verify", CONFIG, "--device", "cuda:99", "--json"]
    done = replayrt(*arguments)
    report = json.loads(done.stdout)
    if done.returncode != 1 or report["equal"] is not False or "message" not in report or \
            report["device"]:
        complain(arguments, done, "a report of the failure")


def check_plan():
    geometry = "geometry: {heads: 16, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 61, " \
               "softmax_scale: 0.1352}\n"
    page = 61 * 64 * 576 * 2
    # Lines of the file, exit code, what set the pages, words of stdout.
    cases = [("kv_cache: {pages: 1000}\n", 0, "configured",
              [f"pool {1000 * page / 2**30:.3f} GiB ({1000 * page} bytes)",
               "64000 tokens, 7 sequences of 8192", "d_qk/d_v 576/512, 61 layers",
               "softmax scale 0.1352"]),
             ("sequences: {max: 2}\n", 0, "sequences", ["set by all sequences at full length"]),
             ("sequences: {max: 4096}\n", 0, "memory", ["set by the memory budget"]),
             ("kv_cache: {pages: 100000}\n", 1, "configured", ["100000 pages of 64 tokens"])]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plan.yaml")
        for lines, code, limit, words in cases:
            pathlib.Path(path).write_text(geometry + lines)
            arguments = ["plan", path, "--assume", "h200"]
            done = replayrt(*arguments)
            told = "do not fit NVIDIA H200: 140.401 GiB (150754820096 bytes)" in done.stderr
            if done.returncode != code or told != (code == 1) or \
                    any(w not in done.stdout for w in words):
                complain(arguments + [lines], done, f"exit {code} and {words}")
            done = replayrt(*arguments, "--json")
            plan = json.loads(done.stdout)
            if done.returncode != code or plan["pages_set_by"] != limit or \
                    plan["tokens"] != 64 * plan["pages"] or plan["softmax_scale"] != 0.1352 or \
                    plan["full_sequences"] != plan["pages"] // 128 or \
                    plan["geometry"]["d_qk"] != 576:
                complain(arguments + [lines, "--json"], done, f"exit {code}, set by {limit}")


def check_plan_layouts():
    """Every layout with the kernels that read it, for each query length and for prompts."""
    config = "geometry: {heads: 16, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 2, " \
             "softmax_scale: 0.1}\ngraphs: {query_lens: [1, 3]}\nkv_cache: {pages: 1000}\n"
    cases = [("prefill: {chunks: [64], rows: 2}\n", "attend", 3),
             ("attention: {topk: 64}\n", "sparse", 2)]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "layouts.yaml")
        for lines, name, kernels in cases:
            pathlib.Path(path).write_text(config + lines)
            arguments = ["plan", path, "--assume", "a100", "--layouts"]
            done = replayrt(*arguments)
            for layout, entry in (("bf16 ", f"rt_mla_{name}_576x512"),
                                  ("v32 ", f"rt_mla_{name}_quant_576x512")):
                behind = done.stdout.partition(f"\n{layout}")[2].split("\n")[1:1 + kernels]
                if done.returncode or len([line for line in behind if entry in line]) != kernels \
                        or "query length 3" not in behind[1]:
                    complain(arguments + [lines], done, f"{kernels} lines of {entry}")
            if "v4: must be one that" not in done.stdout:
                complain(arguments, done, "why v4 is none")


MODEL = {"model_type": "deepseek_v2", "hidden_size": 64, "intermediate_size": 48,
         "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4,
         "q_lora_rank": None, "kv_lora_rank": 512, "qk_nope_head_dim": 16, "qk_rope_head_dim": 64,
         "v_head_dim": 16, "vocab_size": 100, "rms_norm_eps": 1e-6, "rope_theta": 10000,
         "max_position_embeddings": 4096, "hidden_act": "silu", "attention_bias": False,
         "first_k_dense_replace": 3, "moe_intermediate_size": 8, "moe_layer_freq": 1,
         "n_routed_experts": 8, "n_shared_experts": 1, "num_experts_per_tok": 2, "n_group": 1,
         "topk_group": 1, "topk_method": "greedy", "scoring_func": "softmax",
         "norm_topk_prob": False, "routed_scaling_factor": 1.0, "tie_word_embeddings": False,
         "bos_token_id": 0, "eos_token_id": 1, "rope_scaling": None}


def check_plan_ranks():
    """What ranks exchange in a step of 5 rows, by the sizes of the model."""
    head = (5 * 512 * 2 + 5 * 4 + 31) // 32 * 32
    cases = [("", ["--ranks", "2"], {"o_proj_sum": ("all_reduce", 3, 5 * 128)}),
             ("", ["--ranks", "1", "--checkpoint", "."], {}),
             ("context_parallel: 2\n", ["--ranks", "4", "--checkpoint", "."],
              {"out_exchange": ("all_to_all", 3, head), "o_proj_sum": ("all_reduce", 3, 5 * 128),
               "after_attention_sum": ("all_reduce", 3, 5 * 128),
               "step_end_gather": ("all_gather", 1, 5 * 4 * 32)})]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plan.yaml")
        pathlib.Path(folder, "config.json").write_text(json.dumps(MODEL))
        for lines, options, exchanges in cases:
            pathlib.Path(path).write_text("model: config.json\nlayer: true\nsequences: {max: 5}\n"
                                          "graphs: {batch_sizes: [5]}\n" + lines)
            options = [folder if o == "." else o for o in options]
            arguments = ["plan", path, "--assume", "host", *options]
            done = replayrt(*arguments, "--json")
            found = {x["name"]: (x["kind"], x["count"], x["bytes"])
                     for x in json.loads(done.stdout or '{"graphs": [{"exchanges": []}]}')
                     ["graphs"][0]["exchanges"]}
            if done.returncode or found != exchanges:
                complain(arguments + [lines], done, f"{exchanges}")
            done = replayrt(*arguments, "--stages")
            for name, (kind, count, size) in exchanges.items():
                told = f"{count} x {name:20} {kind:12} {size:12} bytes"
                if told not in done.stdout or not re.search(
                        rf"^ +-> {name}\S* +{kind} +{size} bytes$", done.stdout, flags=re.M):
                    complain(arguments + [lines], done, told)
        done = replayrt("plan", path, "--assume", "host", "--ranks", "8")
        if done.returncode != 2 or "4 heads cannot be cut evenly over 8 ranks" not in done.stderr:
            complain(["plan", path, "--ranks", "8"], done, "a refusal")


def check_plan_stages():
    """Equal layers are one; the JSON has them all."""
    begin = ["step_begin", "schedule_append.0", "attend.0", "reduce.0"]
    cases = [(1, begin + ["step_end"]),
             (2, begin + ["append.1", "attend.1", "reduce.1", "step_end"]),
             (61, begin + ["append.1-60", "attend.1-60", "reduce.1-60", "step_end"])]
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plan.yaml")
        for layers, labels in cases:
            pathlib.Path(path).write_text(
                "geometry: {heads: 16, kv_lora_rank: 512, qk_rope_head_dim: 64, "
                f"layers: {layers}, softmax_scale: 0.1352}}\nkv_cache: {{pages: 100}}\n"
                "sequences: {max_length: 2048}\ngraphs: {batch_sizes: [1]}\n")
            arguments = ["plan", path, "--assume", "h200", "--stages"]
            done = replayrt(*arguments)
            found = re.findall(r"^ {4}[-~]> (\S+) +rt_\w+ +grid ", done.stdout, flags=re.M)
            if done.returncode or found != labels:
                complain(arguments + [layers], done, f"{labels}")
            done = replayrt(*arguments, "--json")
            graph = json.loads(done.stdout)["graphs"][0]
            if {len(graph["stages"]), graph["stage_count"]} != {3 * layers + 2}:
                complain(arguments + [layers, "--json"], done, f"{3 * layers + 2} stages")


def check_plan_branches():
    """Numbers in front of what runs beside each other, with what they mean; none without."""
    path = str(pathlib.Path(CONFIG).with_name("chunks_library.yaml"))
    done = replayrt("plan", path, "--stages")
    lines = ["    -> qkv_a.", "  1 -> q_b.", "  2 -> kv_gather.", "  1 -> attend.",
             "  1 ~> reduce.", "  2 -> prefill_attend.", "    -> o_proj.", "1 and 2 are branches"]
    if done.returncode or any("\n" + line not in done.stdout for line in lines):
        complain(["plan", path, "--stages"], done, f"{lines}")
    graphs = json.loads(replayrt("plan", path, "--stages", "--json").stdout)["graphs"]
    branches = {(s["label"], s["branch"]) for g in graphs for s in g["stages"]}
    if not {("q_b.0", 1), ("kv_b.1", 2), ("attend.1", 1), ("attend.1", 0)} <= branches:
        complain(["plan", path, "--stages", "--json"], done, "stages with their branches")
    done = replayrt("plan", CONFIG, "--stages")
    if done.returncode or "branches" in done.stdout:
        complain(["plan", "small.yaml", "--stages"], done, "no word of branches")


def check_plan_dot():
    """Chunks' graphs by their numbers, a step's by its batch."""
    block = "block: {hidden_size: 256, qk_nope_head_dim: 128, v_head_dim: 128}\n"
    rope = "rope: {type: none}\n"
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "plan.yaml")
        pathlib.Path(path).write_text(
            "geometry: {heads: 2, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 1, "
            "softmax_scale: 0.1}\nlayer: true\nkv_cache: {pages: 100}\n" + block + rope +
            "graphs: {batch_sizes: [1], query_lens: [1, 2]}\nsequences: {max_length: 4096}\n"
            "prefill: {chunks: [16, 512], rows: 2, mixed_rows: [4], context_piece: 1024}\n")
        # Options, the name of what is drawn; or words of the refusal.
        drawn = [(["--dot", "1"], "batch 1, query length 1"),
                 (["--dot-chunk", "16"], "chunk of 16 tokens, 0 rows beside it"),
                 (["--dot-chunk", "16", "--beside", "4"], "chunk of 16 tokens, 4 rows beside it"),
                 (["--dot-chunk", "512"],
                  "chunk of 512 tokens, 0 rows beside it, 0 pieces of context"),
                 (["--dot-chunk", "512", "--beside", "4", "--context", "1025"],
                  "chunk of 512 tokens, 4 rows beside it, 2 pieces of context"),
                 (["--dot", "1", "--query-len", "2"], "batch 1, query length 2"),
                 (["--dot-chunk", "512", "--beside", "4", "--query-len", "2"],
                  "chunk of 512 tokens, 4 rows of 2 tokens beside it, 0 pieces of context")]
        for options, name in drawn:
            arguments = ["plan", path, "--assume", "host", *options]
            done = replayrt(*arguments)
            if done.returncode or not done.stdout.startswith(f'digraph "{name}" {{\n'):
                complain(arguments, done, f"a graph of {name}")
        arguments = ["plan", path, "--assume", "host", "--dot-chunk", "512", "--context", "4097"]
        done = replayrt(*arguments)
        words = "captured are 16 beside 0 with context 0, 16 beside 4 with context 0, 16 beside " \
                "4 of query length 2 with context 0, 512 beside 0 with context 0, 512 beside 0 " \
                "with context 1024"
        if done.returncode != 2 or words not in done.stderr or done.stdout:
            complain(arguments, done, words)
        arguments = ["plan", path, "--assume", "host", "--dot", "1", "--query-len", "3"]
        done = replayrt(*arguments)
        if done.returncode != 2 or "batch 1 of query length 3 is not captured" not in done.stderr:
            complain(arguments, done, "no graph of query length 3")


def check_bench_step():
    """Graphs of steps alone, whatever chunks the configuration has; with rows of any length."""
    path = str(pathlib.Path(CONFIG).with_name("chunks_alone.yaml"))
    for options, ragged in ([], False), (["--ragged"], True):
        arguments = ["bench", "step", path, "--device", "host", "--steps", "2", "--length", "8",
                     "--query-len", "2", "--json", *options]
        done = replayrt(*arguments)
        report = json.loads(done.stdout) if done.returncode == 0 else {}
        graphs = [(g["batch"], g["query_len"]) for g in report.get("graphs", [])]
        if graphs != [(4, 2)] or report["ragged"] != ragged:
            complain(arguments, done, f"a graph of 4 rows of 2 tokens, ragged {ragged}")


def check_progress():
    """A line of progress is in the file as soon as it is complete, not when the run is over."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "log"
        arguments = ["verify", CONFIG, "--device", "host", "--steps", "1000000"]
        with open(path, "wb") as log:
            run = subprocess.Popen([COMMAND, *arguments[:-1], "300"], stdout=log)
        seen_while_running = False
        while run.poll() is None and not seen_while_running:
            time.sleep(0.001)
            seen_while_running = b"bitwise equal\n" in path.read_bytes() and run.poll() is None
        if seen_while_running:
            run.kill()
        run.wait()
        if not seen_while_running:
            complaints.append("no line of verify's progress was in its file before it ended")


def check_odd_paths():
    """A configuration may lie where its path has anything in it; a dash comes behind ./"""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("-config.yaml", "tab\there.yaml", "line\nbreak.yaml"):
            path = os.path.join(folder, name)
            pathlib.Path(path).write_bytes(pathlib.Path(CONFIG).read_bytes())
            done = replayrt("plan", path, "--assume", "host")
            if done.returncode:
                complain(["plan", path], done, "a plan")


check_refused()
check_help()
check_json()
check_plan()
check_plan_layouts()
check_plan_ranks()
check_plan_stages()
check_plan_branches()
check_plan_dot()
check_bench_step()
check_progress()
check_odd_paths()
print("\n".join(complaints))
sys.exit(1 if complaints else 0)
