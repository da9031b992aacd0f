/* SPDX-License-Identifier: Apache-2.0 */
/* The three launches of sample. Lines, and columns of a step, are y; pieces of the logits are x. */
#include "kernels/ops/op_build.h"

#include "common/math.h"

static enum rt_status check(const struct rt_sample_params *p, struct rt_error *err)
{
    RT_TRY(rt_check_rows(p->rows.count, p->rows.q_len, err));
    RT_REQUIRE(p->vocab >= 1 && p->vocab <= RT_SAMPLE_MOST_VOCAB, err, RT_ERR_INVALID,
               "a vocabulary of %u, not 1 to %u", p->vocab, RT_SAMPLE_MOST_VOCAB);
    const struct {
        const char *name;
        const void *at;
        uint32_t align;
    } pointers[] = {{"logits", p->logits, 4},
                    {"sampling lines", p->lines, 8},
                    {"sample's best", p->best, 8},
                    {"sample's sums", p->sums, 8},
                    {"sample's bin_weights", p->bin_weights, 8},
                    {"sample's bin_counts", p->bin_counts, 4}};
    for (size_t i = 0; i < sizeof(pointers) / sizeof(pointers[0]); i++)
        RT_REQUIRE((uintptr_t)pointers[i].at % pointers[i].align == 0, err, RT_ERR_INVALID,
                   "%s is at %p, not %u-byte aligned", pointers[i].name, pointers[i].at,
                   pointers[i].align);
    return RT_OK;
}

enum rt_status rt_sample_pieces_build(const struct rt_kernels *k, const struct rt_variant *variant,
                                      const void *params, struct rt_launch *out,
                                      struct rt_error *err)
{
    const struct rt_sample_params *p = params;
    RT_TRY(check(p, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), rt_sample_pieces(p->vocab),
                          p->rows.count * p->rows.q_len, RT_SAMPLE_PIECE_THREADS, out, err);
}

enum rt_status rt_sample_build(const struct rt_kernels *k, const struct rt_variant *variant,
                               const void *params, struct rt_launch *out, struct rt_error *err)
{
    const struct rt_sample_params *p = params;
    RT_TRY(check(p, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), p->rows.count, 1, RT_SAMPLE_THREADS,
                          out, err);
}
