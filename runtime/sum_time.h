/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_SUM_TIME_H
#define RT_RUNTIME_SUM_TIME_H

/* How long an exchange takes as one of a step's is done: in a graph of a chain of them. */
#include "driver/comm/comm.h"

#define RT_SUM_CHAIN 16u

struct rt_sum_clock {
    struct rt_driver *d;
    struct rt_comm *comm;
    rt_dstream stream;
    uint32_t warm_up, replays; /* that do not count, at least 1, and that do */
    /* [replays], sorted; us: of one exchange, by the device's events; launch_us: of the call that
     * launches the graph. Either may be null. */
    float *us, *launch_us;
};

/* All ranks do it, with the same kinds of work, the `count` pieces that one exchange is, which
 * leave their numbers as they are or may spoil them. RT_ERR_RANKS, RT_ERR_DRIVER. */
enum rt_status rt_sum_time(const struct rt_sum_clock *clock, const struct rt_work *works,
                           uint32_t count, struct rt_error *err);

#endif
