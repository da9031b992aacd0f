/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_OPEN_H
#define RT_RUNTIME_OPEN_H

/* The device that a configuration asks for, with what its blocks multiply by. */
#include "driver/driver.h"
#include "replayrt/rt.h"

/*
 * rt_driver_open, and where blocks may want the library's products, that: asked for by name, it
 * must be there; with auto `why_not` gets the reason why it is not, "" where it is or is not
 * wanted.
 */
enum rt_status rt_open_for(const struct rt_config *config, struct rt_driver *out, char *why,
                           size_t why_bytes, char *why_not, size_t why_not_bytes,
                           struct rt_error *err);

#endif
