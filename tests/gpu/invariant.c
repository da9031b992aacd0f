/* SPDX-License-Identifier: Apache-2.0 */
/* Batch-invariant steps: a sequence has the same bits alone, in every bucket, in every place and
 * beside any neighbours, replayed and eager. */
#include "tests/gpu/suite.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define D_QK 576u
#define D_V 512u
#define MOST_HEADS 128u
#define MOST_ROWS 40u
#define LATENT_BYTES (D_QK * 2ull)

/* The kernel of 16 heads; and of 128, both of them: 40 rows share their keys. */
static const struct shape {
    uint32_t heads, rows; /* of the largest bucket */
    uint32_t steps, quick_steps;
} shapes[] = {{16, 16, 1300, 70}, {128, MOST_ROWS, 700, 12}};

struct side {
    const struct shape *shape;
    rt_runtime *rt;
    rt_seq seqs[MOST_ROWS]; /* the first is the one that is looked at */
};

static uint64_t out_bytes(const struct shape *shape)
{
    return shape->heads * D_V * 2ull;
}

static uint64_t next(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    return *state = x;
}

/* bf16 between 2^-12 and 2^-4, of either sign. */
static void draw(uint64_t *state, uint16_t *to, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t x = next(state) * 0x2545F4914F6CDD1Dull;
        to[i] = (uint16_t)((x >> 3 & 0x8000) | (115 + (x >> 20) % 8) << 7 | (x >> 40 & 0x7f));
    }
}

static bool open_side(const struct gpu_suite *suite, struct side *s, uint32_t bucket)
{
    struct rt_config config;
    struct rt_error error = {0};
    gpu_config(suite, &config);
    config.invariant = 1;
    config.geometry.heads = s->shape->heads;
    config.max_sequences = s->shape->rows;
    config.pages = 450;
    config.batch_sizes[config.batch_size_count - 1] = s->shape->rows;
    if (bucket) {
        config.batch_sizes[0] = bucket;
        config.batch_size_count = 1;
    }
    const struct rt_create_params params = {.struct_size = sizeof(params), .config = &config};
    if (rt_create(&params, &s->rt, &error) != RT_OK) {
        gpu_fail("%s", error.message);
        return false;
    }
    for (uint32_t i = 0; i < s->shape->rows; i++)
        if (rt_seq_open(s->rt, NULL, &s->seqs[i]) != RT_OK)
            return false;
    return true;
}

/* A step of `rows` rows with the sequence at `place`, its inputs from `own`, others' from `noise`.
 */
static bool step(struct side *s, uint32_t rows, uint32_t place, const uint16_t *own_q,
                 const uint16_t *own_latent, uint64_t *noise, bool eager, uint16_t *out)
{
    static uint16_t q[MOST_HEADS * D_QK], latent[D_QK];
    const uint64_t q_bytes = s->shape->heads * D_QK * 2ull, bytes = out_bytes(s->shape);
    rt_seq order[MOST_ROWS];
    for (uint32_t r = 0, other = 1; r < rows; r++) {
        const bool own = r == place;
        order[r] = own ? s->seqs[0] : s->seqs[other++];
        draw(noise, q, s->shape->heads * D_QK);
        draw(noise, latent, D_QK);
        if (rt_tensor_write(s->rt, "q", 0, r * q_bytes, own ? own_q : q, q_bytes) != RT_OK ||
            rt_tensor_write(s->rt, "latent", 0, r * LATENT_BYTES, own ? own_latent : latent,
                            LATENT_BYTES) != RT_OK)
            return false;
    }
    const struct rt_step_params params = {.struct_size = sizeof(params),
                                          .rows = rows,
                                          .query_len = 1,
                                          .seqs = order,
                                          .flags = eager ? RT_STEP_EAGER : 0};
    uint64_t ticket;
    return rt_step(s->rt, &params, &ticket) == RT_OK &&
           rt_wait(s->rt, ticket, UINT64_MAX) == RT_OK &&
           rt_tensor_read(s->rt, "out", 0, place * bytes, out, bytes) == RT_OK;
}

static enum gpu_outcome run(struct side *alone, struct side *among, uint32_t steps)
{
    static uint16_t q[MOST_HEADS * D_QK], latent[D_QK], a[MOST_HEADS * D_V], b[MOST_HEADS * D_V];
    const struct shape *shape = alone->shape;
    uint64_t own = 5, noise[2] = {7, 9}, dice = 11;
    for (uint32_t i = 0; i < steps; i++) {
        const uint32_t rows = 1 + (uint32_t)(next(&dice) % shape->rows);
        const uint32_t place = (uint32_t)(next(&dice) % rows);
        draw(&own, q, shape->heads * D_QK);
        draw(&own, latent, D_QK);
        if (!step(alone, 1, 0, q, latent, &noise[0], false, a))
            return gpu_fail("alone: %s", rt_last_error(alone->rt)->message);
        if (!step(among, rows, place, q, latent, &noise[1], i % 3 == 0, b))
            return gpu_fail("among others: %s", rt_last_error(among->rt)->message);
        if (memcmp(a, b, out_bytes(shape)) != 0)
            return gpu_fail(
                "%u heads, step %u: a sequence of %u tokens as row %u of %u has other bits than "
                "alone",
                shape->heads, i, i + 1, place, rows);
    }
    return GPU_PASSED;
}

enum gpu_outcome gpu_invariant(const struct gpu_suite *suite)
{
    enum gpu_outcome outcome = GPU_PASSED;
    /* 513 tokens of 16 heads are nine leaves, more than one group of them. */
    for (size_t i = 0; outcome == GPU_PASSED && i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct side alone = {.shape = &shapes[i]}, among = {.shape = &shapes[i]};
        outcome = GPU_FAILED;
        if (open_side(suite, &alone, 1) && open_side(suite, &among, 0))
            outcome = run(&alone, &among, suite->quick ? shapes[i].quick_steps : shapes[i].steps);
        rt_destroy(&alone.rt);
        rt_destroy(&among.rt);
    }
    return outcome;
}
