/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_FAIL_DRIVER_H
#define RT_TESTS_SUPPORT_FAIL_DRIVER_H

/*
 * Reaches the driver table that rt_create opens inside. A program that uses this is linked with
 * -Wl,--wrap=rt_driver_open -Wl,--wrap=rt_driver_close, so opening and closing pass through here.
 */
#include <stdbool.h>
#include <stdint.h>

/* Every table opened from now on fails its n-th operation; 0: none does. */
void fail_driver_arm(uint64_t n);

/* Whether a table closed since this was last asked had come to the operation that fails. */
bool fail_driver_reached(void);

/* Objects and allocations that closed tables still had, all of this program's together. */
uint64_t fail_driver_live(void);

/* Calls of the last closed table that entered its context, less those that left it. */
int64_t fail_driver_contexts(void);

#endif
