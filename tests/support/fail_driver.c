/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/fail_driver.h"

#include "driver/driver.h"

static uint64_t armed;
static bool reached;
static uint64_t live;
static int64_t contexts;

enum rt_status __real_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);
void __real_rt_driver_close(struct rt_driver *d);
enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err);
void __wrap_rt_driver_close(struct rt_driver *d);

enum rt_status __wrap_rt_driver_open(const char *device, struct rt_driver *out, char *why,
                                     size_t why_bytes, struct rt_error *err)
{
    enum rt_status status = __real_rt_driver_open(device, out, why, why_bytes, err);
    if (status == RT_OK)
        out->probe.fail_at = armed ? out->probe.calls + armed : 0;
    return status;
}

void __wrap_rt_driver_close(struct rt_driver *d)
{
    const struct rt_driver_probe *p = &d->probe;
    live += p->live;
    contexts = (int64_t)p->per_op[RT_DOP_ctx_enter] - (int64_t)p->per_op[RT_DOP_ctx_leave];
    reached |= d->probe.fail_at && d->probe.calls >= d->probe.fail_at;
    __real_rt_driver_close(d);
}

void fail_driver_arm(uint64_t n)
{
    armed = n;
}

bool fail_driver_reached(void)
{
    const bool was = reached;
    reached = false;
    return was;
}

uint64_t fail_driver_live(void)
{
    return live;
}

int64_t fail_driver_contexts(void)
{
    return contexts;
}
