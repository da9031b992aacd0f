/* SPDX-License-Identifier: Apache-2.0 */
#include "models/fail.h"

#include <string.h>

#define MAX_STRUCT_BYTES 65536u

static uint32_t size_of(const void *given)
{
    uint32_t size;
    memcpy(&size, given, sizeof(size));
    return size;
}

enum rt_status rt_models_check_struct(const void *given, size_t bytes, const char *function,
                                      const char *name, struct rt_error *err)
{
    RT_MODELS_REQUIRE(given, err, RT_ERR_INVALID, "%s: %s is null", function, name);
    const uint32_t size = size_of(given);
    RT_MODELS_REQUIRE(size >= sizeof(size) && size <= MAX_STRUCT_BYTES, err, RT_ERR_INVALID,
                      "%s: %s->struct_size is %u: must be sizeof the struct, here %zu", function,
                      name, size, bytes);
    for (size_t i = bytes; i < size; i++)
        RT_MODELS_REQUIRE(((const unsigned char *)given)[i] == 0, err, RT_ERR_INVALID,
                          "%s: %s->struct_size is %u, here it is %zu, and byte %zu behind that is "
                          "not 0: it asks for what this library does not know",
                          function, name, size, bytes, i);
    return RT_OK;
}

void rt_models_write_struct(void *given, const void *mine, size_t bytes)
{
    const size_t size = size_of(given), head = sizeof(uint32_t);
    memcpy((unsigned char *)given + head, (const unsigned char *)mine + head,
           (size < bytes ? size : bytes) - head);
}

enum rt_status rt_models_take_struct(const void *given, void *mine, size_t bytes,
                                     const char *function, const char *name, struct rt_error *err)
{
    RT_MODELS_TRY(rt_models_check_struct(given, bytes, function, name, err));
    const size_t size = size_of(given);
    const uint32_t own = (uint32_t)bytes;
    memset(mine, 0, bytes);
    memcpy(mine, given, size < bytes ? size : bytes);
    memcpy(mine, &own, sizeof(own));
    return RT_OK;
}
