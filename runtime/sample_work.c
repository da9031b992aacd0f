/* SPDX-License-Identifier: Apache-2.0 */
/* The three launches of rt_sample, and how its workspace is cut. */
#include "runtime/model_work.h"

#include "runtime/model_memory.h"
#include "runtime/ops_check.h"

/* The caller's lines are what kernels read. */
#define SAME_PLACE(mine, theirs)                                                                   \
    RT_STATIC_ASSERT(offsetof(struct rt_sampling, mine) ==                                         \
                             offsetof(struct rt_sample_line, theirs) &&                            \
                         sizeof(((struct rt_sampling *)0)->mine) ==                                \
                             sizeof(((struct rt_sample_line *)0)->theirs),                         \
                     "sampling." #mine)
SAME_PLACE(temperature, temperature);
SAME_PLACE(top_p, top_p);
SAME_PLACE(top_k, top_k);
SAME_PLACE(seed, seed);
SAME_PLACE(stops, stop);
RT_STATIC_ASSERT(sizeof(struct rt_sampling) == sizeof(struct rt_sample_line), "sampling");

#define PART_ALIGN 256u

/* Where in the workspace what lies. */
struct layout {
    uint64_t best, sums, bin_weights, bin_counts;
    uint64_t bytes;
};

static uint64_t reserve(struct layout *l, uint64_t count, uint64_t element_bytes)
{
    const uint64_t at = l->bytes;
    l->bytes = rt_align_up_u64(at + count * element_bytes, PART_ALIGN);
    return at;
}

/* In numbers that rt_sample takes nothing overflows. */
static struct layout lay_out(uint32_t rows, uint32_t query_len, uint32_t vocab)
{
    const uint64_t columns = (uint64_t)rows * query_len;
    struct layout l = {.bytes = 0};
    l.best = reserve(&l, columns * rt_sample_pieces(vocab), sizeof(uint64_t));
    l.sums = reserve(&l, columns * rt_sample_pieces(vocab), sizeof(uint64_t));
    l.bin_weights = reserve(&l, columns * RT_SAMPLE_BINS, sizeof(uint64_t));
    l.bin_counts = reserve(&l, columns * RT_SAMPLE_BINS, sizeof(uint32_t));
    return l;
}

enum rt_status rt_ops_sample_bytes(uint32_t rows, uint32_t query_len, uint32_t vocab,
                                   uint64_t *bytes, struct rt_error *err)
{
    static const char op[] = "rt_sample_workspace";
    RT_TRY(rt_ops_check_count(op, "rows", rows, 1, RT_MAX_BATCH, err));
    RT_TRY(rt_ops_check_count(op, "query_len", query_len, 1, RT_MAX_QUERY_LEN, err));
    RT_TRY(rt_ops_check_count(op, "vocab", vocab, 1, RT_SAMPLE_MOST_VOCAB, err));
    *bytes = lay_out(rows, query_len, vocab).bytes;
    return RT_OK;
}

static const char op[] = "rt_sample";

static enum rt_status check_addresses(const struct rt_sample_args *args, struct rt_error *err)
{
    const struct rt_named_pointer pointers[] = {
        {"rows.lengths", args->rows.lengths, RT_ALIGN_INT32},
        {"rows.positions", args->rows.positions, RT_ALIGN_INT32},
        {"logits", args->logits, RT_ALIGN_FLOAT32},
        {"tokens", args->tokens, RT_ALIGN_INT32},
        {"accepted", args->accepted, RT_ALIGN_INT32},
        {"sampled", args->sampled, RT_ALIGN_INT32},
        {"lines", args->lines, RT_ALIGN_VECTOR},
        {"workspace", args->workspace, RT_WORKSPACE_ALIGN}};
    const struct rt_named_pointer accept[] = {{"accept", args->accept, RT_ALIGN_INT32}};
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    return args->accept ? RT_CHECK_POINTERS(op, accept, err) : RT_OK;
}

static enum rt_status take_params(const struct rt_sample_args *args, struct rt_sample_params *p,
                                  struct rt_error *err)
{
    const struct layout l = lay_out(args->rows.rows, args->rows.query_len, args->vocab);
    *p = (struct rt_sample_params){
        .logits = rt_ops_pointer(args->logits),
        .accept = rt_ops_pointer(args->accept),
        .tokens = rt_ops_pointer(args->tokens),
        .accepted = rt_ops_pointer(args->accepted),
        .sampled = rt_ops_pointer(args->sampled),
        .lines = rt_ops_pointer(args->lines),
        .best = rt_ops_pointer(args->workspace + l.best),
        .sums = rt_ops_pointer(args->workspace + l.sums),
        .bin_weights = rt_ops_pointer(args->workspace + l.bin_weights),
        .bin_counts = rt_ops_pointer(args->workspace + l.bin_counts),
        .vocab = args->vocab,
    };
    RT_TRY(rt_ops_token_rows(op, &args->rows, &p->rows, err));
    RT_TRY(rt_ops_factor(op, "scale", args->scale, &p->scale, err));
    RT_TRY(RT_STRIDE(op, args, token_stride, args->vocab, 1, &p->token_stride, err));
    return RT_STRIDE(op, args, row_stride, args->rows.query_len * p->token_stride, 1,
                     &p->row_stride, err);
}

static enum rt_status put_together(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                   enum rt_op_id id, const struct rt_sample_params *p,
                                   struct rt_work *out, struct rt_error *err)
{
    const struct rt_op_request request = {.caps = caps};
    struct rt_variant variant;
    RT_TRY(rt_op_resolve(id, &request, &variant, err));
    return rt_op_build(k, &variant, p, sizeof(*p), out, err);
}

enum rt_status rt_ops_sample_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                  const struct rt_sample_args *args, struct rt_sample_work *out,
                                  struct rt_error *err)
{
    struct rt_sample_params p;
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(rt_ops_check_count(op, "vocab", args->vocab, 1, RT_SAMPLE_MOST_VOCAB, err));
    RT_TRY(take_params(args, &p, err));
    RT_TRY(check_addresses(args, err));
    const uint64_t bytes = lay_out(args->rows.rows, args->rows.query_len, args->vocab).bytes;
    RT_TRY(rt_ops_sample_memory(args, &p, bytes, err));
    RT_TRY(put_together(k, caps, RT_OP_SAMPLE_BEST, &p, &out->all[0], err));
    RT_TRY(put_together(k, caps, RT_OP_SAMPLE_TALLY, &p, &out->all[1], err));
    return put_together(k, caps, RT_OP_SAMPLE, &p, &out->all[2], err);
}
