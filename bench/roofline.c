/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/roofline.h"

#include "common/kv_format.h"

#include <math.h>

#define LATENCY_BELOW_US 10.0
#define BF16_BYTES 2.0

/* Keys that all query tokens have together. */
static double pairs_of(const struct shape *s, uint32_t topk)
{
    double pairs = 0;
    for (uint32_t row = 0; row < s->batch; row++)
        for (uint32_t unseen = 0; unseen < s->query_len; unseen++)
            pairs += topk ? fmin(topk, s->lengths[row] - (double)unseen) : s->lengths[row];
    return pairs;
}

struct roofline roofline_of(const struct shape *s, uint32_t topk, enum rt_kv_layout layout)
{
    struct rt_kv_format kv;
    const double d_v = s->kv_lora_rank, d_qk = d_v + s->qk_rope_head_dim;
    const double query_rows = (double)s->query_len * s->heads, pairs = pairs_of(s, topk);
    const double keys = topk ? pairs : pairs / s->query_len;
    const uint32_t latent = s->kv_lora_rank, elements = latent + s->qk_rope_head_dim;
    const double token_bytes = rt_kv_format_make(layout, RT_PRECISION_BF16, elements, latent, &kv)
                                   ? kv.token_bytes
                                   : BF16_BYTES * d_qk;
    struct roofline r = {
        .flop = 2 * (d_qk + d_v) * pairs * s->heads,
        .bytes = keys * token_bytes + BF16_BYTES * s->batch * query_rows * (d_qk + d_v),
    };
    double flop_us = r.flop / ROOFLINE_TFLOPS / 1e6, bytes_us = r.bytes / ROOFLINE_GBPS / 1e3;
    r.floor_us = s->floor_us > 0 ? s->floor_us : fmax(flop_us, bytes_us);
    r.of = r.floor_us < LATENCY_BELOW_US ? ROOFLINE_LATENCY
           : flop_us >= bytes_us         ? ROOFLINE_COMPUTE
                                         : ROOFLINE_MEMORY;
    return r;
}

const char *roofline_class_name(enum roofline_class of)
{
    static const char *const names[ROOFLINE_CLASSES] = {"latency", "memory", "compute"};
    return names[of];
}
