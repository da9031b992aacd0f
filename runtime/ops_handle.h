/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_OPS_HANDLE_H
#define RT_RUNTIME_OPS_HANDLE_H

/* What a handle of the operators is to those who put work on the caller's stream. */
#include "common/work.h"
#include "kernels/registry.h"
#include "replayrt/ops.h"

struct rt_ops {
    struct rt_driver driver;
    struct rt_kernels kernels;
    struct rt_error error;
    bool overlap; /* what is put may begin before what is in front of it is over */
};

/* Inside of the device's context. */
enum rt_status rt_ops_put(struct rt_ops *ops, const struct rt_work *work, void *stream);
/* The same from outside; of several, one behind the other. */
enum rt_status rt_ops_launch(struct rt_ops *ops, const struct rt_work *work, void *stream);
enum rt_status rt_ops_launch_all(struct rt_ops *ops, const struct rt_work *works, uint32_t count,
                                 void *stream);

#endif
