/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/driver.h"

#include <string.h>

enum rt_status rt_driver_open_cuda(uint32_t ordinal, struct rt_driver *out, struct rt_error *err)
{
    memset(out, 0, sizeof(*out));
    return rt_fail(err, RT_ERR_NO_DEVICE, "cuda:%u: this build has no CUDA kernels", ordinal);
}

enum rt_status rt_driver_cuda_count(uint32_t *out, struct rt_error *err)
{
    *out = 0;
    return rt_fail(err, RT_ERR_NO_DEVICE, "this build has no CUDA kernels");
}
