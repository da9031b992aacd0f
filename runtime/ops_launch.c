/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/ops_launch.h"

#include "runtime/runtime.h"

#include <inttypes.h>
#include <math.h>

static enum rt_status check_shape(const struct rt_mla_shape *shape, struct rt_error *err)
{
    RT_REQUIRE_STRUCT(shape, err);
    RT_REQUIRE(shape->batch >= 1 && shape->batch <= RT_MAX_BATCH, err, RT_ERR_INVALID,
               "batch %u is not 1..%d", shape->batch, RT_MAX_BATCH);
    RT_REQUIRE(shape->query_len >= 1 && shape->query_len <= RT_MAX_QUERY_LEN, err, RT_ERR_INVALID,
               "query_len %u is not 1..%d", shape->query_len, RT_MAX_QUERY_LEN);
    RT_REQUIRE(shape->heads >= 1 && shape->heads <= RT_MAX_HEADS, err, RT_ERR_INVALID,
               "heads %u is not 1..%d", shape->heads, RT_MAX_HEADS);
    RT_REQUIRE(shape->page_size == 16 || shape->page_size == 32 || shape->page_size == 64 ||
                   shape->page_size == 128,
               err, RT_ERR_INVALID, "page_size %u is not 16, 32, 64 or 128", shape->page_size);
    RT_REQUIRE(shape->max_blocks >= 1 && shape->max_blocks <= RT_MAX_LENGTH / 16, err,
               RT_ERR_INVALID, "max_blocks %u is not 1..%d", shape->max_blocks, RT_MAX_LENGTH / 16);
    RT_REQUIRE(shape->pages >= 1 && shape->pages <= INT32_MAX, err, RT_ERR_INVALID,
               "pages %u is not 1..%d", shape->pages, INT32_MAX);
    RT_REQUIRE(shape->causal <= 1, err, RT_ERR_INVALID, "causal %u is not 0 or 1", shape->causal);
    return RT_OK;
}

enum rt_status rt_ops_choose(const struct rt_device_caps *caps, const struct rt_mla_shape *s,
                             struct rt_attend_choice *out, struct rt_error *err)
{
    RT_TRY(check_shape(s, err));
    const struct rt_attend_request request = {
        .heads = s->heads,
        .d_qk = s->d_qk,
        .d_v = s->d_v,
        .q_len = s->query_len,
        .page_size = s->page_size,
        .kv_layout = RT_KV_BF16,
        .backend = s->backend,
    };
    return rt_kernels_resolve_attend(caps, &request, out, err);
}

void rt_ops_workspace(const struct rt_mla_shape *shape, const struct rt_attend_choice *choice,
                      struct rt_mla_workspace *out)
{
    uint32_t query_rows = shape->query_len * shape->heads;
    uint64_t rows = (uint64_t)rt_max_split_slots(choice->parts) * query_rows;
    out->parts = choice->parts;
    out->tile_bytes = choice->parts * sizeof(struct rt_tile_record);
    out->num_splits_bytes = ((uint64_t)shape->batch + 1) * sizeof(int32_t);
    out->partial_out_bytes = rows * shape->d_v * sizeof(float);
    out->partial_lse_bytes = rows * sizeof(float);
    out->kernel = choice->entry;
}

/* Every pointer of an args struct, by name, for one check. */
struct named_pointer {
    const char *name;
    uint64_t address;
};

static enum rt_status check_pointers(const char *op, const struct named_pointer *pointers,
                                     uint32_t count, struct rt_error *err)
{
    for (uint32_t i = 0; i < count; i++) {
        RT_REQUIRE(pointers[i].address, err, RT_ERR_INVALID, "%s: %s is null", op,
                   pointers[i].name);
        RT_REQUIRE(pointers[i].address % 16 == 0, err, RT_ERR_INVALID,
                   "%s: %s = 0x%" PRIx64 " is not 16-byte aligned", op, pointers[i].name,
                   pointers[i].address);
    }
    return RT_OK;
}
#define CHECK_POINTERS(op, list, err)                                                              \
    check_pointers((op), (list), (uint32_t)(sizeof(list) / sizeof((list)[0])), (err))

/* A given stride, or the packed one for 0. Kernels copy 16 bytes at a time: multiples of 8. */
static enum rt_status stride(const char *name, int64_t given, int64_t packed, int64_t multiple,
                             int64_t *out, struct rt_error *err)
{
    RT_REQUIRE(given >= 0 && given % multiple == 0, err, RT_ERR_INVALID,
               "%s = %" PRId64 " is not a non-negative multiple of %" PRId64, name, given,
               multiple);
    *out = given ? given : packed;
    return RT_OK;
}
#define STRIDE(args, name, packed, multiple, out, err)                                             \
    stride(#name, (args)->name, (packed), (multiple), &(out)->name, (err))

static void *device(uint64_t address)
{
    return (void *)(uintptr_t)address;
}

enum rt_status rt_ops_schedule_launch(const struct rt_kernels *k,
                                      const struct rt_attend_choice *choice,
                                      const struct rt_mla_schedule_args *args,
                                      struct rt_launch *out, struct rt_error *err)
{
    const struct named_pointer pointers[] = {{"lengths", args->lengths},
                                             {"plan.tiles", args->plan.tiles},
                                             {"plan.num_splits", args->plan.num_splits}};
    RT_TRY(CHECK_POINTERS("rt_mla_schedule", pointers, err));
    const struct rt_schedule_params p = {
        .row_length = device(args->lengths),
        .tiles = device(args->plan.tiles),
        .num_splits = device(args->plan.num_splits),
        .rows = args->shape.batch,
        .parts = choice->parts,
        .overhead_blocks = choice->overhead_blocks,
        .min_blocks = choice->min_blocks,
    };
    return rt_schedule_launch(k, &p, out, err);
}

enum rt_status rt_ops_append_launch(const struct rt_kernels *k,
                                    const struct rt_mla_append_args *args, struct rt_launch *out,
                                    struct rt_error *err)
{
    const struct rt_mla_shape *s = &args->shape;
    const struct named_pointer pointers[] = {{"latent", args->latent},
                                             {"kv", args->kv},
                                             {"block_table", args->block_table},
                                             {"positions", args->positions}};
    RT_TRY(CHECK_POINTERS("rt_mla_append", pointers, err));
    struct rt_mla_append_params p = {
        .latent = device(args->latent),
        .kv = device(args->kv),
        .block_table = device(args->block_table),
        .row_position = device(args->positions),
        .rows = s->batch,
        .q_len = s->query_len,
        .d_qk = s->d_qk,
        .page_size = s->page_size,
        .max_blocks = s->max_blocks,
        .pages = s->pages,
    };
    RT_TRY(STRIDE(args, latent_row_stride, (int64_t)s->query_len * s->d_qk, 8, &p, err));
    RT_TRY(STRIDE(args, latent_token_stride, s->d_qk, 8, &p, err));
    RT_TRY(STRIDE(args, kv_page_stride, (int64_t)s->page_size * s->d_qk, 8, &p, err));
    RT_TRY(STRIDE(args, kv_token_stride, s->d_qk, 8, &p, err));
    return rt_mla_append_launch(k, &p, out, err);
}

static enum rt_status check_decode(const struct rt_mla_decode_args *args, struct rt_error *err)
{
    RT_REQUIRE(isfinite(args->softmax_scale) && args->softmax_scale > 0, err, RT_ERR_INVALID,
               "rt_mla_decode: softmax_scale %g is not a positive number; it is "
               "(qk_nope_head_dim + qk_rope_head_dim)^-0.5, times the model's YaRN factor",
               (double)args->softmax_scale);
    const struct named_pointer pointers[] = {{"q", args->q},
                                             {"kv", args->kv},
                                             {"block_table", args->block_table},
                                             {"lengths", args->lengths},
                                             {"plan.tiles", args->plan.tiles},
                                             {"plan.num_splits", args->plan.num_splits},
                                             {"partial_out", args->partial_out},
                                             {"partial_lse", args->partial_lse},
                                             {"out", args->out},
                                             {"lse", args->lse}};
    return CHECK_POINTERS("rt_mla_decode", pointers, err);
}

enum rt_status rt_ops_attend_params(const struct rt_mla_decode_args *args,
                                    const struct rt_attend_choice *choice,
                                    struct rt_mla_attend_params *p, struct rt_error *err)
{
    RT_TRY(check_decode(args, err));
    const struct rt_mla_shape *s = &args->shape;
    *p = (struct rt_mla_attend_params){
        .q = device(args->q),
        .kv = device(args->kv),
        .block_table = device(args->block_table),
        .row_length = device(args->lengths),
        .tiles = device(args->plan.tiles),
        .num_splits = device(args->plan.num_splits),
        .out = device(args->out),
        .lse = device(args->lse),
        .partial_out = device(args->partial_out),
        .partial_lse = device(args->partial_lse),
        .scale = args->softmax_scale,
        .rows = s->batch,
        .q_len = s->query_len,
        .heads = s->heads,
        .d_qk = s->d_qk,
        .d_v = s->d_v,
        .page_size = s->page_size,
        .max_blocks = s->max_blocks,
        .parts = choice->parts,
        .causal = s->causal,
        .pages = s->pages,
    };
    int64_t heads = s->heads, q_len = s->query_len;
    RT_TRY(STRIDE(args, q_row_stride, q_len * heads * s->d_qk, 8, p, err));
    RT_TRY(STRIDE(args, q_token_stride, heads * s->d_qk, 8, p, err));
    RT_TRY(STRIDE(args, q_head_stride, s->d_qk, 8, p, err));
    RT_TRY(STRIDE(args, out_row_stride, q_len * heads * s->d_v, 8, p, err));
    RT_TRY(STRIDE(args, out_token_stride, heads * s->d_v, 8, p, err));
    RT_TRY(STRIDE(args, out_head_stride, s->d_v, 8, p, err));
    RT_TRY(STRIDE(args, lse_row_stride, q_len * heads, 1, p, err));
    RT_TRY(STRIDE(args, lse_token_stride, heads, 1, p, err));
    RT_TRY(STRIDE(args, lse_head_stride, 1, 1, p, err));
    RT_TRY(STRIDE(args, kv_page_stride, (int64_t)s->page_size * s->d_qk, 8, p, err));
    return STRIDE(args, kv_token_stride, s->d_qk, 8, p, err);
}

static struct rt_mla_reduce_params reduce_params(const struct rt_mla_attend_params *a)
{
    return (struct rt_mla_reduce_params){
        .partial_out = a->partial_out,
        .partial_lse = a->partial_lse,
        .num_splits = a->num_splits,
        .row_length = a->row_length,
        .out = a->out,
        .lse = a->lse,
        .out_row_stride = a->out_row_stride,
        .out_token_stride = a->out_token_stride,
        .out_head_stride = a->out_head_stride,
        .lse_row_stride = a->lse_row_stride,
        .lse_token_stride = a->lse_token_stride,
        .lse_head_stride = a->lse_head_stride,
        .rows = a->rows,
        .q_len = a->q_len,
        .heads = a->heads,
        .d_v = a->d_v,
    };
}

enum rt_status rt_ops_decode_launches(const struct rt_kernels *k,
                                      const struct rt_attend_choice *choice,
                                      const struct rt_mla_attend_params *attend,
                                      struct rt_decode_launches *out, struct rt_error *err)
{
    const struct rt_mla_reduce_params reduce = reduce_params(attend);
    RT_TRY(rt_mla_attend_launch(k, choice, attend, &out->attend, err));
    return rt_mla_reduce_launch(k, choice, &reduce, &out->reduce, err);
}
