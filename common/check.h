/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_CHECK_H
#define RT_COMMON_CHECK_H

/*
 * How failure travels. A fallible function returns enum rt_status and writes the story into the
 * struct rt_error it was given (NULL is fine). Public functions open with a column of RT_REQUIRE;
 * inner functions forward with RT_TRY, or with RT_TRY_GOTO where something must be undone, which
 * needs a local `enum rt_status status` and a label `fail:`.
 */
#include "common/attributes.h"
#include "replayrt/status.h"

/* Formats the story and returns `status`, so that it can stand after `return`. */
#ifdef __clang_analyzer__
/* The analyzer sees one file at a time: tell it which status comes back. */
#define rt_fail(err, status, ...) (rt_error_set((err), (status), __VA_ARGS__), (status))
#else
#define rt_fail rt_error_set
#endif

#define RT_REQUIRE(cond, err, code, ...)                                                           \
    do {                                                                                           \
        if (RT_UNLIKELY(!(cond)))                                                                  \
            return rt_fail((err), (code), __VA_ARGS__);                                            \
    } while (0)

#define RT_TRY(expr)                                                                               \
    do {                                                                                           \
        enum rt_status rt_try_status_ = (expr);                                                    \
        if (RT_UNLIKELY(rt_try_status_ != RT_OK))                                                  \
            return rt_try_status_;                                                                 \
    } while (0)

#define RT_TRY_GOTO(expr)                                                                          \
    do {                                                                                           \
        status = (expr);                                                                           \
        if (RT_UNLIKELY(status != RT_OK))                                                          \
            goto fail;                                                                             \
    } while (0)

#endif
