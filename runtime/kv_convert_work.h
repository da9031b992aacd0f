/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_KV_CONVERT_WORK_H
#define RT_RUNTIME_KV_CONVERT_WORK_H

/* rt_kv_convert's arguments -> its work, checked: for the operator, and for a benchmark's graph. */
#include "kernels/abi/convert.h"
#include "kernels/op.h"
#include "replayrt/kv_ops.h"

enum rt_status rt_kv_convert_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                  const struct rt_kv_convert_args *args, struct rt_work *out,
                                  struct rt_error *err);

#endif
