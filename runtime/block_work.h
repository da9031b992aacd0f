/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_BLOCK_WORK_H
#define RT_RUNTIME_BLOCK_WORK_H

/* The arguments of replayrt/block_ops.h -> their work, checked. Nothing is launched here. */
#include "kernels/abi/input_norm.h"
#include "kernels/abi/norm.h"
#include "kernels/op.h"
#include "replayrt/block_ops.h"
#include "runtime/operands.h"
#include "runtime/ops_work.h"

/* `op` is the function's name, for messages. */
enum rt_status rt_ops_input_norm_params(const char *op, const struct rt_device_caps *caps,
                                        const struct rt_mla_input_norm_args *args,
                                        struct rt_input_norm_params *out, struct rt_error *err);
/* The memory of it, for rt_operands_check. */
void rt_ops_input_norm_operands(const struct rt_mla_input_norm_args *args,
                                const struct rt_input_norm_params *p, struct rt_operands *o);
enum rt_status rt_ops_input_norm_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                      const struct rt_mla_input_norm_args *args,
                                      struct rt_work *out, struct rt_error *err);
enum rt_status rt_ops_preattend_work(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                                     const struct rt_mla_preattend_args *args, struct rt_work *out,
                                     struct rt_error *err);

/* The view that kernels get, which checks the width. `name` is the argument's. */
enum rt_status rt_ops_norm_view(const char *op, const char *name, const struct rt_rms_norm *norm,
                                struct rt_norm_view *out, struct rt_error *err);

#endif
