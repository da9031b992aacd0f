/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/count_malloc.h"

#include <stddef.h>

static int counting, allocations;

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations += counting;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    allocations += counting;
    return __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    allocations += counting;
    return __real_realloc(old, size);
}

void count_malloc_begin(void)
{
    allocations = 0;
    counting = 1;
}

int count_malloc_end(void)
{
    counting = 0;
    return allocations;
}
