/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/json.h"

#include "tools/commands.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static void *must_allocate(size_t bytes)
{
    void *memory = malloc(bytes);
    if (!memory) {
        fputs("replayrt: out of host memory\n", stderr);
        exit(EXIT_FAILED);
    }
    return memory;
}

void json_begin(void)
{
    cJSON_Hooks hooks = {.malloc_fn = must_allocate, .free_fn = free};
    cJSON_InitHooks(&hooks);
}

void json_uint(cJSON *to, const char *key, uint64_t value)
{
    char digits[24];
    (void)snprintf(digits, sizeof(digits), "%" PRIu64, value);
    cJSON *number = cJSON_CreateRaw(digits);
    if (key)
        cJSON_AddItemToObject(to, key, number);
    else
        cJSON_AddItemToArray(to, number);
}

/* Bytes of the character that begins here; 0: none does. The second byte's range keeps out what has
 * a shorter way, surrogates, and what is above U+10FFFF. */
static size_t character(const unsigned char *at)
{
    static const struct {
        unsigned char first, last, second_least, second_most;
        size_t bytes;
    } leads[] = {
        {0x01, 0x7f, 0x00, 0xff, 1}, {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t i = 0; i < sizeof(leads) / sizeof(leads[0]); i++) {
        if (at[0] < leads[i].first || at[0] > leads[i].last)
            continue;
        if (at[1] < leads[i].second_least || at[1] > leads[i].second_most)
            return 0;
        for (size_t k = 2; k < leads[i].bytes; k++)
            if (at[k] < 0x80 || at[k] > 0xbf)
                return 0;
        return leads[i].bytes;
    }
    return 0;
}

void json_text(cJSON *to, const char *key, const char *text)
{
    static const char unknown[] = "\xef\xbf\xbd";
    const size_t longest = strlen(text) * (sizeof(unknown) - 1) + 1;
    char *clean = must_allocate(longest), *end = clean;
    for (const unsigned char *at = (const unsigned char *)text; *at;) {
        const size_t bytes = character(at);
        const size_t written = bytes ? bytes : sizeof(unknown) - 1;
        memcpy(end, bytes ? (const char *)at : unknown, written);
        at += bytes ? bytes : 1;
        end += written;
    }
    *end = '\0';
    cJSON_AddStringToObject(to, key, clean);
    free(clean);
}

cJSON *json_element(cJSON *array)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddItemToArray(array, object);
    return object;
}

void json_end(cJSON *document, bool indented, FILE *to)
{
    char *text = indented ? cJSON_Print(document) : cJSON_PrintUnformatted(document);
    fprintf(to, "%s\n", text);
    cJSON_free(text);
    cJSON_Delete(document);
}
