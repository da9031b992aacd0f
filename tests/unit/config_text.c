/* SPDX-License-Identifier: Apache-2.0 */
/* Configuration files, from memory: what each bad one is told, what each good one gives. */
#include "config/config.h"
#include "tests/unit/expect.h"

#include <stdlib.h>

/* ---- files, from memory ---------------------------------------------------------------------- */

static const struct rt_geometry MODEL = {.heads = 128,
                                         .kv_lora_rank = 512,
                                         .qk_rope_head_dim = 64,
                                         .layers = 61,
                                         .softmax_scale = 0.1352337788608801};

static enum rt_status parse(const char *text, struct rt_config *out, struct rt_error *err)
{
    size_t bytes = strlen(text);
    /* An exact allocation, so that a sanitizer sees one byte too many. */
    char *copy = malloc(bytes ? bytes : 1);
    assert_non_null(copy);
    memcpy(copy, text, bytes);
    const struct rt_source source = {.text = copy, .bytes = bytes, .name = "bad.yaml"};
    struct rt_config_draft draft;
    enum rt_status status = rt_config_draft_parse(&source, &draft, err);
    if (status == RT_OK) {
        const struct rt_model_shape whole = {.geometry = MODEL};
        const struct rt_model_shape *model = draft.model_path ? &whole : NULL;
        status = rt_config_draft_finish(&source, &draft, model, out, err);
        rt_config_draft_free(&draft);
    }
    free(copy);
    return status;
}

#define GEOMETRY                                                                                   \
    "geometry: {heads: 16, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 61, "                  \
    "softmax_scale: 0.1352}\n"

/* What GEOMETRY alone gives. */
static struct rt_config plain_config(void)
{
    struct rt_config c;
    memset(&c, 0xA5, sizeof(c));
    rt_config_default(&c);
    c.geometry = MODEL;
    c.geometry.heads = 16;
    c.geometry.softmax_scale = 0.1352;
    return c;
}

struct bad {
    const char *text;
    enum rt_status status;
    const char *want[3];
};

#define BLOCK "layer: true\nblock: {hidden_size: 7168, qk_nope_head_dim: 128, v_head_dim: 128}\n"

static const struct bad BAD[] = {
    /* the block */
    {GEOMETRY "layer: yes\n", RT_ERR_CONFIG, {"bad.yaml:2: layer is yes: must be true or false"}},
    {GEOMETRY "layer: true\n",
     RT_ERR_CONFIG,
     {"block.hidden_size is 0: must be an integer from 8"}},
    {GEOMETRY "block: {hidden_size: 64}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: block is given without layer: true, must go with it"}},
    {GEOMETRY "projections: own\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: projections is given without layer: true"}},
    {GEOMETRY "input_norm: true\n", RT_ERR_CONFIG, {"bad.yaml:2: input_norm is given without"}},
    {"model: a.json\nlayer: true\nrope: {theta: 1}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: rope is given beside model (line 1): must be one of them"}},
    {GEOMETRY "layer: true\nblock: {hidden_size: 7170, qk_nope_head_dim: 128, v_head_dim: 128}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: block.hidden_size is 7170: must be", "a multiple of 8"}},
    {GEOMETRY "layer: true\nblock: {hidden_size: 64, q_lora_rank: 12, qk_nope_head_dim: 128,"
              " v_head_dim: 128}\n",
     RT_ERR_CONFIG,
     {"block.q_lora_rank is 12: must be"}},
    {GEOMETRY BLOCK "attention: {tensors: per_layer}\n",
     RT_ERR_CONFIG,
     {"attention.tensors is 1: must be shared with layer"}},
    {GEOMETRY BLOCK "rope: {type: yarn, original_max_length: 64}\n",
     RT_ERR_CONFIG,
     {"rope.factor is 0: must be a number above 0, for yarn"}},
    {GEOMETRY BLOCK "rope: {type: yarn, factor: 4}\n",
     RT_ERR_CONFIG,
     {"rope.original_max_length is 0: must be at least 1"}},
    {GEOMETRY BLOCK "rope: {query_scale_beta: 0.1}\n",
     RT_ERR_CONFIG,
     {"rope.original_max_length is 0: must be at least 1"}},
    {GEOMETRY BLOCK "rope: {type: longrope, original_max_length: 64,\n"
                    "  short_factor: [1, 2], long_factor: [1, 2]}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:5: rope.short_factor is a list of 2: must be a list of 32, half of"}},
    {GEOMETRY BLOCK "rope: {long_factor: [1, 0, 2]}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:4: rope.long_factor[1] is 0: must be a number above 0"}},
    {GEOMETRY BLOCK "rope: {long_factor: []}\n",
     RT_ERR_CONFIG,
     {"rope.long_factor is an empty list: must be a list of 1 to"}},
    {GEOMETRY BLOCK "rope: {type: dynamic}\n",
     RT_ERR_CONFIG,
     {"rope.type is dynamic: must be default, none, yarn or longrope"}},
    {GEOMETRY BLOCK "device: cuda:0\nprecision: f32\n",
     RT_ERR_CONFIG,
     {"bad.yaml:5: precision is f32 with device cuda:0: must be bf16 there"}},
    /* not a configuration at all */
    {"", RT_ERR_CONFIG, {"bad.yaml: is empty"}},
    {"# only a comment\n", RT_ERR_CONFIG, {"bad.yaml: is empty"}},
    {"---\n...\n", RT_ERR_CONFIG, {"bad.yaml:2: the document is null"}},
    {"hello", RT_ERR_CONFIG, {"bad.yaml:1: the document is hello: must be a mapping"}},
    {"- a\n", RT_ERR_CONFIG, {"the document is a list"}},
    {"\x7F"
     "ELF\x02\x01\x01",
     RT_ERR_CONFIG,
     {"bad.yaml:1: not YAML: control characters"}},
    {"a: b\n\xC0\x80", RT_ERR_CONFIG, {"bad.yaml:2: not YAML", "UTF-8"}},
    {GEOMETRY "graphs:\n\tring_depth: 3\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: not YAML: found character that cannot start any token"}},
    {GEOMETRY "graphs: {", RT_ERR_CONFIG, {"not YAML", "did not find expected"}},
    {GEOMETRY "graphs: [1, 2\ndevice: host\n", RT_ERR_CONFIG, {"not YAML", "from line 2"}},
    {GEOMETRY "---\ndevice: host\n", RT_ERR_CONFIG, {"bad.yaml:2: a second document begins"}},
    {GEOMETRY "device: &d host\nkv_cache: {layout: *d}\n", RT_ERR_CONFIG, {"bad.yaml:3: aliases"}},
    {GEOMETRY "? [device]\n: host\n", RT_ERR_CONFIG, {"bad.yaml:2: a key must be a word"}},
    /* keys */
    {GEOMETRY "grahps: {ring_depth: 8}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: unknown key grahps (did you mean graphs?)", "valid here are model, tensor_par"}},
    {GEOMETRY "graphs:\n  ring_dept: 8\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: unknown key graphs.ring_dept (did you mean ring_depth?)",
      "valid here are batch_sizes, query_lens, max_batch, ring_depth"}},
    {GEOMETRY "page_size: 64\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: unknown key page_size (did you mean kv_cache: {page_size: ...}?)"}},
    {GEOMETRY "kv_cache: {Page_Size: 64}\n", RT_ERR_CONFIG, {"(did you mean page_size?)"}},
    {GEOMETRY "zzzzzzzzzzz: 1\n", RT_ERR_CONFIG, {"unknown key zzzzzzzzzzz: valid here are"}},
    {GEOMETRY "\"device\\0\": host\n",
     RT_ERR_CONFIG,
     {"unknown key device? (did you mean device?)"}},
    {GEOMETRY "<<: {device: host}\n", RT_ERR_CONFIG, {"unknown key <<"}},
    {GEOMETRY "device: host\ndevice: auto\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: device is given twice, first in line 2"}},
    {GEOMETRY "graphs:\n", RT_ERR_CONFIG, {"bad.yaml:2: graphs is null: must be a mapping of"}},
    {GEOMETRY "graphs: 8\n", RT_ERR_CONFIG, {"bad.yaml:2: graphs is 8: must be a mapping of"}},
    {GEOMETRY "sequences: [1]\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: sequences is a list: must be a map"}},
    {GEOMETRY "device: {a: 1}\n", RT_ERR_CONFIG, {"bad.yaml:2: device is a mapping: must be auto"}},
    /* model and geometry */
    {"device: host\n", RT_ERR_CONFIG, {"bad.yaml: neither model nor geometry is given"}},
    {"model: a.json\n" GEOMETRY,
     RT_ERR_CONFIG,
     {"bad.yaml:2: geometry is given beside model (line 1)"}},
    {"model:\n", RT_ERR_CONFIG, {"bad.yaml:1: model is null: must be the path"}},
    {"model: ~\n", RT_ERR_CONFIG, {"bad.yaml:1: model is ~: must be the path"}},
    {"model: \"\"\n", RT_ERR_CONFIG, {"bad.yaml:1: model is \"\": must be the path"}},
    {"model: \"a\\0b\"\n", RT_ERR_CONFIG, {"bad.yaml:1: model is \"a?b\": must be the path"}},
    {"model: [a.json]\n", RT_ERR_CONFIG, {"bad.yaml:1: model is a list"}},
    {GEOMETRY "tensor_parallel: 2\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: tensor_parallel is 2 without mod"}},
    {"model: a\ntensor_parallel: 0\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: tensor_parallel is 0: must be"}},
    {"model: a\ntensor_parallel: 1025\n", RT_ERR_CONFIG, {"bad.yaml:2: tensor_parallel is 1025"}},
    {"model: a\n\ntensor_parallel: 3\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: tensor_parallel is 3: must divide the 128 heads of the model"}},
    {"geometry: {heads: 16}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:1: geometry.kv_lora_rank is missing: must be 512 or 256"}},
    {"geometry:\n  heads: 16\n  kv_lora_rank: 512\n  qk_rope_head_dim: 64\n  layers: 1\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: geometry.softmax_scale is missing: must be a number above 0"}},
    {"geometry:\n  heads: 16\n  kv_lora_rank: 512\n  qk_rope_head_dim: 48\n  layers: 1\n"
     "  softmax_scale: 1\n",
     RT_ERR_GEOMETRY,
     {"bad.yaml:3: geometry.kv_lora_rank is 512 with qk_rope_head_dim 48, d_qk/d_v 560/512",
      "576/512, 320/256, 288/256 or 512/512"}},
    {"geometry: {heads: 200, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 1, softmax_scale: 1}",
     RT_ERR_GEOMETRY,
     {"bad.yaml:1: geometry.heads is 200: must be an integer from 1 to 128"}},
    {"geometry: {heads: -1, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 1, softmax_scale: 1}",
     RT_ERR_CONFIG,
     {"bad.yaml:1: geometry.heads is -1: must be an integer from 1 to 128"}},
    {"geometry: {heads: 1, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 0, softmax_scale: 1}",
     RT_ERR_GEOMETRY,
     {"bad.yaml:1: geometry.layers is 0"}},
    {"geometry: {heads: 1, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 1, softmax_scale: -1}",
     RT_ERR_GEOMETRY,
     {"bad.yaml:1: geometry.softmax_scale is -1: must be a number above 0"}},
    {"geometry: {heads: 1, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 1, softmax_scale: "
     ".inf}",
     RT_ERR_CONFIG,
     {"bad.yaml:1: geometry.softmax_scale is .inf: must be a number above 0"}},
    {"geometry: {heads: 1, kv_lora_rank: 512, qk_rope_head_dim: 64, layers: 1, softmax_scale: "
     "1e999}",
     RT_ERR_CONFIG,
     {"bad.yaml:1: geometry.softmax_scale is 1e999"}},
    /* device */
    {GEOMETRY "device: gpu\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: device is \"gpu\": must be auto, host or"}},
    {GEOMETRY "device: cuda:x\n", RT_ERR_CONFIG, {"bad.yaml:2: device is \"cuda:x\""}},
    {GEOMETRY "device: cuda:0000000000000000000000000000000000000000000000000000000000\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: device is cuda:0000", "...: must be auto"}},
    /* graphs */
    {GEOMETRY "graphs: {batch_sizes: all, max_batch: 4}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: graphs.batch_sizes is all: must be auto, or a list of 1 to 256 integers"}},
    {GEOMETRY "graphs: {batch_sizes: 8}\n",
     RT_ERR_CONFIG,
     {"graphs.batch_sizes is 8: must be auto"}},
    {GEOMETRY "graphs: {batch_sizes: {a: 1}}\n",
     RT_ERR_CONFIG,
     {"batch_sizes is a mapping: must be"}},
    {GEOMETRY "graphs: {batch_sizes: []}\n",
     RT_ERR_CONFIG,
     {"graphs.batch_sizes is an empty list: must be"}},
    {GEOMETRY "graphs: {batch_sizes: auto}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: graphs.batch_sizes is auto without graphs.max_batch"}},
    {GEOMETRY "graphs: {batch_sizes: [1], max_batch: 4}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: graphs.max_batch is 4 without graphs.batch_sizes: auto"}},
    {GEOMETRY "graphs: {max_batch: 4}\n", RT_ERR_CONFIG, {"graphs.max_batch is 4 without"}},
    {GEOMETRY "graphs: {batch_sizes: auto, max_batch: 0}\n",
     RT_ERR_CONFIG,
     {"graphs.max_batch is 0: must be an integer from 1 to 4096"}},
    {GEOMETRY "graphs: {batch_sizes: auto, max_batch: 4097}\n",
     RT_ERR_CONFIG,
     {"max_batch is 4097"}},
    {GEOMETRY "graphs:\n  batch_sizes:\n    - 1\n    - 4\n    - 2\n",
     RT_ERR_CONFIG,
     {"bad.yaml:6: graphs.batch_sizes[2] is 2: must be greater than the 4 before it"}},
    {GEOMETRY "graphs: {batch_sizes: [1, 4,\n 4]}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: graphs.batch_sizes[2] is 4: must be greater than the 4 before it"}},
    {GEOMETRY "graphs: {batch_sizes: [0]}\n",
     RT_ERR_CONFIG,
     {"graphs.batch_sizes[0] is 0: must be an integer from 1 to 4096"}},
    {GEOMETRY "graphs: {batch_sizes: [1, 5000]}\n",
     RT_ERR_CONFIG,
     {"graphs.batch_sizes[1] is 5000"}},
    {GEOMETRY "graphs: {batch_sizes: [1, -2]}\n",
     RT_ERR_CONFIG,
     {"graphs.batch_sizes[1] is -2: must be an integer from 1 to 4096"}},
    {GEOMETRY "graphs: {batch_sizes: [1, two]}\n", RT_ERR_CONFIG, {"graphs.batch_sizes[1] is two"}},
    {GEOMETRY "graphs: {batch_sizes: [1, [2]]}\n", RT_ERR_CONFIG, {"batch_sizes[1] is a list"}},
    {GEOMETRY "graphs: {batch_sizes: [1, 99999999999]}\n", RT_ERR_CONFIG, {"[1] is 99999999999"}},
    {GEOMETRY "graphs: {query_lens: [1, 9]}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: graphs.query_lens[1] is 9: must be an integer from 1 to 8"}},
    {GEOMETRY "graphs: {query_lens: [2, 1]}\n", RT_ERR_CONFIG, {"graphs.query_lens[1] is 1"}},
    {GEOMETRY "graphs: {query_lens: [1, 2, 3, 4, 5, 6, 7, 8, 9]}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: graphs.query_lens is a list of 9: must be a list of 1 to 8 integers"}},
    {GEOMETRY "graphs: {query_lens: 1}\n",
     RT_ERR_CONFIG,
     {"graphs.query_lens is 1: must be a list"}},
    {GEOMETRY "graphs: {ring_depth: 1}\n",
     RT_ERR_CONFIG,
     {"graphs.ring_depth is 1: must be an int"}},
    {GEOMETRY "graphs: {ring_depth: 65}\n", RT_ERR_CONFIG, {"graphs.ring_depth is 65"}},
    /* numbers that are none */
    {GEOMETRY "graphs: {ring_depth: !!str 16}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: graphs.ring_depth is \"16\": must be an integer from 2 to 64"}},
    {GEOMETRY "graphs: {ring_depth: !!int 16}\n", RT_ERR_CONFIG, {"bad.yaml:2: the tag tag:yaml"}},
    {GEOMETRY "\"\": 1\n", RT_ERR_CONFIG, {"bad.yaml:2: unknown key : valid here are model, tens"}},
    {GEOMETRY "graphs: {graphs: 1}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: unknown key graphs.graphs: val"}},
    {GEOMETRY "geometry.heads: 1\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: unknown key geometry.heads (did you mean geometry: {heads: ...}?)"}},
    {GEOMETRY "graphs: {}\ngraphs: {}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: graphs is given twice, first in line 2"}},
    {GEOMETRY "graphs: {ring_depth: 8.5}\n", RT_ERR_CONFIG, {"graphs.ring_depth is 8.5"}},
    {GEOMETRY "graphs: {ring_depth: 010}\n", RT_ERR_CONFIG, {"graphs.ring_depth is 010"}},
    {GEOMETRY "graphs: {ring_depth: 0x8}\n", RT_ERR_CONFIG, {"graphs.ring_depth is 0x8"}},
    {GEOMETRY "graphs: {ring_depth: 8k}\n", RT_ERR_CONFIG, {"graphs.ring_depth is 8k"}},
    {GEOMETRY "graphs: {ring_depth: \"8\"}\n", RT_ERR_CONFIG, {"graphs.ring_depth is \"8\""}},
    {GEOMETRY "graphs: {ring_depth: 4294967304}\n", RT_ERR_CONFIG, {"ring_depth is 4294967304"}},
    {GEOMETRY "kv_cache: {pages: -18446744073709551615}\n",
     RT_ERR_CONFIG,
     {"kv_cache.pages is -18446744073709551615: must be an integer from 1 to 2147483647"}},
    {GEOMETRY "kv_cache: {pages: 18446744073709551617}\n",
     RT_ERR_CONFIG,
     {"pages is 184467440737095"}},
    /* sequences and the cache */
    {GEOMETRY "sequences:\n  max: 0\n", RT_ERR_CONFIG, {"bad.yaml:3: sequences.max is 0: must be"}},
    {GEOMETRY "sequences: {max: 65537}\n", RT_ERR_CONFIG, {"sequences.max is 65537", "1 to 65536"}},
    {GEOMETRY "sequences: {max_length: 2000000}\n",
     RT_ERR_CONFIG,
     {"sequences.max_length is 2000000"}},
    {GEOMETRY "graphs: {query_lens: [1, 8]}\nsequences: {max_length: 7}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:3: sequences.max_length is 7: must be at least 8, the longest query length"}},
    {GEOMETRY "sequences: {max: 65536, max_length: 1048576}\nkv_cache: {page_size: 16}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: sequences.max_length is 1048576: must be at most 524272 with 65536"}},
    {GEOMETRY "kv_cache: {layout: fp8}\n",
     RT_ERR_CONFIG,
     {"kv_cache.layout is fp8: must be bf16, fp8_tensor, fp8_token"}},
    {GEOMETRY "kv_cache: {page_size: 48}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: kv_cache.page_size is 48: must be 16, 32, 64 or 128"}},
    {GEOMETRY "kv_cache: {pages: 0}\n", RT_ERR_CONFIG, {"kv_cache.pages is 0: must be an integer"}},
    {GEOMETRY "kv_cache: {pages: 2147483648}\n", RT_ERR_CONFIG, {"kv_cache.pages is 2147483648"}},
    {GEOMETRY "kv_cache: {pages: 1, memory: 0.5}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: kv_cache.pages is 1 beside kv_cache.memory: must be one of them"}},
    {GEOMETRY "kv_cache: {memory: 0}\n", RT_ERR_CONFIG, {"kv_cache.memory is 0: must be a number"}},
    {GEOMETRY "kv_cache: {memory: 1.5}\n", RT_ERR_CONFIG, {"kv_cache.memory is 1.5"}},
    {GEOMETRY "kv_cache: {memory: 85%}\n", RT_ERR_CONFIG, {"kv_cache.memory is 85%"}},
    {GEOMETRY "kv_cache: {memory: nan}\n", RT_ERR_CONFIG, {"kv_cache.memory is nan"}},
    {GEOMETRY "kv_cache: {memory: \"0,85\"}\n", RT_ERR_CONFIG, {"kv_cache.memory is \"0,85\""}},
    /* attention */
    {GEOMETRY "attention: {backend: sm100}\n",
     RT_ERR_CONFIG,
     {"bad.yaml:2: attention.backend is sm100: must be auto, generic or sm90"}},
    {GEOMETRY "attention: {backend: 1}\n", RT_ERR_CONFIG, {"attention.backend is 1: must be auto"}},
    {GEOMETRY "attention: {tensors: 1}\n",
     RT_ERR_CONFIG,
     {"tensors is 1: must be shared or per_la"}},
    {GEOMETRY "attention: {tensors: }\n", RT_ERR_CONFIG, {"attention.tensors is null"}},
};

static void test_bad(void **state)
{
    (void)state;
    const struct rt_config before = plain_config();
    for (size_t i = 0; i < COUNT(BAD); i++) {
        struct rt_config c = before;
        struct rt_error err = {.message = ""};
        expect(BAD[i].text, parse(BAD[i].text, &c, &err), &err, BAD[i].status, BAD[i].want,
               COUNT(BAD[i].want));
        assert_memory_equal(&c, &before, sizeof(c));
        assert_int_equal(parse(BAD[i].text, &c, NULL), BAD[i].status);
    }
}

/* A list longer than any schema allows names the list, wherever the extra element stands. */
static void test_long_list(void **state)
{
    (void)state;
    static const char *const want[] = {"bad.yaml:2: graphs.batch_sizes is a list of ",
                                       "1 to 256 integers"};
    for (uint32_t count = RT_MAX_BUCKETS; count < 3000; count += 137) {
        char text[20000];
        struct rt_config c = plain_config();
        struct rt_error err = {.message = ""};
        size_t used = (size_t)snprintf(text, sizeof(text), GEOMETRY "graphs: {batch_sizes: [");
        for (uint32_t i = 0; i < count; i++)
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%u,", i + 1);
        (void)snprintf(text + used, sizeof(text) - used, "]}\n");
        enum rt_status status = parse(text, &c, &err);
        if (count > RT_MAX_BUCKETS)
            expect("a long list", status, &err, RT_ERR_CONFIG, want, COUNT(want));
        else
            assert_int_equal(status, RT_OK);
    }
}

/* ---- good texts ------------------------------------------------------------------------------ */

static void parse_good(const char *text, struct rt_config *out)
{
    struct rt_error err = {.message = ""};
    if (parse(text, out, &err) != RT_OK)
        fail_msg("%s\n%s", text, err.message);
    assert_int_equal(rt_config_check(out, &err), RT_OK);
}

/* Field by field: the struct has padding. */
static void expect_same(const struct rt_config *a, const struct rt_config *b)
{
    assert_memory_equal(&a->geometry, &b->geometry, sizeof(a->geometry));
    assert_memory_equal(a->device, b->device, sizeof(a->device));
    assert_memory_equal(a->batch_sizes, b->batch_sizes, sizeof(a->batch_sizes));
    assert_memory_equal(a->query_lens, b->query_lens, sizeof(a->query_lens));
    assert_true(a->struct_size == b->struct_size && a->batch_size_count == b->batch_size_count &&
                a->query_len_count == b->query_len_count && a->ring_depth == b->ring_depth);
    assert_true(a->max_sequences == b->max_sequences && a->max_length == b->max_length);
    assert_true(a->kv_layout == b->kv_layout && a->page_size == b->page_size &&
                a->pages == b->pages && a->memory_fraction == b->memory_fraction);
    assert_true(a->backend == b->backend && a->tensors == b->tensors);
}

static void test_defaults_stay(void **state)
{
    (void)state;
    const struct rt_config want = plain_config();
    struct rt_config got;
    memset(&got, 0x5A, sizeof(got));
    parse_good(GEOMETRY, &got);
    expect_same(&got, &want);
    parse_good(GEOMETRY "graphs: {}\nsequences: {}\nkv_cache: {}\nattention: {}\n", &got);
    expect_same(&got, &want);
    parse_good("%YAML 1.1\n---\n" GEOMETRY "device: 'auto'\n...\n", &got);
    expect_same(&got, &want);
}

static void test_every_key(void **state)
{
    (void)state;
    struct rt_config c = {.struct_size = 0};
    parse_good("model: some/config.json\ntensor_parallel: 8\ndevice: cuda:7\n"
               "graphs: {batch_sizes: [1, 3, 4096], query_lens: [1, 2, 8], ring_depth: 64}\n"
               "sequences: {max: 65536, max_length: 131072}\n"
               "kv_cache: {layout: bf16, page_size: 128, pages: 2147483647}\n"
               "attention: {backend: sm90, tensors: per_layer}\n",
               &c);
    assert_int_equal(c.geometry.heads, 16);
    assert_true(c.geometry.softmax_scale == MODEL.softmax_scale);
    assert_string_equal(c.device, "cuda:7");
    assert_int_equal(c.batch_size_count, 3);
    assert_int_equal(c.batch_sizes[2], 4096);
    assert_int_equal(c.query_len_count, 3);
    assert_int_equal(c.query_lens[2], 8);
    assert_int_equal(c.ring_depth, 64);
    assert_int_equal(c.max_sequences, 65536);
    assert_int_equal(c.max_length, 131072);
    assert_int_equal(c.page_size, 128);
    assert_true(c.pages == 2147483647);
    assert_int_equal(c.backend, RT_BACKEND_SM90);
    assert_int_equal(c.tensors, RT_TENSORS_PER_LAYER);
    parse_good(GEOMETRY "kv_cache: {memory: 1}\nattention: {backend: generic, tensors: shared}\n",
               &c);
    assert_true(c.memory_fraction == 1.0 && c.pages == 0);
    assert_int_equal(c.backend, RT_BACKEND_GENERIC);
    parse_good(GEOMETRY "kv_cache: {memory: +.5e0}\nattention: {backend: auto}\n", &c);
    assert_true(c.memory_fraction == 0.5);
}

static void test_block(void **state)
{
    (void)state;
    struct rt_config c = {.struct_size = 0};
    parse_good(GEOMETRY BLOCK, &c);
    assert_true(c.layer == 1 && c.input_norm == 0 && c.precision == RT_PRECISION_BF16);
    assert_int_equal(c.block.hidden_size, 7168);
    assert_int_equal(c.block.q_lora_rank, 0);
    assert_true(c.block.norm_eps == 1e-6 && c.block.q_a_scale == 1.0 &&
                c.block.residual_scale == 1.0);
    assert_true(c.block.rope.theta == 10000.0 && c.block.rope.truncate == 1);
    parse_good(GEOMETRY "layer: true\ninput_norm: true\nprojections: own\nprecision: f32\n"
                        "block: {hidden_size: 64, q_lora_rank: 48, qk_nope_head_dim: 8,\n"
                        "  v_head_dim: 16, norm_eps: 1e-5, norm_one_plus: true, kv_a_scale: 2,\n"
                        "  residual_scale: 0.25}\n"
                        "rope: {type: yarn, order: half, theta: 1e6, factor: 4,\n"
                        "  original_max_length: 64, beta_fast: 16, attention_factor: 1.5,\n"
                        "  short_factor: [1, 2.5], query_scale_beta: 0.1, truncate: false}\n",
               &c);
    assert_true(c.input_norm == 1 && c.projections == RT_PROJECTIONS_OWN);
    assert_int_equal(c.precision, RT_PRECISION_F32);
    assert_true(c.block.q_lora_rank == 48 && c.block.v_head_dim == 16);
    assert_true(c.block.norm_one_plus == 1 && c.block.kv_a_scale == 2.0 &&
                c.block.residual_scale == 0.25);
    assert_int_equal(c.block.rope.type, RT_ROPE_YARN);
    assert_int_equal(c.block.rope.order, RT_ROPE_HALF);
    assert_true(c.block.rope.factor == 4.0 && c.block.rope.beta_fast == 16.0);
    assert_true(c.block.rope.short_factor[1] == 2.5 && c.block.rope.short_factor[2] == 0.0);
    assert_true(c.block.rope.query_scale_beta == 0.1 && c.block.rope.truncate == 0);
}

static void test_ladder(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 2, 4, 8, 16, 20};
    struct rt_config c = {.struct_size = 0};
    parse_good(GEOMETRY "graphs: {batch_sizes: auto, max_batch: 20}\n", &c);
    assert_int_equal(c.batch_size_count, COUNT(sizes));
    assert_memory_equal(c.batch_sizes, sizes, sizeof(sizes));
    for (uint32_t max = 1; max <= RT_MAX_BATCH; max += max < 70 ? 1 : 61) {
        char text[256];
        (void)snprintf(text, sizeof(text), GEOMETRY "graphs: {batch_sizes: auto, max_batch: %u}\n",
                       max);
        parse_good(text, &c);
        assert_int_equal(c.batch_sizes[c.batch_size_count - 1], max);
    }
}

/* Every prefix of a file is refused or read, and never read beyond. */
static void test_truncated(void **state)
{
    (void)state;
    static const char whole[] = "model: a/b.json\ndevice: \"cuda:1\"\n"
                                "graphs: {batch_sizes: [1, 2],\n  query_lens: [1]}\n"
                                "kv_cache:\n  page_size: 16\n  memory: 0.25\n";
    for (size_t bytes = 0; bytes <= strlen(whole); bytes++) {
        char text[sizeof(whole)];
        struct rt_config c = {.struct_size = 0};
        struct rt_error err = {.message = ""};
        memcpy(text, whole, bytes);
        text[bytes] = '\0';
        enum rt_status status = parse(text, &c, &err);
        assert_true(status == RT_OK || (status == RT_ERR_CONFIG && err.message[0]));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bad),           cmocka_unit_test(test_long_list),
        cmocka_unit_test(test_defaults_stay), cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_ladder),        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_block),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
