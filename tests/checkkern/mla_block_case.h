/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_MLA_BLOCK_CASE_H
#define RT_TESTS_CHECKKERN_MLA_BLOCK_CASE_H

/* Inputs of mla_block, on both sides. */
#include "kernels/abi/mla_block.h"
#include "tests/checkkern/harness.h"

enum ck_block_kind {
    CK_BLOCK_PLAIN,
    CK_BLOCK_NAN,   /* a row's hidden has a NaN, which is that row's alone */
    CK_BLOCK_SHARP, /* scores so large that one token takes all */
    CK_BLOCK_ZERO,  /* hidden is 0, so all tokens weigh the same */
    CK_BLOCK_LOST   /* the table has pages that there are not, and slots that are padding */
};

enum ck_block_flags {
    CK_BLOCK_NORM = 1,     /* input_norm */
    CK_BLOCK_RESIDUAL = 2, /* with a norm */
    CK_BLOCK_FIRST = 4,    /* the residual is hidden */
    CK_BLOCK_ROPE = 8,
    CK_BLOCK_EARLY = 16,
    CK_BLOCK_SLOTS = 32,
    CK_BLOCK_STRIDED = 64, /* weights whose rows lie further apart */
    CK_BLOCK_HALVES = 128, /* RoPE of pairs (i, i + 32) */
    CK_BLOCK_BIASES = 256,
    CK_BLOCK_FACTORS = 512 /* of queries */
};

struct ck_block_case {
    uint32_t rows, q_len, heads;
    uint32_t hidden_size, q_rank, page_size;
    enum ck_block_kind kind;
    uint32_t flags;
    int32_t length[RT_MLA_BLOCK_MOST_VECTORS]; /* with the new tokens; 0: padding */
    /* Of q_len, tokens that a row does not have: padding behind its length. */
    int32_t absent[RT_MLA_BLOCK_MOST_VECTORS];
};

static inline bool ck_block_has(const struct ck_block_case *c, uint32_t flag)
{
    return (c->flags & flag) > 0;
}

/* In the order of rt_mla_block_params; what a kernel writes comes first. */
struct ck_block_buffers {
    struct ck_buffer hidden, residual, kv, exchange, stale;
    struct ck_buffer length, position, slot, table, q, kv_a, q_b, kv_b, o;
    struct ck_buffer q_bias, kv_a_bias, q_b_bias, o_bias, factors;
    struct ck_buffer input_norm, q_a_norm, kv_a_norm, turns;
};
#define CK_BLOCK_WRITTEN 5u
#define CK_BLOCK_BUFFERS (sizeof(struct ck_block_buffers) / sizeof(struct ck_buffer))

/* Both sides alike. Weights and cache are of so many layers, one behind the other. */
struct ck_block_buffers ck_block_make(struct ck *ck, struct ck_random *random,
                                      const struct ck_block_case *c, uint32_t layers);
void ck_block_free(struct ck *ck, struct ck_block_buffers *b);
struct ck_buffer *ck_block_nth(struct ck_block_buffers *b, size_t i);

struct rt_mla_block_params ck_block_params(const struct ck_block_case *c,
                                           const struct ck_block_buffers *b, enum ck_side side);

/* False: the device has no kernel of it. The host device has the references, or the kernels'
 * source, as if it were one that has. */
bool ck_block_resolve(struct ck *ck, const struct ck_block_case *c,
                      const struct rt_mla_block_params *p, struct rt_variant *out);

/* Line of the table that row r has. */
uint32_t ck_block_line(const struct ck_block_case *c, uint32_t r);

#endif
