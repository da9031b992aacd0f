/* SPDX-License-Identifier: Apache-2.0 */
#include "config/suggest.h"

#include "common/math.h"

#include <string.h>

static uint32_t length_of(const char *word)
{
    size_t length = strlen(word);
    return length < RT_SUGGEST_MAX_CHARS ? (uint32_t)length : RT_SUGGEST_MAX_CHARS;
}

static int lower(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c;
}

/* One row of the usual table, updated in place; `corner` is the cell up and to the left. */
uint32_t rt_edit_distance(const char *a, const char *b)
{
    uint32_t row[RT_SUGGEST_MAX_CHARS + 1];
    uint32_t rows = length_of(a);
    uint32_t columns = length_of(b);
    for (uint32_t j = 0; j <= columns; j++)
        row[j] = j;
    for (uint32_t i = 1; i <= rows; i++) {
        uint32_t corner = row[0];
        row[0] = i;
        for (uint32_t j = 1; j <= columns; j++) {
            uint32_t up = row[j];
            uint32_t differs = lower(a[i - 1]) != lower(b[j - 1]);
            row[j] = rt_min_u32(rt_min_u32(up, row[j - 1]) + 1, corner + differs);
            corner = up;
        }
    }
    return row[columns];
}
