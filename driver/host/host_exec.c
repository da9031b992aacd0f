/* SPDX-License-Identifier: Apache-2.0 */
/* A replay: the nodes of an executable graph, one after the other. */
#include "driver/host/host_parts.h"

#include <stdlib.h>

static int call_error(int value)
{
    if (value < -RT_DRIVER_CALL_RANGE)
        value = -RT_DRIVER_CALL_RANGE;
    if (value > RT_DRIVER_CALL_RANGE)
        value = RT_DRIVER_CALL_RANGE;
    return RT_DRIVER_CALL_FAILED + value;
}

static int run_work(struct rt_host *h, const struct rt_work *work)
{
    switch (work->kind) {
    case RT_WORK_LAUNCH:
        rt_host_run_kernel(&work->launch);
        break;
    case RT_WORK_MATMUL:
        rt_host_run_matmul(&work->matmul);
        break;
    case RT_WORK_COLLECTIVE:
        return rt_host_run_collective(h, &work->collective);
    case RT_WORK_CALL: {
        const int value = work->call.fn(work->call.user, NULL);
        return value == 0 ? 0 : call_error(value);
    }
    }
    return 0;
}

int rt_host_replay(struct rt_host *h, rt_dexec x)
{
    for (uint32_t i = 0; i < x->count; i++) {
        const int rc = run_work(h, &x->nodes[i].work);
        if (rc != 0) {
            h->table->failed_exec = x;
            h->table->failed_node = x->nodes[i].number;
            return rc;
        }
    }
    return 0;
}

void rt_host_exec_release(rt_dexec x)
{
    if (--x->users > 0)
        return;
    free(x->nodes);
    free(x);
}
