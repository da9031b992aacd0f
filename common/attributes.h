/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_ATTRIBUTES_H
#define RT_COMMON_ATTRIBUTES_H

#define RT_COLD __attribute__((cold))
#define RT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define RT_LIKELY(x) __builtin_expect(!!(x), 1)
#define RT_UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Asks for the line of `p` in order to write it, and does not wait. By hand on x86: gcc has one for
 * __builtin_prefetch(p, 1) that only reads, for the first x86-64 had no other; those ignore it. */
#if defined(__x86_64__)
#define RT_PREFETCH_TO_WRITE(p) __asm__ volatile("prefetchw %0" : : "m"(*(const char *)(p)))
#else
#define RT_PREFETCH_TO_WRITE(p) __builtin_prefetch((p), 1)
#endif

/* For structs that the host and the device compiler share. */
#ifdef __cplusplus
#define RT_ALIGNAS(bytes) alignas(bytes)
#else
#define RT_ALIGNAS(bytes) _Alignas(bytes)
#endif

#endif
