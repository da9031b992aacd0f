/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_OPS_OP_EXPERTS_H
#define RT_KERNELS_OPS_OP_EXPERTS_H

/* What the files of the experts' operators know of each other. */
#include "kernels/ops/op_build.h"

/* Everything that kernels read 16 bytes at a time. */
enum rt_status rt_experts_check_up_alignment(const struct rt_experts_up_params *p,
                                             struct rt_error *err);
enum rt_status rt_experts_check_down_alignment(const struct rt_experts_down_params *p,
                                               struct rt_error *err);

/* Whether it is a product at all: tokens, experts and rows within their limits. */
enum rt_status rt_experts_check_down(const struct rt_experts_down_params *p, struct rt_error *err);

/* Whether the tensor core kernels for many tokens take the request, of either operator; `choose`
 * makes the variant, whose reason is there already and is added to. */
bool rt_experts_many_takes(const struct rt_op_request *request, enum rt_op_id op);
enum rt_status rt_experts_many_choose(const struct rt_op_request *request, struct rt_variant *out,
                                      struct rt_error *err);

/* Whether that is what was chosen. */
bool rt_experts_many_is(const struct rt_variant *v);
enum rt_status rt_experts_many_build_up(const struct rt_kernels *k, const struct rt_variant *v,
                                        const struct rt_experts_up_params *p, struct rt_launch *out,
                                        struct rt_error *err);
enum rt_status rt_experts_many_build_down(const struct rt_kernels *k, const struct rt_variant *v,
                                          const struct rt_experts_down_params *p,
                                          struct rt_launch *out, struct rt_error *err);

/* What down writes two numbers at once to, besides what is read. */
enum rt_status rt_experts_many_check_down(const struct rt_experts_down_params *p,
                                          struct rt_error *err);

/* A block a tile of RT_EXPERTS_MANY_TILE_PAIRS pairs by `tile_rows` of `rows` rows, of as many as
 * there can be; `shared` of the shared experts are products of their own. */
enum rt_status rt_experts_many_blocks(const struct rt_experts_view *work, uint32_t shared,
                                      uint32_t rows, uint32_t tile_rows, uint32_t *blocks,
                                      struct rt_error *err);

#endif
