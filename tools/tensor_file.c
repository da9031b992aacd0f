/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/tensor_file.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 *   u64 bytes of the header | header: JSON, blanks up to a multiple of 8 | data of every tensor
 *
 * Little endian, as replayrt/checkpoint.h demands of the machine too.
 */
#define HEADER_BYTES 1024
#define ALIGN 8u

static const struct {
    const char *name;
    uint32_t bytes;
} dtypes[] = {[RT_DTYPE_BF16] = {"BF16", 2},
              [RT_DTYPE_F32] = {"F32", 4},
              [RT_DTYPE_I32] = {"I32", 4},
              [RT_DTYPE_U8] = {"U8", 1}};

static enum rt_status failed(const char *path, const char *why, struct rt_error *error)
{
    error->status = RT_ERR_FILE;
    (void)snprintf(error->message, sizeof(error->message), "%.400s: cannot be written: %s", path,
                   why);
    return RT_ERR_FILE;
}

/* ---- the header ------------------------------------------------------------------------------ */

struct header {
    char text[HEADER_BYTES];
    size_t used;
};

static void put(struct header *h, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

static void put(struct header *h, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    const int wrote = vsnprintf(h->text + h->used, sizeof(h->text) - h->used, format, args);
    va_end(args);
    assert(wrote >= 0 && h->used + (size_t)wrote < sizeof(h->text));
    h->used += (size_t)wrote;
}

/* Returns where its data ends. */
static uint64_t put_entry(struct header *h, const struct tensor_file_entry *e, uint64_t begin)
{
    uint64_t bytes = dtypes[e->dtype].bytes;
    put(h, "\"%s\":{\"dtype\":\"%s\",\"shape\":[", e->name, dtypes[e->dtype].name);
    for (uint32_t i = 0; i < e->rank; i++) {
        put(h, "%s%" PRIu64, i ? "," : "", e->shape[i]);
        bytes *= e->shape[i];
    }
    put(h, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", begin, begin + bytes);
    return begin + bytes;
}

/* Says where every tensor begins in the file. Returns the file's size. */
static uint64_t make_header(const struct tensor_file_entry *entries, struct header *h,
                            struct tensor_file *file)
{
    uint64_t end = 0;
    put(h, "{");
    for (uint32_t i = 0; i < file->count; i++) {
        file->begins[i] = end;
        put(h, "%s", i ? "," : "");
        end = put_entry(h, &entries[i], end);
    }
    put(h, "}");
    while (h->used % ALIGN)
        put(h, " ");
    const uint64_t data = sizeof(uint64_t) + h->used;
    for (uint32_t i = 0; i < file->count; i++)
        file->begins[i] += data;
    return data + end;
}

/* ---- the file -------------------------------------------------------------------------------- */

static enum rt_status write_at(const struct tensor_file *file, uint64_t at, const void *data,
                               uint64_t bytes, struct rt_error *error)
{
    const char *from = data;
    while (bytes > 0) {
        const ssize_t wrote = pwrite(file->fd, from, bytes, (off_t)at);
        if (wrote < 0 && errno == EINTR)
            continue;
        if (wrote <= 0)
            return failed(file->path, wrote < 0 ? strerror(errno) : "no progress", error);
        from += wrote;
        at += (uint64_t)wrote;
        bytes -= (uint64_t)wrote;
    }
    return RT_OK;
}

/* A folder of that name would be found out when all is done. */
static enum rt_status open_beside(struct tensor_file *file, struct rt_error *error)
{
    struct stat info;
    const size_t bytes = strlen(file->path) + 32;
    if (stat(file->path, &info) == 0 && !S_ISREG(info.st_mode))
        return failed(file->path, "it is there and no regular file", error);
    file->beside = malloc(bytes);
    if (!file->beside)
        return failed(file->path, strerror(ENOMEM), error);
    (void)snprintf(file->beside, bytes, "%s.%ld.part", file->path, (long)getpid());
    file->fd = open(file->beside, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file->fd >= 0)
        return RT_OK;
    const enum rt_status status = failed(file->path, strerror(errno), error);
    free(file->beside); /* somebody else's, if anybody's */
    file->beside = NULL;
    return status;
}

enum rt_status tensor_file_create(const char *path, const struct tensor_file_entry *entries,
                                  uint32_t count, struct tensor_file *file, struct rt_error *error)
{
    struct header h = {.used = 0};
    *file = (struct tensor_file){.path = strdup(path), .fd = -1, .count = count};
    enum rt_status status =
        file->path ? open_beside(file, error) : failed(path, strerror(ENOMEM), error);
    const uint64_t size = make_header(entries, &h, file);
    const uint64_t header_bytes = h.used;
    if (status == RT_OK && ftruncate(file->fd, (off_t)size) != 0)
        status = failed(path, strerror(errno), error);
    if (status == RT_OK)
        status = write_at(file, 0, &header_bytes, sizeof(header_bytes), error);
    if (status == RT_OK)
        status = write_at(file, sizeof(header_bytes), h.text, h.used, error);
    if (status != RT_OK)
        tensor_file_abandon(file);
    return status;
}

enum rt_status tensor_file_write(struct tensor_file *file, uint32_t index, uint64_t offset,
                                 const void *data, uint64_t bytes, struct rt_error *error)
{
    assert(index < file->count);
    return write_at(file, file->begins[index] + offset, data, bytes, error);
}

enum rt_status tensor_file_finish(struct tensor_file *file, struct rt_error *error)
{
    enum rt_status status = RT_OK;
    const int closed = close(file->fd);
    file->fd = -1;
    if (closed != 0 || rename(file->beside, file->path) != 0) {
        status = failed(file->path, strerror(errno), error);
    } else {
        free(file->beside);
        file->beside = NULL;
    }
    tensor_file_abandon(file);
    return status;
}

void tensor_file_abandon(struct tensor_file *file)
{
    if (file->path && file->fd >= 0)
        (void)close(file->fd);
    if (file->beside)
        (void)unlink(file->beside);
    free(file->beside);
    free(file->path);
    *file = (struct tensor_file){.path = NULL};
}
