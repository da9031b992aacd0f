/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_COUNT_MALLOC_H
#define RT_TESTS_SUPPORT_COUNT_MALLOC_H

/* malloc and friends of the library, which the linker sends here (wrap_malloc). */

/* From now on. */
void count_malloc_begin(void);
/* How many there were since. */
int count_malloc_end(void);

#endif
