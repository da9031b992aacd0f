/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_TAKE_H
#define RT_KERNELS_ABI_TAKE_H

#include "kernels/abi/views.h"

/* A block a row. */
#define RT_TAKE_THREADS 256u

/* Of out, and so blocks. */
#define RT_TAKE_MOST_ROWS (1u << 24)

/*
 * take: out[i] = x[index[i]], bit for bit; zeros where index[i] is no row of x. A row may be taken
 * more than once. How the last token of every prompt reaches the LM head: the products behind it
 * are of as many vectors as there are prompts.
 */
struct rt_take_params {
    const void *x;        /* [x_rows, width] bf16, 16-byte aligned like out */
    const int32_t *index; /* [rows] */
    void *out;            /* [rows, width] bf16 */
    /* From row to row, in elements, multiples of 8. */
    int64_t x_stride, out_stride;
    uint32_t rows, x_rows;
    uint32_t width;  /* a multiple of 8 */
    uint32_t is_f32; /* host device alone: x and out are f32 */
};
#define RT_TAKE_PARAMS_ADDRESSES(type, at)                                                         \
    (RT_ADDRESS(type, at x) | RT_ADDRESS(type, at index) | RT_ADDRESS(type, at out))
RT_STATIC_ASSERT(sizeof(struct rt_take_params) == 56, "take ABI");

#endif
