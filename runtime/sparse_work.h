/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_SPARSE_WORK_H
#define RT_RUNTIME_SPARSE_WORK_H

/* The arguments of replayrt/sparse_ops.h -> their work, checked. Nothing is launched here. */
#include "kernels/abi/sparse.h"
#include "kernels/op.h"
#include "replayrt/sparse_ops.h"

struct rt_sparse_choice {
    struct rt_kv_format kv;
    struct rt_variant schedule, attend, reduce;
};

/* RT_ERR_INVALID for a shape out of range, else what the resolver says. */
enum rt_status rt_sparse_choose(const char *op, const struct rt_device_caps *caps,
                                const struct rt_mla_sparse_shape *s, struct rt_sparse_choice *out,
                                struct rt_error *err);

/* Everything of *out but struct_size. */
void rt_sparse_workspace(const struct rt_mla_sparse_shape *s, const struct rt_sparse_choice *choice,
                         struct rt_mla_sparse_workspace *out);

enum rt_status rt_sparse_schedule_work(const struct rt_kernels *k,
                                       const struct rt_sparse_choice *choice,
                                       const struct rt_mla_sparse_args *args, struct rt_work *out,
                                       struct rt_error *err);

struct rt_sparse_decode_work {
    struct rt_work attend, reduce;
    bool is_whole; /* there is nothing to reduce, and no reduce */
};
enum rt_status rt_sparse_decode_work(const struct rt_kernels *k,
                                     const struct rt_sparse_choice *choice,
                                     const struct rt_mla_sparse_args *args,
                                     struct rt_sparse_decode_work *out, struct rt_error *err);

/* runtime/sparse_memory.c: what is written lies apart, and apart from all that is read. Else
 * RT_ERR_INVALID, with both tensors' names. For arguments that were checked. */
enum rt_status rt_sparse_schedule_memory(const struct rt_mla_sparse_args *args,
                                         const struct rt_sparse_choice *choice,
                                         struct rt_error *err);
enum rt_status rt_sparse_decode_memory(const struct rt_mla_sparse_args *args,
                                       const struct rt_sparse_choice *choice,
                                       const struct rt_sparse_attend_params *p,
                                       struct rt_error *err);

#endif
