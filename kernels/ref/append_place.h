/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_APPEND_PLACE_H
#define RT_KERNELS_REF_APPEND_PLACE_H

/* Where append_general and append_quant put a token, and where they take it from. */
#include "kernels/abi/append.h"

struct rt_ref_place {
    int64_t page, row;
};

/* Of token `token` of row `row`; false: nowhere. */
bool rt_ref_append_place(const struct rt_append_general_params *p, uint32_t row, uint32_t token,
                         struct rt_ref_place *out);

static inline const uint16_t *rt_ref_token_at(const struct rt_tokens_view *view, int64_t row,
                                              uint32_t token)
{
    return view->base + row * view->row_stride + token * view->token_stride;
}

#endif
