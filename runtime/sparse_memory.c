/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/operands.h"
#include "runtime/sparse_work.h"

/* names: of the tensor, and of its strides. */
static struct rt_strided heads_of(const char *const names[4], const struct rt_mla_sparse_shape *s,
                                  const struct rt_heads_view *view, uint64_t number, uint64_t count)
{
    return (struct rt_strided){.name = names[0],
                               .address = (uintptr_t)view->base,
                               .bytes = number * count,
                               .count = {s->batch, s->query_len, s->heads},
                               .stride = {(uint64_t)view->row_stride * number,
                                          (uint64_t)view->token_stride * number,
                                          (uint64_t)view->head_stride * number},
                               .stride_name = {names[1], names[2], names[3]}};
}

static void read_flat(struct rt_operands *o, const char *name, uint64_t address, uint64_t bytes)
{
    rt_operands_reads(o, rt_strided_flat(name, address, bytes));
}

static void write_flat(struct rt_operands *o, const char *name, uint64_t address, uint64_t bytes)
{
    rt_operands_writes(o, rt_strided_flat(name, address, bytes));
}

/* names: of counts, indices, kv and block_table. */
static void add_counts(struct rt_operands *o, const char *const names[4],
                       const struct rt_mla_sparse_shape *s, const struct rt_mla_sparse_keys *k)
{
    const uint64_t counts = (uint64_t)s->batch * (k->counts_by_request ? 1 : s->query_len);
    read_flat(o, names[0], k->counts, counts * sizeof(int32_t));
}

static void add_list(struct rt_operands *o, const char *const names[4],
                     const struct rt_mla_sparse_shape *s, const struct rt_mla_sparse_keys *k,
                     const struct rt_sparse_view *view, const struct rt_kv_view *kv)
{
    add_counts(o, names, s, k);
    rt_operands_reads(
        o, (struct rt_strided){.name = names[1],
                               .address = k->indices,
                               .bytes = k->topk * sizeof(int32_t),
                               .count = {s->batch * s->query_len},
                               .stride = {(uint64_t)view->token_stride * sizeof(int32_t)}});
    rt_operands_reads(o, (struct rt_strided){.name = names[2],
                                             .address = k->kv,
                                             .bytes = kv->token_bytes,
                                             .count = {k->pages, k->page_size},
                                             .stride = {(uint64_t)kv->page_stride_bytes,
                                                        (uint64_t)kv->token_stride_bytes}});
    read_flat(o, names[3], k->block_table, (uint64_t)s->batch * k->max_blocks * sizeof(int32_t));
}

/* Scales behind the rows of pages. */
static void add_scales(struct rt_operands *o, const char *name, const struct rt_kv_format *format,
                       const struct rt_kv_view *kv)
{
    if (!kv->base || !format->scales_apart)
        return;
    const uint64_t rows_bytes = kv->page_size * (uint64_t)kv->token_stride_bytes;
    rt_operands_reads(o, (struct rt_strided){.name = name,
                                             .address = (uintptr_t)kv->base + rows_bytes,
                                             .bytes = (uint64_t)kv->page_size * format->scale_bytes,
                                             .count = {kv->pages},
                                             .stride = {(uint64_t)kv->page_stride_bytes}});
}

static const char *const keys[4] = {"keys.counts", "keys.indices", "keys.kv", "keys.block_table"};
static const char *const extra[4] = {"extra.counts", "extra.indices", "extra.kv",
                                     "extra.block_table"};

enum rt_status rt_sparse_schedule_memory(const struct rt_mla_sparse_args *args,
                                         const struct rt_sparse_choice *choice,
                                         struct rt_error *err)
{
    struct rt_operands o = {.count = 0};
    struct rt_mla_sparse_workspace size = {.struct_size = sizeof(size)};
    rt_sparse_workspace(&args->shape, choice, &size);
    write_flat(&o, "schedule.parts", args->schedule.parts, size.part_bytes);
    write_flat(&o, "schedule.num_splits", args->schedule.num_splits, size.num_splits_bytes);
    write_flat(&o, "lengths", args->lengths, size.lengths_bytes);
    add_counts(&o, keys, &args->shape, &args->keys);
    add_counts(&o, extra, &args->shape, &args->extra);
    return rt_operands_check_written("rt_mla_sparse_schedule", &o, err);
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
    const struct rt_mla_sparse_shape *s = &args->shape;
    const struct rt_attend_params *a = &p->attend;
    struct rt_operands o = {.count = 0};
    struct rt_mla_sparse_workspace size = {.struct_size = sizeof(size)};
    rt_sparse_workspace(s, choice, &size);
    rt_operands_writes(&o, heads_of(out, s, &a->out, sizeof(uint16_t), s->d_v));
    rt_operands_writes(&o, heads_of(lse, s, &a->lse, sizeof(float), 1));
    write_flat(&o, "partial_out", args->partial_out, size.partial_out_bytes);
    write_flat(&o, "partial_lse", args->partial_lse, size.partial_lse_bytes);
    rt_operands_reads(&o, heads_of(q, s, &a->q, sizeof(uint16_t), args->q_rope ? s->d_v : s->d_qk));
    rt_operands_reads(&o, heads_of(q_rope, s, &a->q_rope, sizeof(uint16_t), s->d_qk - s->d_v));
    add_list(&o, keys, s, &args->keys, &p->keys, &a->kv);
    add_list(&o, extra, s, &args->extra, &p->extra, &p->extra_kv);
    add_scales(&o, "scales of keys.kv", &choice->kv, &a->kv);
    add_scales(&o, "scales of extra.kv", &choice->kv, &p->extra_kv);
    if (p->counted.min_blocks > 0) { /* instead of a schedule */
        add_counts(&o, keys, s, &args->keys);
        add_counts(&o, extra, s, &args->extra);
    }
    read_flat(&o, "lengths", args->lengths, size.lengths_bytes);
    read_flat(&o, "schedule.parts", args->schedule.parts, size.part_bytes);
    read_flat(&o, "schedule.num_splits", args->schedule.num_splits, size.num_splits_bytes);
    read_flat(&o, "sink", args->sink, s->heads * sizeof(float));
    return rt_operands_check_written("rt_mla_sparse_decode", &o, err);
}
