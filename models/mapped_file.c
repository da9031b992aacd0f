/* SPDX-License-Identifier: Apache-2.0 */
#include "models/mapped_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static enum rt_status fail_errno(const char *path, struct rt_error *err)
{
    char reason[128], label[RT_PATH_LABEL_BYTES];
    struct stat about;
    const int number = errno;
    rt_path_label(path, label);
    RT_MODELS_REQUIRE(number != ENOENT || lstat(path, &about) != 0, err, RT_ERR_FILE,
                      "%s: a symbolic link to a file that is not there", label);
    if (strerror_r(number, reason, sizeof(reason)) != 0)
        (void)snprintf(reason, sizeof(reason), "errno %d", number);
    return rt_models_fail(err, RT_ERR_FILE, "%s: %s", label, reason);
}

static enum rt_status map_open(int fd, const char *path, struct rt_mapped_file *out,
                               struct rt_error *err)
{
    struct stat about;
    char label[RT_PATH_LABEL_BYTES];
    rt_path_label(path, label);
    if (fstat(fd, &about) != 0)
        return fail_errno(path, err);
    RT_MODELS_REQUIRE(S_ISREG(about.st_mode), err, RT_ERR_FILE, "%s: not a regular file", label);
    if (about.st_size == 0)
        return RT_OK;
    void *const data = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
        return fail_errno(path, err);
    *out = (struct rt_mapped_file){.data = data, .bytes = (size_t)about.st_size};
    return RT_OK;
}

/* What a clone without Git LFS has in a large file's place. */
static enum rt_status check_pointer(const struct rt_mapped_file *file, const char *path,
                                    struct rt_error *err)
{
    static const char begin[] = "version https://git-lfs.github.com/spec/";
    char label[RT_PATH_LABEL_BYTES];
    rt_path_label(path, label);
    RT_MODELS_REQUIRE(file->bytes < sizeof(begin) - 1 ||
                          memcmp(file->data, begin, sizeof(begin) - 1) != 0,
                      err, RT_ERR_FILE,
                      "%s: a Git LFS pointer of %zu bytes in the file's place: must be fetched, as "
                      "by git lfs pull",
                      label, file->bytes);
    return RT_OK;
}

enum rt_status rt_mapped_file_open(const char *path, struct rt_mapped_file *out,
                                   struct rt_error *err)
{
    *out = (struct rt_mapped_file){.data = NULL};
    /* Without the flag, opening a pipe would wait for somebody to write into it. */
    const int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(path, err);
    enum rt_status status = map_open(fd, path, out, err);
    (void)close(fd);
    if (status == RT_OK)
        status = check_pointer(out, path, err);
    if (status != RT_OK)
        rt_mapped_file_close(out);
    return status;
}

void rt_mapped_file_close(struct rt_mapped_file *file)
{
    union {
        const void *read;
        void *unmap; /* munmap's type for what was never to be written */
    } data = {.read = file->data};
    if (data.unmap)
        (void)munmap(data.unmap, file->bytes);
    *file = (struct rt_mapped_file){.data = NULL};
}

enum rt_status rt_path_join(const char *folder, const char *name, char out[RT_PATH_BYTES],
                            struct rt_error *err)
{
    const int wrote = snprintf(out, RT_PATH_BYTES, "%s/%s", folder, name);
    RT_MODELS_REQUIRE(wrote >= 0 && wrote < RT_PATH_BYTES, err, RT_ERR_FILE,
                      "the path of %s is longer than %d bytes", name, RT_PATH_BYTES - 1);
    return RT_OK;
}

void rt_path_label(const char *path, char out[RT_PATH_LABEL_BYTES])
{
    const size_t length = strlen(path), room = RT_PATH_LABEL_BYTES - 1;
    const char *const end = length > room ? path + length - (room - 3) : path;
    (void)snprintf(out, RT_PATH_LABEL_BYTES, "%s%s", length > room ? "..." : "", end);
}

bool rt_path_is_folder(const char *path)
{
    struct stat about;
    return stat(path, &about) == 0 && S_ISDIR(about.st_mode);
}

bool rt_path_exists(const char *path)
{
    struct stat about;
    return lstat(path, &about) == 0;
}
