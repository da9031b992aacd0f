/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_ENERGY_H
#define RT_DRIVER_ENERGY_H

/*
 * What a device uses, by the energy counter of NVML, the management library that comes with the
 * driver. It is loaded when a meter is opened; nothing links it, and where it or its counter is
 * missing that is RT_ERR_UNSUPPORTED with the reason. One thread at a time.
 */
#include "driver/driver.h"

struct rt_energy_meter; /* see energy.c */

/* Of an open device. *out is null on failure. RT_ERR_UNSUPPORTED also for the host device. */
enum rt_status rt_energy_open(const struct rt_device_caps *caps, struct rt_energy_meter **out,
                              struct rt_error *err);
/* Millijoules since the driver was loaded. NVML counts on every 20 to 100 ms. */
enum rt_status rt_energy_read(struct rt_energy_meter *meter, uint64_t *mj, struct rt_error *err);
/* Null is none. */
void rt_energy_close(struct rt_energy_meter **meter);

#endif
