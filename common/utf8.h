/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_UTF8_H
#define RT_COMMON_UTF8_H

#include <stddef.h>

/* Bytes of the UTF-8 character at `at`; 0: there is none: cut short by `end`, longer than it need
 * be, a surrogate, or beyond U+10FFFF. */
size_t rt_utf8_bytes(const unsigned char *at, const unsigned char *end);

#endif
