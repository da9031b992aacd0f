/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_OPS_WORK_H
#define RT_RUNTIME_OPS_WORK_H

/*
 * An operator's arguments -> its work, checked. Nothing is launched here: the operators put it on a
 * stream, a benchmark into a graph of its own.
 */
#include "kernels/abi/quant.h"
#include "kernels/op.h"
#include "replayrt/ops.h"

/* What serves a shape: of each operator, and the cache's format. */
struct rt_ops_choice {
    struct rt_kv_format kv;
    struct rt_variant schedule, append, append_general, append_quant, reduce;
    struct rt_variant preattend, preattend_quant;
    struct rt_variant attend; /* attend, or attend_quant of the format */
};

/* RT_ERR_INVALID for a shape out of range, else what the resolver says. invariant: 0 or 1. */
enum rt_status rt_ops_choose(const char *op, const struct rt_device_caps *caps,
                             const struct rt_mla_shape *s, uint32_t invariant,
                             struct rt_ops_choice *out, struct rt_error *err);

/* The same for requests that have so many blocks of RT_BLOCK_TOKENS keys together: as a step of
 * theirs would have it. */
enum rt_status rt_ops_choose_for_blocks(const char *op, const struct rt_device_caps *caps,
                                        const struct rt_mla_shape *s, uint32_t invariant,
                                        uint64_t blocks, struct rt_ops_choice *out,
                                        struct rt_error *err);

/* Everything of *out but struct_size. */
void rt_ops_workspace(const struct rt_mla_shape *shape, const struct rt_ops_choice *choice,
                      struct rt_mla_workspace *out);

enum rt_status rt_ops_schedule_work(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                                    const struct rt_mla_schedule_args *args, struct rt_work *out,
                                    struct rt_error *err);
enum rt_status rt_ops_append_work(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                                  const struct rt_mla_append_args *args, struct rt_work *out,
                                  struct rt_error *err);

/* RT_ERR_INVALID for a layout that there is not, RT_ERR_GEOMETRY for one that the geometry has not.
 */
enum rt_status rt_ops_format(enum rt_kv_layout layout, uint32_t d_qk, uint32_t d_v,
                             struct rt_kv_format *out, struct rt_error *err);
/* What a layout of one scale for all needs, and no other may have. */
enum rt_status rt_ops_check_kv_scale(const char *op, const struct rt_kv_format *format,
                                     float kv_scale, struct rt_error *err);
/* Where there are no columns nobody looks at it. */
enum rt_status rt_ops_check_table(const char *op, const struct rt_mla_shape *s, uint64_t table,
                                  struct rt_error *err);
/* Strides of a cache are given in elements, of a quantised one in bytes; those of a view are bytes.
 */
enum rt_status rt_ops_kv_view(const char *op, const struct rt_mla_shape *s,
                              const struct rt_kv_format *format, uint64_t kv, uint64_t table,
                              int64_t kv_page_stride, int64_t kv_token_stride,
                              struct rt_kv_view *out, struct rt_error *err);

/* Strides of 0 become the packed ones. quant is zero where the cache is bf16. */
enum rt_status rt_ops_attend_params(const struct rt_mla_decode_args *args,
                                    const struct rt_ops_choice *choice,
                                    struct rt_attend_quant_params *out, struct rt_error *err);

struct rt_decode_work {
    struct rt_work attend, reduce;
};
enum rt_status rt_ops_decode_work(const struct rt_kernels *k, const struct rt_ops_choice *choice,
                                  const struct rt_attend_quant_params *p,
                                  struct rt_decode_work *out, struct rt_error *err);

#endif
