/* SPDX-License-Identifier: Apache-2.0 */
#include "common/utf8.h"

size_t rt_utf8_bytes(const unsigned char *at, const unsigned char *end)
{
    if (at == end)
        return 0;
    if (at[0] < 0x80)
        return 1;
    size_t bytes = at[0] >= 0xF0 ? 4 : at[0] >= 0xE0 ? 3 : 2;
    if (at[0] < 0xC2 || at[0] > 0xF4 || (size_t)(end - at) < bytes)
        return 0;
    for (size_t i = 1; i < bytes; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    if ((at[0] == 0xE0 && at[1] < 0xA0) || (at[0] == 0xED && at[1] > 0x9F) ||
        (at[0] == 0xF0 && at[1] < 0x90) || (at[0] == 0xF4 && at[1] > 0x8F))
        return 0;
    return bytes;
}
