/* SPDX-License-Identifier: Apache-2.0 */
/* prefill_attend on time: products of what is seen, a second. */
#include "tests/checkkern/prefill_case.h"

#include "common/bf16.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LAUNCHES 4
#define PATTERN 65537u /* numbers that repeat: odd, so that no two heads are alike */

struct shape {
    uint32_t rows, tokens, context, heads, nope, rope, v;
};

static const struct shape shapes[] = {
    {1, 512, 0, 16, 128, 64, 128},   {1, 2048, 0, 16, 128, 64, 128},
    {1, 8192, 0, 16, 128, 64, 128},  {1, 512, 0, 128, 128, 64, 128},
    {1, 2048, 0, 128, 128, 64, 128}, {1, 8192, 0, 128, 128, 64, 128},
    {16, 512, 0, 16, 128, 64, 128},  {1, 2048, 6144, 16, 128, 64, 128},
    {1, 8192, 0, 20, 192, 64, 256},  {1, 8192, 0, 32, 64, 64, 128},
    {1, 8192, 0, 40, 64, 32, 64},
};

/* Both products of every pair of query and key that is seen. */
static double operations(const struct shape *s)
{
    const double n = s->tokens, pairs = n * s->context + n * (n + 1) / 2;
    return 2.0 * s->rows * s->heads * pairs * (s->nope + s->rope + s->v);
}

static void repeat(struct ck *ck, struct ck_random *random, const struct ck_buffer *b)
{
    const uint64_t bytes = PATTERN * sizeof(uint16_t);
    uint16_t *pattern = ck_new(ck, bytes);
    unsigned char *to = ck_at(b, CK_REF);
    for (uint32_t i = 0; i < PATTERN; i++)
        pattern[i] = rt_float_to_bf16((float)ck_random_normal(random));
    for (uint64_t at = 0; at < b->bytes; at += bytes)
        memcpy(to + at, pattern, b->bytes - at < bytes ? b->bytes - at : bytes);
    ck_upload(ck, b);
    free(pattern);
}

static void time_variant(struct ck *ck, const struct shape *s, const struct prefill_case *c,
                         const struct prefill_buffers *b, enum rt_backend backend)
{
    const struct rt_prefill_attend_params p = prefill_params(c, b, CK_DEVICE);
    struct rt_launch launches[LAUNCHES];
    struct rt_variant variant;
    struct rt_error err = {0};
    if (!prefill_variant(ck, c, backend, &variant))
        return;
    for (int i = 0; i < LAUNCHES; i++)
        ck_must(ck, ck_build_variant(ck, &variant, &p, sizeof(p), &launches[i], &err), &err);
    const double ns = ck_time_ns(ck, launches, LAUNCHES);
    printf("prefill    %2u x %5u tokens after %5u, %3u heads of %3u + %2u/%3u, %-7s %10.2f us, "
           "%6.1f TFLOPS\n",
           s->rows, s->tokens, s->context, s->heads, s->nope, s->rope, s->v,
           rt_backend_name(variant.backend), ns / 1e3, operations(s) / ns / 1e3);
}

static void time_shape(struct ck *ck, struct ck_random *random, const struct shape *s)
{
    struct prefill_case c = {.rows = s->rows,
                             .heads = s->heads,
                             .nope_dim = s->nope,
                             .rope_dim = s->rope,
                             .v_dim = s->v,
                             .layout = PREFILL_MODEL,
                             .causal = true};
    for (uint32_t r = 0; r < s->rows; r++) {
        c.queries[r] = s->tokens;
        c.context[r] = s->context;
    }
    struct prefill_buffers b = prefill_make(ck, random, &c);
    struct ck_buffer *inputs[] = {&b.q, &b.q_rope, &b.k, &b.k_rope};
    for (size_t i = 0; i < sizeof(inputs) / sizeof(inputs[0]); i++)
        repeat(ck, random, inputs[i]);
    time_variant(ck, s, &c, &b, RT_BACKEND_SM90);
    if (s->tokens <= 2048)
        time_variant(ck, s, &c, &b, RT_BACKEND_GENERIC);
    prefill_free(ck, &b);
}

void ck_prefill_bench(struct ck *ck)
{
    struct ck_random random = {.state = ck->seed};
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        time_shape(ck, &random, &shapes[i]);
}
