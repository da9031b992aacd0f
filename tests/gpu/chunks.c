/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks of prompts on the device, with and without rows that decode beside them: replayed they
 * leave what they leave walked on the stream, bit for bit, at one launch each. */
#include "common/bf16.h"
#include "replayrt/layer.h"
#include "replayrt/memory.h"
#include "runtime/runtime.h"
#include "tests/gpu/suite.h"
#include "tools/chance.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { REPLAY, EAGER, SIDES };
#define SEQUENCES 6u
#define LONGEST 700u
#define HIDDEN 256u
#define LOW_RANK 128u

struct rig {
    const struct gpu_suite *suite;
    struct rt_config config;
    rt_runtime *rts[SIDES];
    rt_seq seqs[SIDES][SEQUENCES];
    uint32_t lengths[SEQUENCES];
    rt_weights *weights;
    rt_memory *memory;
    struct chance chance;
    unsigned char *bytes[SIDES];
    uint64_t capacity;
};

static uint32_t below(struct rig *r, uint32_t bound)
{
    return (uint32_t)((chance_draw(&r->chance) >> 32) * bound >> 32);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint64_t rows, columns;
} block[] = {{"q_a_proj.weight", LOW_RANK, HIDDEN},   {"q_a_layernorm.weight", 1, LOW_RANK},
             {"q_b_proj.weight", 16 * 192, LOW_RANK}, {"kv_a_proj_with_mqa.weight", 576, HIDDEN},
             {"kv_a_layernorm.weight", 1, 512},       {"kv_b_proj.weight", 16 * 256, 512},
             {"o_proj.weight", HIDDEN, 16 * 128}};
#define BLOCK (sizeof(block) / sizeof(block[0]))

/* Numbers of both signs up to 1/16, as bf16. */
static void fill(struct rig *r, uint16_t *numbers, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        numbers[i] = rt_float_to_bf16(((float)below(r, 4096) - 2048.0f) / 32768.0f);
}

static bool bind_layer(struct rig *r, uint32_t layer, uint64_t base, uint64_t *at,
                       struct rt_error *err)
{
    for (size_t i = 0; i < BLOCK; i++) {
        const uint64_t count = block[i].rows * block[i].columns;
        const struct rt_weight w = {.struct_size = sizeof(w),
                                    .dtype = RT_DTYPE_BF16,
                                    .address = base + *at,
                                    .rows = block[i].rows,
                                    .columns = block[i].columns};
        uint16_t *numbers = malloc(count * sizeof(*numbers));
        if (!numbers)
            return false;
        fill(r, numbers, count);
        bool good = rt_memory_write(r->memory, *at, numbers, count * 2, err) == RT_OK;
        good = good && rt_weights_bind(r->weights, layer, block[i].name, &w, err) == RT_OK;
        free(numbers);
        if (!good)
            return false;
        *at += (count * 2 + 255) / 256 * 256;
    }
    return true;
}

static bool make_weights(struct rig *r, struct rt_error *err)
{
    uint64_t bytes = 0, base = 0, at = 0;
    for (size_t i = 0; i < BLOCK; i++)
        bytes += (block[i].rows * block[i].columns * 2 + 255) / 256 * 256;
    bytes *= r->config.geometry.layers;
    if (rt_memory_create(r->config.device, bytes, &r->memory, &base, err) != RT_OK ||
        rt_weights_create(&r->config, &r->weights, err) != RT_OK)
        return false;
    for (uint32_t layer = 0; layer < r->config.geometry.layers; layer++)
        if (!bind_layer(r, layer, base, &at, err))
            return false;
    return true;
}

/* A chunk whose attention is absorbed, and with blocks one where it is expanded. */
static void configure(struct rig *r, bool blocks)
{
    struct rt_config *c = &r->config;
    gpu_config(r->suite, c);
    c->max_sequences = SEQUENCES;
    c->max_length = LONGEST;
    c->pages = 80;
    c->chunks[0] = 24;
    c->chunks[1] = r->suite->quick && !blocks ? 48 : 192;
    c->chunk_count = 2;
    c->prefill_rows = 3;
    c->mixed_rows[0] = 4;
    c->mixed_row_count = 1;
    c->context_piece = 256;
    c->layer = blocks;
    c->block.hidden_size = HIDDEN;
    c->block.q_lora_rank = LOW_RANK;
    c->block.qk_nope_head_dim = 128;
    c->block.v_head_dim = 128;
}

static bool open_side(struct rig *r, int side, struct rt_error *err)
{
    const struct rt_create_params p = {
        .struct_size = sizeof(p),
        .config = &r->config,
        .weights = r->weights,
        .like = side == REPLAY ? NULL : r->rts[REPLAY]}; /* or the library may multiply otherwise */
    if (rt_create(&p, &r->rts[side], err) != RT_OK)
        return false;
    for (uint32_t i = 0; i < SEQUENCES; i++)
        if (rt_seq_open(r->rts[side], NULL, &r->seqs[side][i]) != RT_OK)
            return false;
    return true;
}

static bool open_rig(struct rig *r, bool blocks)
{
    struct rt_error err = {.status = RT_OK};
    configure(r, blocks);
    bool good = !blocks || make_weights(r, &err);
    for (int side = 0; side < SIDES && good; side++)
        good = open_side(r, side, &err);
    if (!good) {
        gpu_fail("chunks: %s", err.message);
        return false;
    }
    struct rt_tensor t = {.struct_size = sizeof(t)};
    if (rt_tensor(r->rts[REPLAY], "kv", 0, &t) != RT_OK)
        return false;
    r->capacity = t.bytes;
    for (int side = 0; side < SIDES; side++)
        r->bytes[side] = malloc(r->capacity);
    return r->bytes[REPLAY] && r->bytes[EAGER];
}

static void close_rig(struct rig *r)
{
    for (int side = 0; side < SIDES; side++) {
        rt_destroy(&r->rts[side]);
        free(r->bytes[side]);
    }
    rt_weights_destroy(&r->weights);
    rt_memory_destroy(&r->memory);
}

/* ---- one step -------------------------------------------------------------------------------- */

/* The same numbers into a whole tensor of both. */
static bool feed(struct rig *r, const char *name)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    if (rt_tensor(r->rts[REPLAY], name, 0, &t) != RT_OK || t.bytes > r->capacity)
        return false;
    fill(r, (uint16_t *)(void *)r->bytes[REPLAY], t.bytes / 2);
    for (int side = 0; side < SIDES; side++)
        if (rt_tensor_write(r->rts[side], name, 0, 0, r->bytes[REPLAY], t.bytes) != RT_OK)
            return false;
    return true;
}

static bool same(struct rig *r, const char *name, uint32_t layer)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    if (rt_tensor(r->rts[REPLAY], name, layer, &t) != RT_OK || t.bytes > r->capacity)
        return false;
    for (int side = 0; side < SIDES; side++)
        if (rt_tensor_read(r->rts[side], name, layer, 0, r->bytes[side], t.bytes) != RT_OK)
            return false;
    if (memcmp(r->bytes[REPLAY], r->bytes[EAGER], t.bytes) == 0)
        return true;
    gpu_fail("chunks: %s of layer %u differs between replay and eager", name, layer);
    return false;
}

/* Who has a prompt, who decodes, and how much of each: rows have up to query_len tokens. */
struct choice {
    uint32_t prompts, rows, query_len;
    uint32_t row_counts[4];
    uint32_t who[3 + 4];
    uint32_t counts[3];
    int32_t tokens[3][LONGEST];
};

static void choose_columns(struct rig *r, struct choice *c)
{
    c->query_len = r->config.query_lens[below(r, r->config.query_len_count)];
    for (uint32_t i = 0; i < c->rows; i++)
        c->row_counts[i] = 1 + below(r, c->query_len);
}

/* Sequences from a random one on: first those with prompts. One that is nearly full begins anew,
 * and one whose past has no room in the pieces of a chunk's context beside the others'. */
static bool choose(struct rig *r, struct choice *c)
{
    const uint32_t first = below(r, SEQUENCES);
    uint32_t room = r->config.chunks[r->config.chunk_count - 1];
    uint32_t context = 0;
    c->prompts = 1 + below(r, 3);
    c->rows = below(r, 2) ? below(r, SEQUENCES - c->prompts + 1) % 5 : 0;
    choose_columns(r, c);
    for (uint32_t i = 0; i < c->prompts + c->rows; i++) {
        const uint32_t who = c->who[i] = (first + i) % SEQUENCES;
        context += i < c->prompts ? r->lengths[who] : 0;
        if (r->lengths[who] + room > LONGEST || context > LONGEST) {
            context -= i < c->prompts ? r->lengths[who] : 0;
            r->lengths[who] = 0;
            for (int side = 0; side < SIDES; side++)
                if (rt_seq_rewind(r->rts[side], r->seqs[side][who], 0) != RT_OK)
                    return false;
        }
        if (i >= c->prompts)
            continue;
        const uint32_t most = room - (c->prompts - 1 - i);
        c->counts[i] = below(r, 3) ? 1 + below(r, most) : most;
        room -= c->counts[i];
        for (uint32_t t = 0; t < c->counts[i]; t++)
            c->tokens[i][t] = (int32_t)below(r, 1000);
    }
    return true;
}

static bool launch(struct rig *r, int side, const struct choice *c)
{
    struct rt_prompt prompts[3];
    rt_seq rows[4];
    int32_t tokens[4 * RT_MAX_QUERY_LEN];
    for (int32_t i = 0; i < 4 * RT_MAX_QUERY_LEN; i++)
        tokens[i] = 1 + i;
    for (uint32_t i = 0; i < c->prompts; i++)
        prompts[i] = (struct rt_prompt){
            .seq = r->seqs[side][c->who[i]], .tokens = c->tokens[i], .count = c->counts[i]};
    for (uint32_t i = 0; i < c->rows; i++)
        rows[i] = r->seqs[side][c->who[c->prompts + i]];
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = side == EAGER ? RT_STEP_EAGER : 0,
                                     .rows = c->rows,
                                     .query_len = c->query_len,
                                     .seqs = rows,
                                     .tokens = tokens,
                                     .prompts = prompts,
                                     .prompt_count = c->prompts,
                                     .query_lens = c->row_counts};
    rt_runtime *rt = r->rts[side];
    const uint64_t calls = rt->driver.probe.calls;
    uint64_t ticket = 0;
    if (rt_step(rt, &p, &ticket) != RT_OK) {
        gpu_fail("chunks: %s", rt_last_error(rt)->message);
        return false;
    }
    if (side == REPLAY && rt->driver.probe.calls != calls + 1) {
        gpu_fail("chunks: %" PRIu64 " driver calls of a step", rt->driver.probe.calls - calls);
        return false;
    }
    return rt_wait(rt, ticket, UINT64_MAX) == RT_OK;
}

static bool one_step(struct rig *r)
{
    struct choice c = {.prompts = 0};
    bool good = choose(r, &c);
    good = good && (r->config.layer ? feed(r, "hidden") : feed(r, "q") && feed(r, "latent"));
    for (int side = 0; side < SIDES && good; side++)
        good = launch(r, side, &c);
    for (uint32_t i = 0; i < c.prompts + c.rows; i++)
        r->lengths[c.who[i]] += i < c.prompts ? c.counts[i] : c.row_counts[i - c.prompts];
    if (r->config.layer)
        return good && same(r, "hidden", 0);
    return good && same(r, "out", 0) && same(r, "lse", 0);
}

static bool agree(const struct gpu_suite *suite, bool blocks)
{
    struct rig r = {.suite = suite, .chance = chance_of(blocks ? 2 : 1)};
    bool good = open_rig(&r, blocks);
    const uint32_t steps = suite->quick ? 2 : 40;
    for (uint32_t i = 0; i < steps && good; i++)
        good = one_step(&r);
    for (uint32_t layer = 0; layer < r.config.geometry.layers && good; layer++)
        good = same(&r, "kv", layer);
    close_rig(&r);
    return good;
}

enum gpu_outcome gpu_chunks(const struct gpu_suite *suite)
{
    if (!agree(suite, false))
        return gpu_fail("chunks of attention alone");
    return agree(suite, true) ? GPU_PASSED : gpu_fail("chunks of blocks");
}
