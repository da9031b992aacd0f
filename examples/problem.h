/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_PROBLEM_H
#define RT_EXAMPLES_PROBLEM_H

#include "replayrt/status.h"

/*
 * Writes one sentence, the way the library does, and returns `status`, so that it can stand after
 * `return`. error may be null.
 */
enum rt_status problem(struct rt_error *error, enum rt_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

#endif
