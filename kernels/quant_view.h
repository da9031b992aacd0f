/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_QUANT_VIEW_H
#define RT_KERNELS_QUANT_VIEW_H

#include "common/kv_format.h"
#include "kernels/abi/quant.h"

/* What kernels are told of a quantised format, whose rows lie as `kv` says; `tensor_scale` is that
 * of RT_KV_SCALE_TENSOR and not read else. Pure. */
struct rt_quant_view rt_quant_view_make(const struct rt_kv_format *format,
                                        const struct rt_kv_view *kv, float tensor_scale);

/* Of bf16 too, whose rows have no e4m3 (kernels/abi/convert.h). */
struct rt_quant_view rt_quant_view_of_any(const struct rt_kv_format *format,
                                          const struct rt_kv_view *kv, float tensor_scale);

#endif
