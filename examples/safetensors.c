/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/safetensors.h"

#include "examples/bf16.h"
#include "examples/problem.h"
#include "examples/regular_file.h"
#include "examples/strict_json.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LENGTH_BYTES 8u
static const char metadata[] = "__metadata__"; /* the one entry that is no tensor */
/* Above this a double, which is what a JSON number becomes here, no longer counts one by one. */
#define MAX_EXACT 9007199254740992.0

struct safetensors {
    const unsigned char *bytes;
    size_t byte_count;
    void *map; /* what safetensors_close unmaps; null: the caller's memory */
    const char *label;
    char *own_label;
    cJSON *header;
    struct safetensors_tensor *tensors; /* by name */
    size_t count;
};

struct dtype {
    const char *name;
    enum safetensors_dtype dtype;
    uint32_t bytes;
};

static const struct dtype dtypes[] = {
    {.name = "BF16", .dtype = SAFETENSORS_BF16, .bytes = 2},
    {.name = "F32", .dtype = SAFETENSORS_F32, .bytes = 4},
    {.name = "I32", .dtype = SAFETENSORS_I32, .bytes = 4},
    {.name = "BOOL", .bytes = 1},
    {.name = "F16", .bytes = 2},
    {.name = "F64", .bytes = 8},
    {.name = "F8_E4M3", .bytes = 1},
    {.name = "F8_E5M2", .bytes = 1},
    {.name = "I16", .bytes = 2},
    {.name = "I64", .bytes = 8},
    {.name = "I8", .bytes = 1},
    {.name = "U16", .bytes = 2},
    {.name = "U32", .bytes = 4},
    {.name = "U64", .bytes = 8},
    {.name = "U8", .bytes = 1},
};

static const struct dtype *dtype_find(const char *name)
{
    for (size_t i = 0; i < sizeof dtypes / sizeof dtypes[0]; i++) {
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    }
    return NULL;
}

/* A JSON number that is a whole, non-negative, exactly represented one. */
static bool whole_number(const cJSON *item, uint64_t *out)
{
    if (!cJSON_IsNumber(item))
        return false;
    const double value = item->valuedouble;
    if (!(value >= 0.0 && value <= MAX_EXACT))
        return false;
    *out = (uint64_t)value;
    return (double)*out == value;
}

static enum rt_status read_shape(const char *label, const cJSON *item,
                                 struct safetensors_tensor *tensor, struct rt_error *error)
{
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    if (!cJSON_IsArray(shape))
        return problem(error, RT_ERR_FILE, "%s: tensor %.64s has no shape that is a list", label,
                       tensor->name);
    tensor->elements = 1;
    const cJSON *dim;
    cJSON_ArrayForEach(dim, shape)
    {
        uint64_t size;
        if (!whole_number(dim, &size))
            return problem(error, RT_ERR_FILE,
                           "%s: dimension %" PRIu32 " of tensor %.64s is not a whole number", label,
                           tensor->rank, tensor->name);
        if (tensor->rank == SAFETENSORS_MAX_RANK)
            return problem(error, RT_ERR_FILE, "%s: tensor %.64s has more than %d dimensions",
                           label, tensor->name, SAFETENSORS_MAX_RANK);
        if (size != 0 && tensor->elements > UINT64_MAX / size)
            return problem(error, RT_ERR_FILE,
                           "%s: tensor %.64s has more elements than 64 bits count (%" PRIu64
                           " times %" PRIu64 ")",
                           label, tensor->name, tensor->elements, size);
        tensor->shape[tensor->rank++] = size;
        tensor->elements *= size;
    }
    return RT_OK;
}

static enum rt_status read_offsets(const char *label, const cJSON *item, uint64_t data_bytes,
                                   const unsigned char *data, struct safetensors_tensor *tensor,
                                   struct rt_error *error)
{
    const cJSON *offsets = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    uint64_t begin, end;
    if (!cJSON_IsArray(offsets) || cJSON_GetArraySize(offsets) != 2 ||
        !whole_number(offsets->child, &begin) || !whole_number(offsets->child->next, &end))
        return problem(error, RT_ERR_FILE,
                       "%s: data_offsets of tensor %.64s are not two whole numbers", label,
                       tensor->name);
    if (begin > end || end > data_bytes)
        return problem(error, RT_ERR_FILE,
                       "%s: data_offsets [%" PRIu64 ", %" PRIu64
                       "] of tensor %.64s do not lie in the %" PRIu64 " bytes of data",
                       label, begin, end, tensor->name, data_bytes);
    tensor->data = data + begin;
    tensor->bytes = end - begin;
    return RT_OK;
}

static enum rt_status read_tensor(const char *label, const cJSON *item, uint64_t data_bytes,
                                  const unsigned char *data, struct safetensors_tensor *tensor,
                                  struct rt_error *error)
{
    *tensor = (struct safetensors_tensor){.name = item->string};
    if (!cJSON_IsObject(item))
        return problem(error, RT_ERR_FILE, "%s: entry %.64s is not an object", label, item->string);
    enum rt_status status = strict_json_keys(item, label, item->string, error);
    if (status != RT_OK)
        return status;
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype");
    if (!cJSON_IsString(dtype))
        return problem(error, RT_ERR_FILE, "%s: dtype of tensor %.64s is not a string", label,
                       tensor->name);
    tensor->dtype_name = dtype->valuestring;
    status = read_shape(label, item, tensor, error);
    if (status == RT_OK)
        status = read_offsets(label, item, data_bytes, data, tensor, error);
    if (status != RT_OK)
        return status;

    /* Formats add dtypes: one that is not known here hurts only who asks for the tensor. */
    const struct dtype *known = dtype_find(tensor->dtype_name);
    if (known == NULL)
        return RT_OK;
    tensor->dtype = known->dtype;
    if (tensor->elements > UINT64_MAX / known->bytes ||
        tensor->elements * known->bytes != tensor->bytes)
        return problem(error, RT_ERR_FILE,
                       "%s: tensor %.64s has %" PRIu64 " elements of %s, %" PRIu32
                       " bytes each, but its data_offsets give %" PRIu64 " bytes",
                       label, tensor->name, tensor->elements, known->name, known->bytes,
                       tensor->bytes);
    return RT_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct safetensors_tensor *left = a, *right = b;
    return strcmp(left->name, right->name);
}

static int by_position(const void *a, const void *b)
{
    const struct safetensors_tensor *left = a, *right = b;
    if (left->data != right->data)
        return left->data < right->data ? -1 : 1;
    return (left->bytes > right->bytes) - (left->bytes < right->bytes);
}

/* Tensors follow each other without gap or overlap and use up the data. */
static enum rt_status check_cover(struct safetensors *file, const unsigned char *data,
                                  uint64_t data_bytes, struct rt_error *error)
{
    uint64_t covered = 0;
    if (file->count > 0)
        qsort(file->tensors, file->count, sizeof file->tensors[0], by_position);
    for (size_t i = 0; i < file->count; i++) {
        const struct safetensors_tensor *tensor = &file->tensors[i];
        const uint64_t begin = (uint64_t)(tensor->data - data);
        if (begin != covered)
            return problem(error, RT_ERR_FILE,
                           "%s: tensor %.64s begins at byte %" PRIu64
                           " of the data, the one before it ends at %" PRIu64,
                           file->label, tensor->name, begin, covered);
        covered += tensor->bytes;
    }
    if (covered != data_bytes)
        return problem(error, RT_ERR_FILE,
                       "%s: tensors take %" PRIu64 " bytes of data, the file has %" PRIu64,
                       file->label, covered, data_bytes);
    return RT_OK;
}

static enum rt_status read_tensors(struct safetensors *file, const unsigned char *data,
                                   uint64_t data_bytes, struct rt_error *error)
{
    const size_t entries = (size_t)cJSON_GetArraySize(file->header);
    file->tensors = calloc(entries > 0 ? entries : 1, sizeof file->tensors[0]);
    if (file->tensors == NULL)
        return problem(error, RT_ERR_NOMEM, "%s: no memory for %zu tensors", file->label, entries);
    enum rt_status status = strict_json_keys(file->header, file->label, "the header", error);
    const cJSON *item;
    cJSON_ArrayForEach(item, file->header)
    {
        if (status != RT_OK)
            return status;
        if (strcmp(item->string, metadata) == 0) {
            status = strict_json_keys(item, file->label, metadata, error);
            continue;
        }
        status =
            read_tensor(file->label, item, data_bytes, data, &file->tensors[file->count], error);
        file->count += status == RT_OK;
    }
    if (status == RT_OK)
        status = check_cover(file, data, data_bytes, error);
    if (file->count > 0)
        qsort(file->tensors, file->count, sizeof file->tensors[0], by_name);
    return status;
}

/* Parses header_bytes at `text` into file->header. */
static enum rt_status read_header(struct safetensors *file, const unsigned char *text,
                                  size_t header_bytes, struct rt_error *error)
{
    size_t at = 0;
    const char *objection = strict_json_objection(text, header_bytes, &at);
    if (objection != NULL)
        return problem(error, RT_ERR_FILE, "%s: the header of %zu bytes has %s at byte %zu",
                       file->label, header_bytes, objection, at);
    /* A copy with an end: the parser is only safe on terminated text, and the file has none. */
    char *copy = malloc(header_bytes + 1);
    if (copy == NULL)
        return problem(error, RT_ERR_NOMEM, "%s: no memory for a header of %zu bytes", file->label,
                       header_bytes);
    memcpy(copy, text, header_bytes);
    copy[header_bytes] = '\0';
    enum rt_status status = RT_OK;
    const char *end = copy;
    file->header = cJSON_ParseWithOpts(copy, &end, true);
    if (file->header == NULL)
        status = problem(error, RT_ERR_FILE, "%s: the header is no JSON from byte %td of %zu on",
                         file->label, end - copy, header_bytes);
    else if (!cJSON_IsObject(file->header))
        status =
            problem(error, RT_ERR_FILE, "%s: the header is JSON, but not an object", file->label);
    free(copy);
    return status;
}

static enum rt_status parse(struct safetensors *file, struct rt_error *error)
{
    if (file->byte_count < LENGTH_BYTES)
        return problem(error, RT_ERR_FILE, "%s: %zu bytes are too few for a safetensors file",
                       file->label, file->byte_count);
    uint64_t header_bytes = 0;
    for (unsigned i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)file->bytes[i] << (8 * i);
    const uint64_t rest = file->byte_count - LENGTH_BYTES;
    if (header_bytes > rest || header_bytes > SAFETENSORS_MAX_HEADER_BYTES)
        return problem(error, RT_ERR_FILE,
                       "%s: a header of %" PRIu64 " bytes does not fit: %" PRIu64
                       " bytes follow, at most %u are allowed",
                       file->label, header_bytes, rest, SAFETENSORS_MAX_HEADER_BYTES);
    const unsigned char *text = file->bytes + LENGTH_BYTES;
    const enum rt_status status = read_header(file, text, (size_t)header_bytes, error);
    if (status != RT_OK)
        return status;
    return read_tensors(file, text + header_bytes, rest - header_bytes, error);
}

enum rt_status safetensors_parse(const void *data, size_t bytes, const char *label,
                                 struct safetensors **out, struct rt_error *error)
{
    *out = NULL;
    struct safetensors *file = calloc(1, sizeof *file);
    if (file == NULL)
        return problem(error, RT_ERR_NOMEM, "%s: no memory for its description", label);
    file->bytes = data;
    file->byte_count = bytes;
    file->label = label;
    const enum rt_status status = parse(file, error);
    if (status != RT_OK)
        safetensors_close(&file);
    *out = file;
    return status;
}

/* Maps a whole regular file; an empty one gives null and 0 bytes. */
static enum rt_status map_file(const char *path, void **out, size_t *out_bytes,
                               struct rt_error *error)
{
    *out = NULL;
    *out_bytes = 0;
    int fd;
    size_t bytes = 0;
    enum rt_status status = regular_file_open(path, &fd, &bytes, error);
    if (status != RT_OK)
        return status;
    void *map = bytes > 0 ? mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0) : NULL;
    if (map == MAP_FAILED) {
        status =
            problem(error, RT_ERR_FILE, "%s: mapping %zu bytes: %s", path, bytes, strerror(errno));
    } else {
        *out = map;
        *out_bytes = bytes;
    }
    close(fd);
    return status;
}

enum rt_status safetensors_open(const char *path, struct safetensors **out, struct rt_error *error)
{
    *out = NULL;
    void *map;
    size_t bytes;
    enum rt_status status = map_file(path, &map, &bytes, error);
    if (status != RT_OK)
        return status;
    const size_t label_bytes = strlen(path) + 1;
    struct safetensors *file = calloc(1, sizeof *file);
    char *label = malloc(label_bytes);
    if (file == NULL || label == NULL) {
        free(file);
        free(label);
        if (map != NULL)
            munmap(map, bytes);
        return problem(error, RT_ERR_NOMEM, "%s: no memory for its description", path);
    }
    memcpy(label, path, label_bytes);
    *file = (struct safetensors){
        .bytes = map, .byte_count = bytes, .map = map, .label = label, .own_label = label};
    status = parse(file, error);
    if (status != RT_OK)
        safetensors_close(&file);
    *out = file;
    return status;
}

void safetensors_close(struct safetensors **file)
{
    struct safetensors *f = *file;
    if (f == NULL)
        return;
    free(f->tensors);
    cJSON_Delete(f->header);
    if (f->map != NULL)
        munmap(f->map, f->byte_count);
    free(f->own_label);
    free(f);
    *file = NULL;
}

size_t safetensors_count(const struct safetensors *file)
{
    return file->count;
}

const struct safetensors_tensor *safetensors_at(const struct safetensors *file, size_t index)
{
    return index < file->count ? &file->tensors[index] : NULL;
}

static int name_against(const void *key, const void *element)
{
    const struct safetensors_tensor *tensor = element;
    return strcmp(key, tensor->name);
}

enum rt_status safetensors_find(const struct safetensors *file, const char *name,
                                const struct safetensors_tensor **out, struct rt_error *error)
{
    *out = NULL;
    const struct safetensors_tensor *tensor =
        file->count == 0
            ? NULL
            : bsearch(name, file->tensors, file->count, sizeof file->tensors[0], name_against);
    if (tensor == NULL)
        return problem(error, RT_ERR_FILE, "%s: no tensor %.64s among its %zu", file->label, name,
                       file->count);
    if (tensor->dtype == SAFETENSORS_OTHER)
        return problem(error, RT_ERR_FILE,
                       "%s: tensor %.64s has dtype %.16s; BF16, F32 and I32 can be read",
                       file->label, name, tensor->dtype_name);
    *out = tensor;
    return RT_OK;
}

/* "[6, 16, 64]" into text. */
static void describe_shape(uint32_t rank, const uint64_t *shape, char *text, size_t capacity)
{
    size_t used = 0;
    for (uint32_t i = 0; i < rank && used < capacity; i++) {
        const int wrote =
            snprintf(text + used, capacity - used, "%s%" PRIu64, i == 0 ? "[" : ", ", shape[i]);
        used += (size_t)wrote;
    }
    if (used < capacity)
        (void)snprintf(text + used, capacity - used, "%s", rank == 0 ? "[]" : "]");
}

enum rt_status safetensors_find_shaped(const struct safetensors *file, const char *name,
                                       uint32_t rank, const uint64_t *shape,
                                       const struct safetensors_tensor **out,
                                       struct rt_error *error)
{
    const enum rt_status status = safetensors_find(file, name, out, error);
    const struct safetensors_tensor *tensor = *out;
    if (tensor == NULL)
        return status;
    bool same = tensor->rank == rank;
    for (uint32_t i = 0; same && i < rank; i++)
        same = tensor->shape[i] == shape[i];
    if (same)
        return RT_OK;
    char has[96], wants[96];
    describe_shape(tensor->rank, tensor->shape, has, sizeof has);
    describe_shape(rank, shape, wants, sizeof wants);
    *out = NULL;
    return problem(error, RT_ERR_FILE, "%s: tensor %.64s has shape %s, expected %s", file->label,
                   name, has, wants);
}

static enum rt_status check_range(const struct safetensors_tensor *tensor, uint64_t first,
                                  uint64_t count, struct rt_error *error)
{
    if (first > tensor->elements || count > tensor->elements - first)
        return problem(error, RT_ERR_FILE,
                       "tensor %.64s: %" PRIu64 " elements from %" PRIu64
                       " on were asked for, it has %" PRIu64,
                       tensor->name, count, first, tensor->elements);
    return RT_OK;
}

static uint32_t little_endian(const unsigned char *bytes, unsigned count)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < count; i++)
        value |= (uint32_t)bytes[i] << (8 * i);
    return value;
}

enum rt_status safetensors_read_floats(const struct safetensors_tensor *tensor, uint64_t first,
                                       uint64_t count, float *out, struct rt_error *error)
{
    const enum rt_status status = check_range(tensor, first, count, error);
    if (status != RT_OK)
        return status;
    if (tensor->dtype == SAFETENSORS_BF16) {
        for (uint64_t i = 0; i < count; i++)
            out[i] = bf16_to_float((uint16_t)little_endian(tensor->data + 2 * (first + i), 2));
        return RT_OK;
    }
    if (tensor->dtype != SAFETENSORS_F32)
        return problem(error, RT_ERR_FILE, "tensor %.64s has dtype %.16s, expected BF16 or F32",
                       tensor->name, tensor->dtype_name);
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t bits = little_endian(tensor->data + 4 * (first + i), 4);
        memcpy(&out[i], &bits, sizeof bits);
    }
    return RT_OK;
}

enum rt_status safetensors_read_ints(const struct safetensors_tensor *tensor, uint64_t first,
                                     uint64_t count, int32_t *out, struct rt_error *error)
{
    const enum rt_status status = check_range(tensor, first, count, error);
    if (status != RT_OK)
        return status;
    if (tensor->dtype != SAFETENSORS_I32)
        return problem(error, RT_ERR_FILE, "tensor %.64s has dtype %.16s, expected I32",
                       tensor->name, tensor->dtype_name);
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t bits = little_endian(tensor->data + 4 * (first + i), 4);
        memcpy(&out[i], &bits, sizeof bits);
    }
    return RT_OK;
}
