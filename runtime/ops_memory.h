/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_OPS_MEMORY_H
#define RT_RUNTIME_OPS_MEMORY_H

/* What rt_mla_schedule, _append and _decode write: its vectors lie apart, and apart from all that
 * is read. Else RT_ERR_INVALID, with both tensors' names. For arguments that were checked. */
#include "kernels/abi/append.h"
#include "runtime/ops_work.h"
#include "runtime/strided.h"

/* Scales that lie behind a page's rows; false where they are in them, or there are none. */
bool rt_ops_scales_of(const struct rt_kv_view *kv, const struct rt_quant_view *quant,
                      struct rt_strided *out);

enum rt_status rt_ops_schedule_memory(const struct rt_mla_schedule_args *args,
                                      const struct rt_ops_choice *choice, struct rt_error *err);
/* With the views that were made of the arguments. */
enum rt_status rt_ops_append_memory(const struct rt_mla_append_args *args,
                                    const struct rt_append_quant_params *p, struct rt_error *err);
enum rt_status rt_ops_decode_memory(const struct rt_mla_decode_args *args,
                                    const struct rt_ops_choice *choice,
                                    const struct rt_attend_quant_params *p, struct rt_error *err);

#endif
