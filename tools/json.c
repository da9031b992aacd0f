/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/json.h"

#include "tools/commands.h"

#include <inttypes.h>
#include <stdlib.h>

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
