/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_DEVICE_CAPS_H
#define RT_TESTS_SUPPORT_DEVICE_CAPS_H

/* Devices that a resolver is asked for, without a driver: of each generation of kernels one. */
#include "driver/driver.h"

static const struct rt_device_caps h200 = {.kind = RT_DEVICE_KIND_CUDA,
                                           .name = "H200",
                                           .cc = 90,
                                           .sm_count = 132,
                                           .smem_optin_bytes = 227 * 1024};
static const struct rt_device_caps a100 = {.kind = RT_DEVICE_KIND_CUDA,
                                           .name = "A100",
                                           .cc = 80,
                                           .sm_count = 108,
                                           .smem_optin_bytes = 163 * 1024};
static const struct rt_device_caps l40 = {.kind = RT_DEVICE_KIND_CUDA,
                                          .name = "L40",
                                          .cc = 89,
                                          .sm_count = 142,
                                          .smem_optin_bytes = 99 * 1024};
static const struct rt_device_caps host = {
    .kind = RT_DEVICE_KIND_HOST, .name = "host", .sm_count = 8};

#endif
