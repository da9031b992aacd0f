/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/open.h"

#include <stdio.h>

static enum rt_status open_products(const struct rt_config *config, struct rt_driver *d,
                                    char *why_not, size_t why_not_bytes, struct rt_error *err)
{
    struct rt_error story = {.status = RT_OK};
    if (!config->layer || config->projections == RT_PROJECTIONS_OWN)
        return RT_OK;
    const enum rt_status status = rt_driver_open_blas(d, &story);
    if (status == RT_OK) {
        d->caps.has_blas = true;
        return RT_OK;
    }
    if (status == RT_ERR_UNSUPPORTED && config->projections == RT_PROJECTIONS_AUTO) {
        (void)snprintf(why_not, why_not_bytes, "%s", story.message);
        return RT_OK;
    }
    return rt_fail(err, status, "projections: %s", story.message);
}

enum rt_status rt_open_for(const struct rt_config *config, struct rt_driver *out, char *why,
                           size_t why_bytes, char *why_not, size_t why_not_bytes,
                           struct rt_error *err)
{
    why_not[0] = '\0';
    RT_TRY(rt_driver_open(config->device, out, why, why_bytes, err));
    const enum rt_status status = open_products(config, out, why_not, why_not_bytes, err);
    if (status != RT_OK)
        rt_driver_close(out);
    return status;
}
