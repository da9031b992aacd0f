/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/sparse_work.h"
#include "runtime/strided.h"

#include <assert.h>

/* Tensors of a call, those that are written first. What is not there has no bytes. */
struct tensors {
    struct rt_strided all[20];
    uint32_t count;
};

static void add(struct tensors *t, struct rt_strided one)
{
    if (!one.address || !one.bytes)
        return;
    assert(t->count < sizeof(t->all) / sizeof(t->all[0]));
    t->all[t->count++] = one;
}

static void add_flat(struct tensors *t, const char *name, uint64_t address, uint64_t bytes)
{
    add(t, (struct rt_strided){.name = name, .address = address, .bytes = bytes});
}

/* names: of the tensor, and of its strides. */
static void add_heads(struct tensors *t, const char *const names[4],
                      const struct rt_mla_sparse_shape *s, const struct rt_heads_view *view,
                      uint64_t number, uint64_t count)
{
    add(t, (struct rt_strided){.name = names[0],
                               .address = (uintptr_t)view->base,
                               .bytes = number * count,
                               .count = {s->batch, s->query_len, s->heads},
                               .stride = {(uint64_t)view->row_stride * number,
                                          (uint64_t)view->token_stride * number,
                                          (uint64_t)view->head_stride * number},
                               .stride_name = {names[1], names[2], names[3]}});
}

/* names: of counts, indices, kv and block_table. */
static void add_counts(struct tensors *t, const char *const names[4],
                       const struct rt_mla_sparse_shape *s, const struct rt_mla_sparse_keys *k)
{
    const uint64_t counts = (uint64_t)s->batch * (k->counts_by_request ? 1 : s->query_len);
    add_flat(t, names[0], k->counts, counts * sizeof(int32_t));
}

static void add_list(struct tensors *t, const char *const names[4],
                     const struct rt_mla_sparse_shape *s, const struct rt_mla_sparse_keys *k,
                     const struct rt_sparse_view *view, const struct rt_kv_view *kv)
{
    add_counts(t, names, s, k);
    add(t, (struct rt_strided){.name = names[1],
                               .address = k->indices,
                               .bytes = k->topk * sizeof(int32_t),
                               .count = {s->batch * s->query_len},
                               .stride = {(uint64_t)view->token_stride * sizeof(int32_t)}});
    add(t, (struct rt_strided){
               .name = names[2],
               .address = k->kv,
               .bytes = kv->token_bytes,
               .count = {k->pages, k->page_size},
               .stride = {(uint64_t)kv->page_stride_bytes, (uint64_t)kv->token_stride_bytes}});
    add_flat(t, names[3], k->block_table, (uint64_t)s->batch * k->max_blocks * sizeof(int32_t));
}

static const char *const keys[4] = {"keys.counts", "keys.indices", "keys.kv", "keys.block_table"};
static const char *const extra[4] = {"extra.counts", "extra.indices", "extra.kv",
                                     "extra.block_table"};

enum rt_status rt_sparse_schedule_memory(const struct rt_mla_sparse_args *args,
                                         const struct rt_sparse_choice *choice,
                                         struct rt_error *err)
{
    struct tensors t = {.count = 0};
    struct rt_mla_sparse_workspace size = {.struct_size = sizeof(size)};
    rt_sparse_workspace(&args->shape, choice, &size);
    add_flat(&t, "schedule.parts", args->schedule.parts, size.part_bytes);
    add_flat(&t, "schedule.num_splits", args->schedule.num_splits, size.num_splits_bytes);
    add_flat(&t, "lengths", args->lengths, size.lengths_bytes);
    const uint32_t written = t.count;
    add_counts(&t, keys, &args->shape, &args->keys);
    add_counts(&t, extra, &args->shape, &args->extra);
    return rt_strided_check_written("rt_mla_sparse_schedule", t.all, written, t.count, err);
}

enum rt_status rt_sparse_decode_memory(const struct rt_mla_sparse_args *args,
                                       const struct rt_sparse_choice *choice,
                                       const struct rt_sparse_attend_params *p,
                                       struct rt_error *err)
{
    static const char *const q[4] = {"q"}, *const q_rope[4] = {"q_rope"};
    static const char *const out[4] = {"out", "out_row_stride", "out_token_stride",
                                       "out_head_stride"};
    static const char *const lse[4] = {"lse", "lse_row_stride", "lse_token_stride",
                                       "lse_head_stride"};
    static const char op[] = "rt_mla_sparse_decode";
    const struct rt_mla_sparse_shape *s = &args->shape;
    const struct rt_attend_params *a = &p->attend;
    struct tensors t = {.count = 0};
    struct rt_mla_sparse_workspace size = {.struct_size = sizeof(size)};
    rt_sparse_workspace(s, choice, &size);
    add_heads(&t, out, s, &a->out, sizeof(uint16_t), s->d_v);
    add_heads(&t, lse, s, &a->lse, sizeof(float), 1);
    add_flat(&t, "partial_out", args->partial_out, size.partial_out_bytes);
    add_flat(&t, "partial_lse", args->partial_lse, size.partial_lse_bytes);
    const uint32_t written = t.count;
    add_heads(&t, q, s, &a->q, sizeof(uint16_t), args->q_rope ? s->d_v : s->d_qk);
    add_heads(&t, q_rope, s, &a->q_rope, sizeof(uint16_t), s->d_qk - s->d_v);
    add_list(&t, keys, s, &args->keys, &p->keys, &a->kv);
    add_list(&t, extra, s, &args->extra, &p->extra, &p->extra_kv);
    add_flat(&t, "lengths", args->lengths, size.lengths_bytes);
    add_flat(&t, "schedule.parts", args->schedule.parts, size.part_bytes);
    add_flat(&t, "schedule.num_splits", args->schedule.num_splits, size.num_splits_bytes);
    add_flat(&t, "sink", args->sink, s->heads * sizeof(float));
    for (uint32_t i = 0; i < written; i++)
        RT_TRY(rt_strided_check(op, &t.all[i], err));
    return rt_strided_check_written(op, t.all, written, t.count, err);
}
