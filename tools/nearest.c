/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/nearest.h"

#include <stdbool.h>
#include <string.h>

/* Nothing longer is a command or an option. */
#define MOST 31

static unsigned least(unsigned a, unsigned b)
{
    return a < b ? a : b;
}

static unsigned distance(const char *a, const char *b)
{
    unsigned table[MOST + 1][MOST + 1];
    const unsigned rows = (unsigned)strlen(a), columns = (unsigned)strlen(b);
    for (unsigned i = 0; i <= rows; i++)
        table[i][0] = i;
    for (unsigned j = 0; j <= columns; j++)
        table[0][j] = j;
    for (unsigned i = 1; i <= rows; i++)
        for (unsigned j = 1; j <= columns; j++) {
            const bool same = a[i - 1] == b[j - 1];
            unsigned best = table[i - 1][j - 1] + !same;
            best = least(best, least(table[i - 1][j], table[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                best = least(best, table[i - 2][j - 2] + 1);
            table[i][j] = best;
        }
    return table[rows][columns];
}

const char *nearest(const char *typed, const char *const *words, unsigned count)
{
    const size_t length = strlen(typed);
    const char *found = NULL;
    unsigned best = (unsigned)length / 3 + 1;
    for (unsigned i = 0; length <= MOST && i < count; i++) {
        const unsigned far = distance(typed, words[i]);
        if (far < best)
            found = words[i];
        else if (far == best)
            found = NULL;
        best = least(best, far);
    }
    return found;
}
