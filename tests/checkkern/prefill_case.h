/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_PREFILL_CASE_H
#define RT_TESTS_CHECKKERN_PREFILL_CASE_H

/* Ragged rows of queries and keys, how their tensors lie, and what is in them. */
#include "kernels/abi/prefill.h"
#include "tests/checkkern/harness.h"

enum prefill_layout {
    PREFILL_PACKED,     /* a vector's parts together; tokens, then heads */
    PREFILL_MODEL,      /* as projections leave them: k and v of a head together, one k_rope */
    PREFILL_HEADS_FIRST /* heads, then tokens, with gaps */
};

struct prefill_case {
    uint32_t rows, heads, nope_dim, rope_dim, v_dim;
    uint32_t queries[RT_PREFILL_MOST_ROWS], context[RT_PREFILL_MOST_ROWS];
    int32_t short_of;       /* keys less than queries, of every row */
    uint32_t front, behind; /* tokens and keys in front of the first row, and behind the last */
    enum prefill_layout layout;
    bool causal, lse_base2, sink;
    int poison_row; /* of NaN; -1: none */
    float spread;   /* of q: how large the logits are; 0: nothing is filled in */
};

struct prefill_buffers {
    struct ck_buffer q, q_rope, k, k_rope, v, out, lse, q_first, k_first, turn, sink;
};

/* Everything but the rows' own vectors is NaN. */
struct prefill_buffers prefill_make(struct ck *ck, struct ck_random *random,
                                    const struct prefill_case *c);
void prefill_free(struct ck *ck, struct prefill_buffers *b);
struct rt_prefill_attend_params prefill_params(const struct prefill_case *c,
                                               const struct prefill_buffers *b, enum ck_side side);

/* Tokens, or keys, of all tensors. */
uint32_t prefill_tokens(const struct prefill_case *c);
uint32_t prefill_keys(const struct prefill_case *c);
uint32_t prefill_row_keys(const struct prefill_case *c, uint32_t row);

/* False: the device has no such kernel, or none for the dimensions. */
bool prefill_variant(struct ck *ck, const struct prefill_case *c, enum rt_backend backend,
                     struct rt_variant *out);

#endif
