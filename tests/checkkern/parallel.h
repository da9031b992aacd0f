/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_PARALLEL_H
#define RT_TESTS_CHECKKERN_PARALLEL_H

/* Work on all cores: what the double truth and large inputs would otherwise take minutes for. */
#include <stdint.h>

/*
 * Calls work(arg, i) once for every i below `count`, in no order and at the same time, and returns
 * when all are done. They share nothing but what they only read, so the outcome does not depend on
 * the number of cores. Nothing of struct ck may be called inside.
 */
void ck_parallel(uint32_t count, void (*work)(void *arg, uint32_t i), void *arg);

#endif
