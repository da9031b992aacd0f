/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_FAIL_H
#define RT_MODELS_FAIL_H

/*
 * How failure travels in this room, and how its public structs grow. The room stands on public
 * headers alone, as a program does, so the like of these in common/ is not within its reach.
 */
#include "replayrt/status.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __clang_analyzer__
/* The analyzer sees one file at a time: tell it which status comes back. */
#define rt_models_fail(err, status, ...) (rt_error_set((err), (status), __VA_ARGS__), (status))
#else
#define rt_models_fail rt_error_set
#endif

#define RT_MODELS_REQUIRE(condition, err, status, ...)                                             \
    do {                                                                                           \
        if (!(condition))                                                                          \
            return rt_models_fail((err), (status), __VA_ARGS__);                                   \
    } while (0)

#define RT_MODELS_TRY(expression)                                                                  \
    do {                                                                                           \
        const enum rt_status rt_models_status_ = (expression);                                     \
        if (rt_models_status_ != RT_OK)                                                            \
            return rt_models_status_;                                                              \
    } while (0)

/*
 * Law 1 of rt.h: a struct may be another version's, smaller, or larger with zeros in its tail.
 * `name` is the argument's, for messages.
 */
enum rt_status rt_models_check_struct(const void *given, size_t bytes, const char *function,
                                      const char *name, struct rt_error *err);
/* As much of `mine` as the caller's has room for; its struct_size stays. It has been checked. */
void rt_models_write_struct(void *given, const void *mine, size_t bytes);
/* Checks, and makes the caller's one of this library's size. */
enum rt_status rt_models_take_struct(const void *given, void *mine, size_t bytes,
                                     const char *function, const char *name, struct rt_error *err);

#endif
