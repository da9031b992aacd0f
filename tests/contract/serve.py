#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""examples/serve: what requests get that come and go, beside replayrt decode of each alone.

usage: serve.py REPLAYRT SERVE SOURCE_ROOT SEED
"""
import json
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

COMMAND, SERVE = sys.argv[1:3]
ROOT = pathlib.Path(sys.argv[3]).resolve()
SEED = int(sys.argv[4])
GOLDEN = ROOT / "tests/data/golden"
DEEPSEEK, MISTRAL = GOLDEN / "tiny_deepseek_v3", GOLDEN / "tiny_mistral4"
PAGE = 16

complaints = []


def expect(holds, what):
    if not holds:
        complaints.append(f"seed {SEED}: {what}")


def config(scratch, model, **changes):
    """A configuration of few rows; changes by the keys' last words."""
    keys = dict(batch_sizes=[1, 2, 4], ring_depth=8, max=4, max_length=160, pages=60,
                prefill="{chunks: [16, 48], rows: 3, mixed_rows: [2]}")
    keys.update(changes)
    path = scratch / "serve.yaml"
    path.write_text(
        f"model: {model}/config.json\ndevice: host\n"
        f"graphs: {{batch_sizes: {keys['batch_sizes']}, ring_depth: {keys['ring_depth']}}}\n"
        f"sequences: {{max: {keys['max']}, max_length: {keys['max_length']}}}\n"
        f"kv_cache: {{page_size: {PAGE}, pages: {keys['pages']}}}\n" +
        (f"prefill: {keys['prefill']}\n" if keys["prefill"] else ""))
    return path


def request(name, prompt, wanted, arrives=0):
    return {"id": name, "prompt_ids": prompt, "max_new_tokens": wanted, "arrive_step": arrives}


def run(path, model, lines, by_file=None):
    """The answers by id, refusals by line, the totals; and the exit status."""
    text = "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
    arguments = [SERVE, path, model]
    if by_file:
        by_file.write_text(text, encoding="utf-8")
        arguments.append(by_file)
    done = subprocess.run(list(map(str, arguments)), input="" if by_file else text, timeout=100,
                          capture_output=True, text=True)
    if done.stderr or not done.stdout:
        sys.exit(f"{path.read_text()}{text}{done}")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return ({row["id"]: row for row in rows[:-1] if "tokens" in row},
            {row["line"]: row for row in rows[:-1] if "error" in row}, rows[-1], done.returncode)


def alone(model, prompt, wanted, known={}):
    """What the command decodes of a prompt by itself."""
    key = (str(model), tuple(prompt), wanted)
    if key not in known:
        done = subprocess.run(
            [COMMAND, "decode", "--checkpoint", model, "--device", "host", "--json",
             "--prompt-ids", ",".join(map(str, prompt)), "--max-new-tokens", str(wanted)],
            capture_output=True, text=True, check=True, timeout=60)
        known[key] = json.loads(done.stdout)["prompts"][0]["tokens"]
    return known[key]


def expect_alone(what, model, requests, answers):
    expect(set(answers) == {r["id"] for r in requests}, f"{what}: answers {answers}")
    for r in requests:
        expected = alone(model, r["prompt_ids"], r["max_new_tokens"])
        got = answers.get(r["id"], {}).get("tokens")
        expect(got == expected, f"{what}: {r}: {got}, alone {expected}")


def ids(generator, count):
    return [generator.randrange(2, 256) for _ in range(count)]


def crowd(generator):
    """More requests than rows, some at once and some long after, half of them on one beginning."""
    common, requests, step = ids(generator, 40), [], 0
    for i in range(24):
        begin = common[:generator.randrange(41)] if i % 2 else []
        prompt = begin + ids(generator, generator.choice([1, 2, 15, 16, 17, 30, 100]))
        step += generator.choice([0, 0, 0, 1, 2, 5, 60 if i == 20 else 1])
        requests.append(request(f"r{i}", prompt, generator.choice([1, 2, 3, 9, 20]), step))
    return requests


# ---- what it serves ---------------------------------------------------------------------------


def check_crowd(scratch, model):
    """The same tokens, whatever there is room for."""
    requests = crowd(random.Random(SEED))
    for changes in ({}, {"ring_depth": 3}, {"max": 1, "prefill": "{chunks: [7]}"},
                    {"pages": 11}, {"batch_sizes": [1], "ring_depth": 20}):
        what = f"{model.name} {changes}"
        answers, refused, totals, code = run(config(scratch, model, **changes), model, requests)
        expect(code == 0 and not refused, f"{what}: {code}, {refused}")
        expect_alone(what, model, requests, answers)
        expect(totals["requests"] == 24 and totals["refused"] == 0 and
               totals["tokens"] == sum(len(a["tokens"]) for a in answers.values()) and
               totals["mean_rows"] <= changes.get("max", 4), f"{what}: {totals}")
        # Prompts that go in take steps too, so a request has as many as tokens, or more.
        expect(all(a["steps"] >= len(a["tokens"]) for a in answers.values()), f"{what}: {answers}")


def check_order(scratch):
    """Who is over makes room in the very next step, and nobody is there for nothing."""
    requests = [request(i, [10 + i], 4 + i % 2, 0 if i < 6 else 100) for i in range(7)]
    answers, _, totals, _ = run(config(scratch, DEEPSEEK, max=2, prefill="{chunks: [16]}"),
                                DEEPSEEK, requests, scratch / "requests.jsonl")
    expect_alone("order", DEEPSEEK, requests, answers)
    waited = [answers[i]["waited"] for i in range(7)]
    expect(waited == [0, 0, 4, 5, 8, 10, 0], f"waited {waited}")
    expect(totals["steps"] == 19 and totals["mean_rows"] == round(31 / 19, 3), f"{totals}")


def check_shared(scratch):
    """Whole pages in front of the last token, also of who still decodes, and of who is gone."""
    prompt = list(range(20, 60))
    requests = [request("a", prompt, 8), request("b", prompt, 8, 2),  # 32 of 40 tokens
                request("c", prompt[:32], 8, 2),                      # 16: one must be stepped
                request("d", prompt[:17] + [3, 4], 8, 50),            # 16
                request("e", [3] + prompt, 8, 50)]                    # none
    answers, _, totals, _ = run(config(scratch, DEEPSEEK), DEEPSEEK, requests)
    expect_alone("shared", DEEPSEEK, requests, answers)
    expect(totals["shared_tokens"] == 32 + 16 + 16, f"{totals}")


def check_pages(scratch):
    """Out of pages a request waits, beginnings that nobody uses give way, and nobody fails."""
    first, other = list(range(20, 84)), list(range(120, 184))
    requests = [request("a", first, 17),       # 5 of 7 pages, of which 4 are kept
                request("b", other, 17, 1),    # waits for a, which is there, to end
                request("c", other, 17, 20),   # shares 3 of b's pages, needs 2
                request("d", [9], 2, 1)]       # behind b, though there is room
    answers, _, totals, _ = run(config(scratch, DEEPSEEK, pages=7,
                                       prefill="{chunks: [64], mixed_rows: [4]}"),
                                DEEPSEEK, requests)
    expect_alone("pages", DEEPSEEK, requests, answers)
    waited = {name: answers[name]["waited"] for name in "abcd"}
    expect(waited == {"a": 0, "b": 16, "c": 0, "d": 16}, f"waited {waited}")
    expect(totals["shared_tokens"] == 48 and totals["steps"] == 37, f"{totals}")


def check_context(scratch):
    """What is cached of all prompts in a step is no more than a chunk expands."""
    prompt = list(range(20, 120))
    requests = [request("a", prompt, 2), *(request(i, prompt + [i], 2, 10) for i in range(3))]
    path = config(scratch, DEEPSEEK, prefill="{chunks: [256], rows: 3, context_piece: 64}")
    answers, _, totals, _ = run(path, DEEPSEEK, requests)
    expect_alone("context", DEEPSEEK, requests, answers)
    expect(totals["shared_tokens"] == 3 * 96, f"{totals}")


def check_ends(scratch):
    """Where the model ends a row is over; the step that was launched by then changes nothing."""
    prompts = [[5, 7, 9], [1], [200, 100, 50]]
    model = scratch / "model"
    shutil.copytree(DEEPSEEK, model)
    settings = json.loads((model / "config.json").read_text(encoding="utf-8"))
    settings["eos_token_id"] = alone(DEEPSEEK, prompts[0], 20)[6]
    (model / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    requests = [request(f"p{i}", prompts[i % 3], 20, i // 2) for i in range(9)]
    answers, _, _, code = run(config(scratch, model, max=2), model, requests)
    expect_alone("ends", model, requests, answers)
    expect(code == 0 and len(answers["p0"]["tokens"]) <= 7 and
           answers["p0"]["steps"] == len(answers["p0"]["tokens"]), f"ends: {answers['p0']}")


# ---- what it refuses --------------------------------------------------------------------------

GOOD = '{"id": "good", "prompt_ids": [5, 7, 9], "max_new_tokens": 6}'
# A line, and its sentence.
BAD = [
    ("x", "column 1: expected an object in braces, not x"),
    ("{}", "column 2: expected a key in quotes, not }"),
    ('{"id": "a"', "the line ends where a comma or } is expected"),
    ('{"id": "a", "prompt_ids": [1]}', "max_new_tokens is missing"),
    ('{"id": "a", "max_new_tokens": 1}', "prompt_ids is missing"),
    ('{"prompt_ids": [1], "max_new_tokens": 1}', "id is missing"),
    ('{"id": 1.5, "prompt_ids": [1], "max_new_tokens": 1}',
     "column 8: expected id to be a string or a whole number, not 1.5"),
    ('{"id": "a\\q", "prompt_ids": [1], "max_new_tokens": 1}',
     'column 8: expected id to be a string or a whole number, not "a\\q"'),
    ('{"id": "a", "id": "a"}', '"id" is there twice'),
    ('{"id": "a", "tokens": 5}', '"tokens" is no key: there are id, prompt_ids'),
    ('{"id": "a", "prompt_ids": 5}', "column 27: expected prompt_ids to be a list, not 5"),
    ('{"id": "a", "prompt_ids": []}', "prompt_ids: id 1 is : expected a whole number from 0"),
    ('{"id": "a", "prompt_ids": [1, -2]}', "prompt_ids: id 2 is -2: expected a whole number"),
    ('{"id": "a", "prompt_ids": [1, 2147483648]}', "id 2 is 2147483648: expected a whole number"),
    ('{"id": "a", "prompt_ids": [1, "2"]}', 'id 2 is "2": expected a whole number'),
    ('{"id": "a", "prompt_ids": [1 2]}', "column 30: expected a comma or ], not 2"),
    ('{"id": "a", "prompt_ids": [1], "max_new_tokens": 0}',
     "max_new_tokens is 0: expected a whole number from 1 to 2147483647"),
    ('{"id": "a", "prompt_ids": [1], "max_new_tokens": 1e3}', "max_new_tokens is 1e3: expected"),
    ('{"id": "a", "prompt_ids": [1], "max_new_tokens": 010}', "max_new_tokens is 010: expected"),
    ('{"id": "a", "prompt_ids": [1], "max_new_tokens": 1, "arrive_step": -1}',
     "arrive_step is -1: expected a whole number from 0"),
    ('{"id": "a", "prompt_ids": [1], "max_new_tokens": 1} {}',
     "column 53: expected the line's end, not {"),
    ('{"id": "a" "prompt_ids": [1]}', 'column 12: expected a comma or }, not "prompt_ids"'),
    ('{"id" 5}', "column 7: expected a colon, not 5"),
    ('{"id": "a", "prompt_ids": [1, 256], "max_new_tokens": 1}',
     "prompt_ids: id 2 is 256: the model has ids below 256"),
    ('{"id": "a", "prompt_ids": [1, 2], "max_new_tokens": 159}',
     "2 prompt_ids and max_new_tokens 159 are 161 tokens: a sequence has 160 here"),
    ('{"id": "a", "prompt_ids": [1], "max_new_tokens": 128}',
     "128 tokens need 8 pages: there are 7"),
]


def check_bad_lines(scratch):
    """Each has its line's number and what is wrong; the one between them is served."""
    path = config(scratch, DEEPSEEK, pages=7)
    lines = [line for line, _ in BAD] + ["", GOOD, "  "]
    answers, refused, totals, code = run(path, DEEPSEEK, lines)
    expect(code == 1 and totals["refused"] == len(BAD) and len(refused) == len(BAD), f"{totals}")
    for number, (line, words) in enumerate(BAD, 1):
        row = refused.get(number, {"error": "none"})
        expect(words in row["error"], f"line {number}, {line}: {row}")
    expect(refused[4]["id"] == "a" and refused[1]["id"] is None, f"{refused}")
    expect_alone("bad lines", DEEPSEEK, [json.loads(GOOD)], answers)
    answers, _, totals, code = run(path, DEEPSEEK, [])
    expect(code == 0 and not answers and totals["steps"] == 0, f"no request: {totals}")


def check_refused(scratch):
    """What is no request's fault ends it all, before the first step."""
    good = config(scratch, DEEPSEEK).rename(scratch / "good.yaml")
    chunkless = config(scratch, DEEPSEEK, prefill=None).rename(scratch / "chunkless.yaml")
    shallow = config(scratch, DEEPSEEK, ring_depth=2).rename(scratch / "shallow.yaml")
    (scratch / "empty.jsonl").write_text("")
    for arguments, code, words in [
            ([], 2, "usage"), ([good], 2, "usage"),
            ([good, DEEPSEEK, "/nowhere/r.jsonl"], 1, "/nowhere/r.jsonl: No such file"),
            ([good, DEEPSEEK, scratch], 1, "Is a directory"),
            (["/nowhere/c.yaml", DEEPSEEK], 1, "/nowhere/c.yaml"),
            ([good, "/nowhere/model"], 1, "/nowhere/model"),
            ([chunkless, DEEPSEEK], 1, "prefill.chunks is missing"),
            ([shallow, DEEPSEEK], 1, "graphs.ring_depth is 2: a step of 4 sequences takes up to "
                                     "3 records")]:
        done = subprocess.run([SERVE, *map(str, arguments)], stdin=subprocess.DEVNULL, text=True,
                              capture_output=True, timeout=60)
        expect(done.returncode == code and words in done.stderr and not done.stdout,
               f"{arguments}: {done}: expected {code}, {words}")
    with open("/dev/full", "wb") as full:
        done = subprocess.run([SERVE, str(good), str(DEEPSEEK)], input=GOOD, text=True,
                              stdout=full, stderr=subprocess.PIPE, timeout=60)
    expect(done.returncode == 1 and "serve: standard output" in done.stderr, f"full: {done}")


def check_files(scratch):
    """The ones that lie beside it, as its first lines say."""
    lines = (ROOT / "examples/serve.jsonl").read_text(encoding="utf-8").splitlines()
    requests = [json.loads(line) for line in lines]
    answers, _, totals, code = run(ROOT / "examples/serve.yaml", DEEPSEEK, lines)
    expect(code == 0 and totals["shared_tokens"] > 0, f"files: {totals}")
    expect_alone("files", DEEPSEEK, requests, answers)
    del scratch


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    check_crowd(folder, DEEPSEEK)
    check_crowd(folder, MISTRAL)
    for check in (check_order, check_shared, check_pages, check_context, check_ends,
                  check_bad_lines, check_refused, check_files):
        check(folder)
print("\n".join(complaints))
sys.exit(1 if complaints else 0)
