/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_OPS_LAUNCH_H
#define RT_RUNTIME_OPS_LAUNCH_H

/*
 * An operator's arguments -> its launches, checked. Nothing is launched here: the operators put
 * them on a stream, a measurement into a graph of its own.
 */
#include "kernels/mla.h"
#include "replayrt/ops.h"

/* RT_ERR_INVALID for a shape out of range, else what the resolver says. */
enum rt_status rt_ops_choose(const struct rt_device_caps *caps, const struct rt_mla_shape *s,
                             struct rt_attend_choice *out, struct rt_error *err);

/* Everything of *out but struct_size. */
void rt_ops_workspace(const struct rt_mla_shape *shape, const struct rt_attend_choice *choice,
                      struct rt_mla_workspace *out);

enum rt_status rt_ops_schedule_launch(const struct rt_kernels *k,
                                      const struct rt_attend_choice *choice,
                                      const struct rt_mla_schedule_args *args,
                                      struct rt_launch *out, struct rt_error *err);
/* The shape has been chosen for: append serves what decode serves. */
enum rt_status rt_ops_append_launch(const struct rt_kernels *k,
                                    const struct rt_mla_append_args *args, struct rt_launch *out,
                                    struct rt_error *err);

/* Strides of 0 become the packed ones. */
enum rt_status rt_ops_attend_params(const struct rt_mla_decode_args *args,
                                    const struct rt_attend_choice *choice,
                                    struct rt_mla_attend_params *p, struct rt_error *err);

struct rt_decode_launches {
    struct rt_launch attend, reduce;
};
enum rt_status rt_ops_decode_launches(const struct rt_kernels *k,
                                      const struct rt_attend_choice *choice,
                                      const struct rt_mla_attend_params *attend,
                                      struct rt_decode_launches *out, struct rt_error *err);

#endif
