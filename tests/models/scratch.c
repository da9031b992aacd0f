/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/models/scratch.h"

#include <stdlib.h>
#include <unistd.h>

#define MAX_FILES 64
#define MAX_HEADER 1048576

static char folder[] = "/tmp/replayrt-models-XXXXXX";
static char names[MAX_FILES][128];
static size_t name_count;

void scratch_make(void)
{
    memcpy(folder + strlen(folder) - 6, "XXXXXX", 6);
    assert_non_null(mkdtemp(folder));
    name_count = 0;
}

void scratch_remove(void)
{
    for (size_t i = 0; i < name_count; i++)
        (void)remove(scratch_path(names[i]));
    assert_int_equal(rmdir(folder), 0);
}

const char *scratch_path(const char *name)
{
    static char paths[4][256];
    static unsigned turn;
    char *path = paths[turn++ % 4];
    (void)snprintf(path, sizeof(paths[0]), "%s%s%.128s", folder, name[0] ? "/" : "", name);
    return path;
}

static FILE *create(const char *name)
{
    size_t i = 0;
    while (i < name_count && strcmp(names[i], name) != 0)
        i++;
    assert_true(i < MAX_FILES);
    if (i == name_count)
        (void)snprintf(names[name_count++], sizeof(names[0]), "%s", name);
    FILE *f = fopen(scratch_path(name), "wb");
    assert_non_null(f);
    return f;
}

void scratch_write(const char *name, const void *bytes, size_t count)
{
    FILE *f = create(name);
    assert_int_equal(fwrite(bytes, 1, count, f), count);
    assert_int_equal(fclose(f), 0);
}

void scratch_text(const char *name, const char *text)
{
    scratch_write(name, text, strlen(text));
}

void scratch_safetensors(const char *name, const struct scratch_tensor *tensors, size_t count)
{
    char *header = malloc(MAX_HEADER);
    size_t used = 1, offset = 0;
    assert_non_null(header);
    header[0] = '{';
    for (size_t i = 0; i < count; i++) {
        used += (size_t)snprintf(header + used, MAX_HEADER - used,
                                 "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,"
                                 "\"data_offsets\":[%zu,%zu]}",
                                 i ? "," : "", tensors[i].name, tensors[i].dtype, tensors[i].shape,
                                 offset, offset + tensors[i].bytes);
        offset += tensors[i].bytes;
        assert_true(used < MAX_HEADER);
    }
    header[used++] = '}';
    const uint64_t length = used;
    FILE *f = create(name);
    assert_int_equal(fwrite(&length, sizeof(length), 1, f), 1);
    assert_int_equal(fwrite(header, 1, used, f), used);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(fwrite(tensors[i].values, 1, tensors[i].bytes, f), tensors[i].bytes);
    assert_int_equal(fclose(f), 0);
    free(header);
}
