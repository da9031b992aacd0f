/* SPDX-License-Identifier: Apache-2.0 */
/* Sparse attention: what its lists are held to, beside what schedule and attend ask of all. */
#include "kernels/abi/quant_sm90.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/sparse_sm90.h"
#include "kernels/counted_view.h"
#include "kernels/ops/op_build.h"

static enum rt_status check_list(const char *name, const struct rt_sparse_view *view,
                                 uint32_t q_len, struct rt_error *err)
{
    if (!view->index)
        return RT_OK;
    RT_REQUIRE(view->topk >= 1 && view->topk <= RT_MAX_LENGTH, err, RT_ERR_INVALID,
               "%s of %u entries, not 1 to %d", name, view->topk, RT_MAX_LENGTH);
    RT_REQUIRE(view->token_stride >= view->topk, err, RT_ERR_INVALID,
               "%s of %u entries are %lld apart", name, view->topk, (long long)view->token_stride);
    RT_REQUIRE(view->count_tokens == 1 || view->count_tokens == q_len, err, RT_ERR_INVALID,
               "%s: %u tokens have a count together, not 1 or the row's %u", name,
               view->count_tokens, q_len);
    return RT_OK;
}

static enum rt_status check_lists(const struct rt_sparse_view *keys,
                                  const struct rt_sparse_view *extra, uint32_t tokens,
                                  uint32_t q_len, struct rt_error *err)
{
    RT_REQUIRE(q_len >= 1 && q_len <= RT_MAX_QUERY_LEN && tokens % q_len == 0, err, RT_ERR_INVALID,
               "%u tokens in rows of %u: rows of 1 to %u", tokens, q_len, RT_MAX_QUERY_LEN);
    RT_REQUIRE(keys->index, err, RT_ERR_INVALID, "a sparse attention without a list of keys");
    RT_TRY(check_list("keys", keys, q_len, err));
    return check_list("extra keys", extra, q_len, err);
}

enum rt_status rt_sparse_schedule_build(const struct rt_kernels *k,
                                        const struct rt_variant *variant, const void *params,
                                        struct rt_launch *out, struct rt_error *err)
{
    const struct rt_sparse_schedule_params *p = params;
    RT_TRY(rt_check_schedule(&p->schedule, err));
    RT_TRY(check_lists(&p->keys, &p->extra, p->schedule.rows.count, p->q_len, err));
    RT_REQUIRE(p->schedule.rows.length == p->length, err, RT_ERR_INVALID,
               "lengths are written at %p and read at %p", (const void *)p->length,
               (const void *)p->schedule.rows.length);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), 1, 1, RT_SCHEDULE_THREADS, out, err);
}

/* What both caches are, besides aligned. */
static enum rt_status check_cache(const struct rt_kv_view *kv, struct rt_error *err)
{
    RT_TRY(rt_check_kv(kv, err));
    RT_REQUIRE(kv->page_size >= 1, err, RT_ERR_INVALID, "pages of 0 tokens to take keys of");
    return RT_OK;
}

/* Whether tokens, of whatever row, are evenly spaced; then the rows' stride becomes the tokens'. */
static bool space_tokens(struct rt_heads_view *view, uint32_t q_len)
{
    if (q_len == 1)
        return true;
    const bool even = view->row_stride == q_len * view->token_stride;
    view->row_stride = view->token_stride;
    return even;
}

/* The queries that the copy engine reads, as kernels/abi/sparse_sm90.h has them. */
static enum rt_status make_maps(const struct rt_kernels *k, const struct rt_variant *v,
                                const struct rt_sparse_attend_params *p, uint32_t *even,
                                struct rt_tensor_map *map, struct rt_tensor_map *rest_map,
                                struct rt_error *err)
{
    struct rt_attend_params tokens = p->attend;
    const bool q_even = space_tokens(&tokens.q, p->q_len);
    const bool rope_even = !tokens.q_rope.base || space_tokens(&tokens.q_rope, p->q_len);
    if (!q_even || !rope_even || !k->driver)
        return RT_OK;
    return rt_attend_query_maps(k, v, &tokens, even, map, rest_map, err);
}

/* Reduce has such a kernel for the few blocks that begin beside attention's alone. Of e4m3, whose
 * walk asks for its part once a segment, it gains little: docs/notebook.md. */
bool rt_attend_counts(const struct rt_variant *attend, uint32_t tokens)
{
    return attend->op == RT_OP_SPARSE_ATTEND && attend->backend == RT_BACKEND_SM90 &&
           attend->tile_rows <= RT_REDUCE_BESIDE_ROWS && tokens <= RT_COUNTED_ROWS &&
           attend->parts <= RT_COUNTED_PARTS;
}

bool rt_attend_is_whole(const struct rt_variant *attend, uint32_t tokens, uint32_t topk)
{
    return attend->whole_entry && tokens >= attend->whole_least && tokens <= attend->whole_most &&
           topk <= attend->whole_topk && rt_attend_counts(attend, tokens);
}

const char *rt_sparse_attend_entry(const struct rt_variant *attend, uint32_t tokens, uint32_t topk)
{
    return rt_attend_is_whole(attend, tokens, topk) ? attend->whole_entry : attend->entry;
}

static struct rt_count_view count_view(const struct rt_sparse_view *list)
{
    return (struct rt_count_view){.count = list->index ? list->count : NULL,
                                  .topk = list->index ? list->topk : 0,
                                  .count_tokens = list->count_tokens};
}

struct rt_counted_view rt_counted_view_make(const struct rt_variant *attend,
                                            const struct rt_sparse_view *keys,
                                            const struct rt_sparse_view *extra,
                                            const int32_t *row_length, uint32_t q_len)
{
    return (struct rt_counted_view){.keys = count_view(keys),
                                    .extra = count_view(extra),
                                    .row_length = row_length,
                                    .q_len = q_len,
                                    .min_blocks = attend->min_blocks,
                                    .overhead_blocks = attend->overhead_blocks};
}

static bool same_counts(const struct rt_count_view *a, const struct rt_sparse_view *list)
{
    const struct rt_count_view b = count_view(list);
    return a->count == b.count && a->topk == b.topk && a->count_tokens == b.count_tokens;
}

static enum rt_status check_counted(const struct rt_variant *variant,
                                    const struct rt_sparse_attend_params *p, struct rt_error *err)
{
    const struct rt_counted_view *counted = &p->counted;
    if (counted->min_blocks == 0)
        return RT_OK;
    RT_REQUIRE(rt_attend_counts(variant, p->attend.rows.count) && !p->attend.early, err,
               RT_ERR_INTERNAL, "%s has no plan of its own for %u query tokens in %u parts",
               variant->entry, p->attend.rows.count, variant->parts);
    RT_REQUIRE(counted->min_blocks <= RT_COUNTED_CONSTANT &&
                   counted->overhead_blocks <= RT_COUNTED_CONSTANT && counted->q_len == p->q_len &&
                   same_counts(&counted->keys, &p->keys) && same_counts(&counted->extra, &p->extra),
               err, RT_ERR_INTERNAL, "%s counts other lists than it reads", variant->entry);
    return RT_OK;
}

static enum rt_status check_attend(const struct rt_variant *variant,
                                   const struct rt_sparse_attend_params *p, struct rt_error *err)
{
    const struct rt_attend_params *attend = &p->attend;
    RT_TRY(rt_check_attend(variant, attend, err));
    RT_REQUIRE(attend->rows.q_len == 1 && !attend->rows.slot && !attend->causal, err,
               RT_ERR_INTERNAL, "rows of sparse attention are tokens, and lists say what they see");
    RT_TRY(check_lists(&p->keys, &p->extra, attend->rows.count, p->q_len, err));
    RT_TRY(check_counted(variant, p, err));
    RT_TRY(check_cache(&attend->kv, err));
    return p->extra.index ? check_cache(&p->extra_kv, err) : RT_OK;
}

static bool is_whole(const struct rt_variant *variant, const struct rt_sparse_attend_params *p)
{
    return p->counted.min_blocks > 0 &&
           rt_attend_is_whole(variant, p->attend.rows.count,
                              p->counted.keys.topk + p->counted.extra.topk);
}

/* A row by a cluster. */
static enum rt_status launch_whole(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const struct rt_sparse_sm90_params *p, struct rt_launch *out,
                                   struct rt_error *err)
{
    RT_TRY(rt_launch_grid(k, variant->whole_entry, p, sizeof(*p),
                          RT_SPARSE_WHOLE_BLOCKS * variant->m_tiles, p->sparse.attend.rows.count,
                          variant->threads, out, err));
    out->cluster_x = RT_SPARSE_WHOLE_BLOCKS;
    out->own_cluster = true;
    return RT_OK;
}

enum rt_status rt_sparse_attend_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err)
{
    const struct rt_sparse_attend_params *p = params;
    RT_TRY(check_attend(variant, p, err));
    if (variant->backend != RT_BACKEND_SM90)
        return rt_launch_grid(k, variant->entry, p, sizeof(*p), variant->m_tiles, variant->parts,
                              variant->threads, out, err);
    struct rt_sparse_sm90_params sm90 = {.sparse = *p};
    RT_TRY(make_maps(k, variant, p, &sm90.q_even, &sm90.q_map, &sm90.q_rest_map, err));
    if (is_whole(variant, p))
        return launch_whole(k, variant, &sm90, out, err);
    return rt_launch_grid(k, variant->entry, &sm90, sizeof(sm90), variant->m_tiles, variant->parts,
                          variant->threads, out, err);
}

enum rt_status rt_sparse_attend_quant_build(const struct rt_kernels *k,
                                            const struct rt_variant *variant, const void *params,
                                            struct rt_launch *out, struct rt_error *err)
{
    const struct rt_sparse_attend_quant_params *p = params;
    const struct rt_attend_params *attend = &p->sparse.attend;
    RT_TRY(check_attend(variant, &p->sparse, err));
    RT_TRY(rt_check_quant(&p->quant, attend->d_qk, &attend->kv, err));
    if (p->sparse.extra.index)
        RT_TRY(rt_check_quant(&p->extra_quant, attend->d_qk, &p->sparse.extra_kv, err));
    if (variant->backend != RT_BACKEND_SM90)
        return rt_launch_grid(k, variant->entry, p, sizeof(*p), variant->m_tiles, variant->parts,
                              variant->threads, out, err);
    RT_TRY(rt_check_quant_sm90(&p->quant, attend, err));
    if (p->sparse.extra.index)
        RT_TRY(rt_check_quant_sm90(&p->extra_quant, attend, err));
    struct rt_sparse_quant_sm90_params sm90 = {
        .sparse = p->sparse, .quant = p->quant, .extra_quant = p->extra_quant};
    RT_TRY(make_maps(k, variant, &p->sparse, &sm90.q_even, &sm90.q_map, &sm90.q_rest_map, err));
    return rt_launch_grid(k, variant->entry, &sm90, sizeof(sm90), variant->m_tiles, variant->parts,
                          variant->threads, out, err);
}
