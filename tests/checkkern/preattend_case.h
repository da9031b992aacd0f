/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_PREATTEND_CASE_H
#define RT_TESTS_CHECKKERN_PREATTEND_CASE_H

/* One problem for preattend: its buffers, filled with what is unkind, and its parameters. */
#include "kernels/abi/preattend.h"
#include "tests/checkkern/harness.h"

#define CK_PREATTEND_POISON 0xffffu /* a NaN that no reference makes: what nobody has written */
#define CK_PREATTEND_DATA 5u        /* buffers that the kernel writes, the first of them all */

struct ck_preattend {
    uint32_t rows, q_len, heads, p, l, r, width; /* width of q_a */
    uint32_t page_size, row_base;
    bool q_a, kv_a, q;            /* which parts there are */
    bool table, factors, weights; /* RoPE, factors of q, norms */
    bool half_order, slots, strided, early;
    bool placed; /* keys go elsewhere than to their positions */
    bool ragged; /* rows have a length, of any number of tokens */
    float eps, offset, scale;
};

struct ck_preattend_buffers {
    struct ck_buffer q_a, kv_a, q_in, q_out, kv;
    struct ck_buffer q_weight, kv_weight, turns, factors, table, slot, position, place, length,
        ctrl;
};
#define CK_PREATTEND_BUFFERS (sizeof(struct ck_preattend_buffers) / sizeof(struct ck_buffer))

/* Those that are written, in order, in f32. */
struct ck_preattend_truth {
    float *data[CK_PREATTEND_DATA];
};

struct ck_buffer *ck_preattend_nth(struct ck_preattend_buffers *b, size_t i);

/* A DeepSeek-V3 block with 16 of its heads. */
struct ck_preattend ck_preattend_whole(uint32_t rows, uint32_t q_len);
/* Everything drawn, geometry too: the i-th case. */
struct ck_preattend ck_preattend_draw(struct ck_random *random, uint32_t i);
/* A case's inputs, on the reference's side. */
struct ck_preattend_buffers ck_preattend_fill(struct ck *ck, struct ck_random *random,
                                              const struct ck_preattend *c);
void ck_preattend_upload(struct ck *ck, struct ck_preattend_buffers *b);
void ck_preattend_free(struct ck *ck, struct ck_preattend_buffers *b);

/* Of the bf16 side, or of the truth, whose numbers are as far apart. */
struct rt_preattend_params ck_preattend_params(const struct ck_preattend *c,
                                               struct ck_preattend_buffers *b, enum ck_side side,
                                               const struct ck_preattend_truth *truth);

#endif
