/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_ATTRIBUTES_H
#define RT_COMMON_ATTRIBUTES_H

#define RT_COLD __attribute__((cold))
#define RT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define RT_LIKELY(x) __builtin_expect(!!(x), 1)
#define RT_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* For structs that the host and the device compiler share. */
#ifdef __cplusplus
#define RT_ALIGNAS(bytes) alignas(bytes)
#else
#define RT_ALIGNAS(bytes) _Alignas(bytes)
#endif

#endif
