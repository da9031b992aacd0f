/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_MODEL_MEMORY_H
#define RT_RUNTIME_MODEL_MEMORY_H

/*
 * The memory of replayrt/model_ops.h: what is written shares no byte with anything else of the
 * call, and vectors of a tensor lie apart. Else RT_ERR_INVALID, with both tensors' names. For
 * arguments that were checked, with the parameters that were made of them.
 */
#include "kernels/abi/embed.h"
#include "kernels/abi/experts.h"
#include "kernels/abi/moe_block.h"
#include "kernels/abi/sample.h"
#include "kernels/abi/take.h"
#include "runtime/model_work.h"
#include "runtime/operands.h"

enum rt_status rt_ops_embed_memory(const struct rt_embed_args *args,
                                   const struct rt_embed_params *p, struct rt_error *err);
enum rt_status rt_ops_take_memory(const struct rt_take_rows_args *args,
                                  const struct rt_take_params *p, struct rt_error *err);
enum rt_status rt_ops_route_memory(const struct rt_route_args *args,
                                   const struct rt_route_params *p, struct rt_error *err);
enum rt_status rt_ops_experts_up_memory(const struct rt_experts_up_args *args,
                                        const struct rt_experts_up_params *p, struct rt_error *err);
/* scratch_bytes: what rt_experts_down_scratch says. */
enum rt_status rt_ops_experts_down_memory(const struct rt_experts_down_args *args,
                                          const struct rt_experts_down_params *p,
                                          uint64_t scratch_bytes, struct rt_error *err);
enum rt_status rt_ops_moe_block_memory(const struct rt_moe_block_args *args,
                                       const struct rt_moe_block_params *p, struct rt_error *err);
/* workspace_bytes: what rt_sample_workspace says. */
enum rt_status rt_ops_sample_memory(const struct rt_sample_args *args,
                                    const struct rt_sample_params *p, uint64_t workspace_bytes,
                                    struct rt_error *err);

/* What route has, but for its logits: rt_gate's are written. */
void rt_ops_route_operands(const struct rt_route_args *args, struct rt_operands *o);
struct rt_strided rt_ops_route_logits(const struct rt_route_args *args,
                                      const struct rt_route_params *p);

#endif
