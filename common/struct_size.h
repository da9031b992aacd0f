/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_STRUCT_SIZE_H
#define RT_COMMON_STRUCT_SIZE_H

/*
 * Public structs begin with struct_size, and grow at their end. A caller built against another
 * version may have a shorter or a longer one:
 *
 *   shorter   what it lacks is its documented default, which is zero
 *   longer    its tail must be zero: nothing is asked for that this library does not know
 */
#include "common/check.h"

#include <stddef.h>
#include <stdint.h>

/* No struct grows beyond this; a larger size is a field that was never set. */
#define RT_STRUCT_MAX_BYTES 65536u

/* RT_ERR_INVALID with function, name and sizes. `given` may be null, which is refused too. */
enum rt_status rt_struct_check(const void *given, size_t bytes, const char *function,
                               const char *name, struct rt_error *err);

/* The caller's struct in this library's size, its own struct_size included. It has been checked. */
void rt_struct_read(void *mine, size_t bytes, const void *given);

/* The other way: as much as the caller's has room for; its struct_size stays. */
void rt_struct_write(void *given, const void *mine, size_t bytes);

/* `p` becomes a pointer to a struct of this library's size: itself where it is one, `mine` else. */
#define RT_TAKE_STRUCT(p, mine, err)                                                               \
    do {                                                                                           \
        if (RT_UNLIKELY(!(p) || (p)->struct_size != sizeof(mine))) {                               \
            RT_TRY(rt_struct_check((p), sizeof(mine), __func__, #p, (err)));                       \
            rt_struct_read(&(mine), sizeof(mine), (p));                                            \
            (p) = &(mine);                                                                         \
        }                                                                                          \
    } while (0)

/* Before anything is done for a result that cannot be given back. */
#define RT_CHECK_STRUCT(p, err) RT_TRY(rt_struct_check((p), sizeof(*(p)), __func__, #p, (err)))

#endif
