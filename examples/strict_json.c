/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/strict_json.h"

#include "examples/problem.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Bytes of the well-formed UTF-8 character at `text`: shortest form, no surrogate, at most
 * U+10FFFF. 0: there is none. */
static size_t character_bytes(const unsigned char *text, size_t bytes)
{
    const unsigned char first = text[0];
    if (first < 0x80)
        return 1;
    const size_t count = first < 0xc2   ? 0
                         : first < 0xe0 ? 2
                         : first < 0xf0 ? 3
                         : first < 0xf5 ? 4
                                        : 0;
    if (count == 0 || count > bytes)
        return 0;
    for (size_t i = 1; i < count; i++)
        if ((text[i] & 0xc0) != 0x80)
            return 0;
    const bool overlong = (first == 0xe0 && text[1] < 0xa0) || (first == 0xf0 && text[1] < 0x90);
    const bool surrogate = first == 0xed && text[1] >= 0xa0;
    const bool beyond = first == 0xf4 && text[1] >= 0x90;
    return overlong || surrogate || beyond ? 0 : count;
}

const char *strict_json_objection(const unsigned char *text, size_t bytes, size_t *at)
{
    static const char nul[] = "u0000";
    for (size_t i = 0; i < bytes;) {
        const size_t count = character_bytes(text + i, bytes - i);
        *at = i;
        if (count == 0)
            return "text that is no UTF-8";
        if (text[i] == '\0')
            return "a NUL";
        const bool escape = text[i] == '\\' && i + 1 < bytes;
        if (escape && bytes - i > sizeof nul - 1 && memcmp(text + i + 1, nul, sizeof nul - 1) == 0)
            return "an escaped NUL";
        /* Behind a backslash stands another, or a letter: nothing that is judged above. */
        i += escape && text[i + 1] == '\\' ? 2 : count;
    }
    return NULL;
}

static int by_text(const void *a, const void *b)
{
    const char *const *left = a;
    const char *const *right = b;
    return strcmp(*left, *right);
}

enum rt_status strict_json_keys(const cJSON *object, const char *label, const char *where,
                                struct rt_error *error)
{
    const size_t count = (size_t)cJSON_GetArraySize(object);
    if (count < 2)
        return RT_OK;
    const char **keys = malloc(count * sizeof *keys);
    if (keys == NULL)
        return problem(error, RT_ERR_NOMEM, "%s: no memory for the %zu keys of %.64s", label, count,
                       where);
    size_t i = 0;
    const cJSON *item;
    cJSON_ArrayForEach(item, object) keys[i++] = item->string;
    qsort(keys, count, sizeof *keys, by_text);
    enum rt_status status = RT_OK;
    for (i = 1; i < count && status == RT_OK; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            status = problem(error, RT_ERR_FILE, "%s: key %.64s stands twice in %.64s", label,
                             keys[i], where);
    free(keys);
    return status;
}
