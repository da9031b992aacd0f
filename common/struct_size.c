/* SPDX-License-Identifier: Apache-2.0 */
#include "common/struct_size.h"

#include <string.h>

/* struct_size is every public struct's first member. */
static uint32_t size_of(const void *given)
{
    uint32_t size;
    memcpy(&size, given, sizeof(size));
    return size;
}

enum rt_status rt_struct_check(const void *given, size_t bytes, const char *function,
                               const char *name, struct rt_error *err)
{
    RT_REQUIRE(given, err, RT_ERR_INVALID, "%s: %s is null", function, name);
    const uint32_t size = size_of(given);
    RT_REQUIRE(size >= sizeof(size), err, RT_ERR_INVALID,
               "%s: %s->struct_size is %u, this library's is %zu: it is to be sizeof the struct, "
               "at least %zu",
               function, name, size, bytes, sizeof(size));
    RT_REQUIRE(size <= RT_STRUCT_MAX_BYTES, err, RT_ERR_INVALID,
               "%s: %s->struct_size is %u, this library's is %zu: no struct of any version is "
               "larger than %u, so it was not set",
               function, name, size, bytes, RT_STRUCT_MAX_BYTES);
    for (size_t i = bytes; i < size; i++)
        RT_REQUIRE(((const unsigned char *)given)[i] == 0, err, RT_ERR_INVALID,
                   "%s: %s->struct_size is %u, this library's is %zu, and byte %zu behind that is "
                   "not 0: it asks for what this library does not know",
                   function, name, size, bytes, i);
    return RT_OK;
}

void rt_struct_read(void *mine, size_t bytes, const void *given)
{
    const size_t size = size_of(given);
    const uint32_t own = (uint32_t)bytes;
    memset(mine, 0, bytes);
    memcpy(mine, given, size < bytes ? size : bytes);
    memcpy(mine, &own, sizeof(own));
}

void rt_struct_write(void *given, const void *mine, size_t bytes)
{
    const size_t size = size_of(given);
    const size_t head = sizeof(uint32_t);
    memcpy((unsigned char *)given + head, (const unsigned char *)mine + head,
           (size < bytes ? size : bytes) - head);
}
