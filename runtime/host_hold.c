/* SPDX-License-Identifier: Apache-2.0 */
/* The host device's work held back: a busy GPU for tests that have none. */
#include "runtime/runtime.h"

static enum rt_status check_host(struct rt_runtime *rt)
{
    RT_REQUIRE(rt->driver.caps.kind == RT_DEVICE_KIND_HOST, &rt->error, RT_ERR_UNSUPPORTED,
               "only the host device's work can be held back, this is %s", rt->driver.caps.name);
    return RT_OK;
}

enum rt_status rt_host_hold(rt_runtime *rt, uint32_t hold)
{
    RT_ENTER(rt);
    RT_TRY(check_host(rt));
    rt->held = hold != 0;
    rt_driver_host_hold(&rt->driver, rt->stream, rt->held);
    return RT_OK;
}

enum rt_status rt_host_release(rt_runtime *rt, uint32_t count, uint32_t *ran)
{
    RT_ENTER(rt);
    RT_TRY(check_host(rt));
    uint32_t released = rt_driver_host_release(&rt->driver, rt->stream, count);
    if (ran)
        *ran = released;
    return RT_OK;
}
