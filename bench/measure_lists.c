/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure_lists.h"

#include "common/math.h"
#include "kernels/counted_view.h"

#include <stdlib.h>

/* ---- what serves it ------------------------------------------------------------------------- */

enum rt_status rt_lists_choose(struct rt_rig *rig, enum rt_rig_side side, enum rt_backend backend)
{
    const struct rt_measure_attention_params *p = rig->params;
    rig->lists.shape = (struct rt_mla_sparse_shape){.struct_size = sizeof(rig->lists.shape),
                                                    .batch = p->batch,
                                                    .query_len = p->query_len,
                                                    .heads = p->heads,
                                                    .d_qk = p->d_qk,
                                                    .d_v = p->d_v,
                                                    .backend = backend,
                                                    .kv_layout = p->kv_layout};
    RT_REQUIRE(p->topk <= RT_MAX_LENGTH, &rig->m->error, RT_ERR_INVALID,
               "rt_measure_attention: topk %u is not 0..%d", p->topk, RT_MAX_LENGTH);
    return rt_sparse_choose("rt_mla_sparse_decode", &rig->m->driver.caps, &rig->lists.shape,
                            &rig->lists.choices[side], &rig->m->error);
}

/* ---- what the lists hold -------------------------------------------------------------------- */

static uint32_t tokens_of(const struct rt_rig *rig)
{
    return rig->params->batch * rig->params->query_len;
}

uint64_t rt_lists_index_bytes(const struct rt_rig *rig)
{
    return (uint64_t)tokens_of(rig) * rig->params->topk * sizeof(int32_t);
}

uint64_t rt_lists_count_bytes(const struct rt_rig *rig)
{
    return tokens_of(rig) * sizeof(int32_t);
}

static uint32_t divisor_of_both(uint32_t a, uint32_t b)
{
    while (b) {
        const uint32_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* A walk over all `seen` keys in steps of about 0.618 of them: it meets each once. */
static void scatter(int32_t *list, uint32_t count, uint32_t seen, uint32_t token)
{
    uint32_t step = (uint32_t)((uint64_t)seen * 618 / 1000) | 1;
    while (divisor_of_both(step, seen) != 1)
        step++;
    for (uint32_t i = 0; i < count; i++)
        list[i] = (int32_t)(((uint64_t)i * step + token) % seen);
}

enum rt_status rt_lists_fill(const struct rt_rig *rig)
{
    const struct rt_measure_attention_params *p = rig->params;
    struct rt_measure *m = rig->m;
    struct rt_driver *d = &m->driver;
    int32_t *index = calloc(tokens_of(rig), p->topk * sizeof(*index));
    int32_t *count = malloc(rig->lists.counts.bytes);
    enum rt_status status = RT_OK;
    if (!index || !count) {
        status = rt_fail(&m->error, RT_ERR_NOMEM, "out of host memory for %u lists of %u",
                         tokens_of(rig), p->topk);
        goto fail;
    }
    for (uint32_t t = 0; t < tokens_of(rig); t++) {
        const uint32_t unseen = p->query_len - 1 - t % p->query_len;
        const uint32_t seen = (uint32_t)p->lengths[t / p->query_len] - unseen;
        count[t] = (int32_t)rt_min_u32(seen, p->topk);
        scatter(index + (size_t)t * p->topk, (uint32_t)count[t], seen, t);
    }
    RT_TRY_GOTO(
        RT_DRV(d, &m->error, copy_in,
               (d, rig->lists.indices.address, index, rig->lists.indices.bytes, m->stream)));
    RT_TRY_GOTO(RT_DRV(d, &m->error, copy_in,
                       (d, rig->lists.counts.address, count, rig->lists.counts.bytes, m->stream)));
    status = RT_DRV(d, &m->error, stream_sync, (d, m->stream));
fail:
    free(count);
    free(index);
    return status;
}

/* ---- launches ------------------------------------------------------------------------------- */

bool rt_lists_have_schedule(const struct rt_rig *rig, enum rt_rig_side side)
{
    return !rt_attend_counts(&rig->lists.choices[side].attend, tokens_of(rig));
}

static struct rt_mla_sparse_args args_of(const struct rt_rig *rig, enum rt_rig_side side,
                                         uint32_t layer)
{
    const struct rt_mla_shape *s = &rig->shape;
    const struct rt_rig_buffer *to = rig->outputs[side];
    return (struct rt_mla_sparse_args){
        .struct_size = sizeof(struct rt_mla_sparse_args),
        .softmax_scale = rig->params->softmax_scale,
        .kv_scale = rt_rig_kv_scale(rig),
        .shape = rig->lists.shape,
        .keys = {.struct_size = sizeof(struct rt_mla_sparse_keys),
                 .topk = rig->params->topk,
                 .entries = RT_SPARSE_POSITIONS,
                 .page_size = s->page_size,
                 .pages = s->pages,
                 .max_blocks = s->max_blocks,
                 .kv = rig->pool.address + layer * rig->layer_bytes,
                 .indices = rig->lists.indices.address,
                 .counts = rig->lists.counts.address,
                 .block_table = rig->table.address},
        .schedule = {.parts = to[RT_RIG_PARTS].address,
                     .num_splits = to[RT_RIG_NUM_SPLITS].address},
        .lengths = rig->lists.lengths[side].address,
        .partial_out = to[RT_RIG_PARTIAL_OUT].address,
        .partial_lse = to[RT_RIG_PARTIAL_LSE].address,
        .q = rig->q.address,
        .out = to[RT_RIG_OUT].address,
        .lse = to[RT_RIG_LSE].address,
    };
}

enum rt_status rt_lists_schedule_work(const struct rt_rig *rig, enum rt_rig_side side,
                                      struct rt_work *out)
{
    const struct rt_mla_sparse_args args = args_of(rig, side, 0);
    return rt_sparse_schedule_work(&rig->m->kernels, &rig->lists.choices[side], &args, out,
                                   &rig->m->error);
}

enum rt_status rt_lists_decode_work(const struct rt_rig *rig, enum rt_rig_side side, uint32_t layer,
                                    struct rt_sparse_decode_work *out)
{
    struct rt_mla_sparse_args args = args_of(rig, side, layer);
    if (!rt_lists_have_schedule(rig, side)) {
        args.schedule = (struct rt_mla_schedule_buffers){0};
        args.lengths = 0;
    }
    return rt_sparse_decode_work(&rig->m->kernels, &rig->lists.choices[side], &args, out,
                                 &rig->m->error);
}
