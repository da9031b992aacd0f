/* SPDX-License-Identifier: Apache-2.0 */
/* What opens and closes a step: step_begin, step_end, page_copy. */
#include "kernels/ops/op_build.h"

/* Everything that step_begin reads of a record lies inside it. */
static enum rt_status check_record(const struct rt_step_begin_params *p, struct rt_error *err)
{
    uint64_t rows_end = p->rows_offset + (uint64_t)p->bucket * sizeof(struct rt_record_row);
    uint64_t tokens_end = p->tokens_offset + (uint64_t)p->bucket * p->query_len * sizeof(int32_t);
    RT_REQUIRE(p->record_bytes % 64 == 0 && p->ring_depth >= 1, err, RT_ERR_INVALID,
               "%u records of %u bytes: at least 1, of a multiple of 64 bytes", p->ring_depth,
               p->record_bytes);
    RT_REQUIRE(p->rows_offset >= sizeof(struct rt_record) && rows_end <= p->record_bytes &&
                   tokens_end <= p->record_bytes && p->ops_offset <= p->record_bytes,
               err, RT_ERR_INVALID,
               "rows at %u, tokens at %u, ops at %u do not fit a record of %u bytes for %u rows",
               p->rows_offset, p->tokens_offset, p->ops_offset, p->record_bytes, p->bucket);
    RT_REQUIRE((p->rows_offset | p->tokens_offset | p->ops_offset) % 16 == 0, err, RT_ERR_INVALID,
               "rows at %u, tokens at %u, ops at %u: not all multiples of 16", p->rows_offset,
               p->tokens_offset, p->ops_offset);
    return RT_OK;
}

/* Every column behind the first has a draft, or none has. */
static enum rt_status check_drafts(uint32_t columns, uint32_t query_len, struct rt_error *err)
{
    RT_REQUIRE(columns < RT_MAX_QUERY_LEN && (!columns || columns + 1 >= query_len), err,
               RT_ERR_INVALID, "%u drafts a row for a query length of %u: 0, or %u to %u", columns,
               query_len, query_len - 1, RT_MAX_QUERY_LEN - 1);
    return RT_OK;
}

enum rt_status rt_step_begin_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_step_begin_params *p = params;
    if (p->bucket > 0)
        RT_TRY(rt_check_rows(p->bucket, p->query_len, err));
    RT_TRY(check_record(p, err));
    RT_TRY(check_drafts(p->draft_columns, p->query_len, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), 1, 1, RT_STEP_BEGIN_THREADS, out, err);
}

enum rt_status rt_chunk_rows_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                   const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_chunk_rows_params *p = params;
    const uint64_t bucket = (uint64_t)p->prefill_rows + p->decode_rows;
    const uint64_t words = bucket * p->query_len + p->prefill_rows + p->chunk;
    RT_REQUIRE(p->query_len >= 1 && p->query_len <= RT_MAX_QUERY_LEN, err, RT_ERR_INVALID,
               "query length %u, not 1 to %u", p->query_len, RT_MAX_QUERY_LEN);
    RT_REQUIRE(
        p->prefill_rows >= 1 && p->prefill_rows <= RT_MAX_PREFILL_ROWS &&
            p->decode_rows <= RT_MAX_MIXED_ROWS && p->chunk >= 1 && p->chunk <= RT_MAX_CHUNK,
        err, RT_ERR_INVALID,
        "%u tokens of %u prompts, and %u rows that decode: not 1 to %u of 1 to %u, and up to "
        "%u",
        p->chunk, p->prefill_rows, p->decode_rows, RT_MAX_CHUNK, RT_MAX_PREFILL_ROWS,
        RT_MAX_MIXED_ROWS);
    RT_REQUIRE(p->ring_depth >= 1 && p->record_bytes % 64 == 0 && p->tokens_offset % 16 == 0 &&
                   p->tokens_offset + words * sizeof(int32_t) <= p->record_bytes,
               err, RT_ERR_INVALID,
               "%u records of %u bytes, tokens at %u: at least 1, of a multiple of 64 bytes with "
               "room for %llu tokens from a multiple of 16 on",
               p->ring_depth, p->record_bytes, p->tokens_offset, (unsigned long long)words);
    RT_REQUIRE(p->pieces == 0 || p->piece >= 1, err, RT_ERR_INVALID, "%u pieces of 0 tokens",
               p->pieces);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), 1, 1, RT_CHUNK_ROWS_THREADS, out, err);
}

enum rt_status rt_step_end_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                 const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_step_end_params *p = params;
    uint64_t bytes = sizeof(struct rt_completion) + p->bucket * sizeof(struct rt_row_outcome);
    uint64_t end = p->tokens_offset + (uint64_t)p->bucket * p->query_len * sizeof(int32_t);
    if (p->bucket > 0)
        RT_TRY(rt_check_rows(p->bucket, p->query_len, err));
    RT_REQUIRE(
        p->ring_depth >= 1 && p->completion_bytes % 64 == 0 && bytes <= p->completion_bytes, err,
        RT_ERR_INVALID,
        "%u completions of %u bytes: at least 1, of a multiple of 64 bytes, %llu for %u rows",
        p->ring_depth, p->completion_bytes, (unsigned long long)bytes, p->bucket);
    RT_REQUIRE(
        p->tokens_offset % 4 == 0 && p->tokens_offset >= bytes && end <= p->completion_bytes, err,
        RT_ERR_INVALID,
        "tokens at %u of a completion of %u bytes: from %llu on and a multiple of 4, with room "
        "for %u rows of %u",
        p->tokens_offset, p->completion_bytes, (unsigned long long)bytes, p->bucket, p->query_len);
    RT_TRY(check_drafts(p->draft_columns, p->query_len, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), 1, 1, RT_STEP_END_THREADS, out, err);
}

enum rt_status rt_page_copy_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                  const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_page_copy_params *p = params;
    RT_REQUIRE(p->layers >= 1, err, RT_ERR_INVALID, "0 layers to copy pages in");
    RT_TRY(rt_check_kv(&p->kv, err));
    RT_TRY(rt_check_stride("kv layer stride in bytes", p->layer_stride_bytes, 1, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), p->layers, RT_MAX_PAGE_COPIES,
                          RT_PAGE_COPY_THREADS, out, err);
}
