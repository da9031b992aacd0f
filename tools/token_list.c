/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/token_list.h"

#include "tools/complain.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* One id at *text, which is left behind it. */
static bool read_id(const char **text, int32_t *out)
{
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(*text, &end, 10);
    if (!isdigit((unsigned char)**text) || errno || value > INT32_MAX || (*end && *end != ','))
        return false;
    *out = (int32_t)value;
    *text = end;
    return true;
}

static bool read_ids(const char *option, const char *text, struct token_list *out)
{
    const char *at = text;
    for (;;) {
        const char *const begin = at;
        if (!read_id(&at, &out->ids[out->count])) {
            complain("%s: id %u is \"%.*s\": expected numbers from 0 to 2147483647 with commas "
                     "between them",
                     option, out->count + 1, (int)strcspn(begin, ","), begin);
            return false;
        }
        out->count++;
        if (!*at)
            return true;
        at++;
    }
}

bool token_list_read(const char *option, const char *text, struct token_list *out)
{
    size_t most = 1;
    *out = (struct token_list){.ids = NULL};
    if (!*text) {
        complain("%s is empty: expected token ids such as 5,7,9", option);
        return false;
    }
    for (const char *c = text; *c; c++)
        most += *c == ',';
    out->ids = calloc(most, sizeof(*out->ids));
    if (!out->ids)
        complain("%s: out of host memory for %zu ids", option, most);
    else if (read_ids(option, text, out))
        return true;
    token_list_free(out);
    return false;
}

void token_list_free(struct token_list *list)
{
    free(list->ids);
    *list = (struct token_list){.ids = NULL};
}
