/* SPDX-License-Identifier: Apache-2.0 */
#include "config/text_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void rt_file_name(const char *path, char out[RT_FILE_NAME_BYTES])
{
    static const char mark[] = "...";
    size_t length = strlen(path);
    if (length < RT_FILE_NAME_BYTES) {
        memcpy(out, path, length + 1);
        return;
    }
    size_t kept = RT_FILE_NAME_BYTES - sizeof(mark);
    memcpy(out, mark, sizeof(mark) - 1);
    memcpy(out + sizeof(mark) - 1, path + length - kept, kept + 1);
}

static enum rt_status fail_errno(const char *path, int number, struct rt_error *err)
{
    char name[RT_FILE_NAME_BYTES];
    char reason[128];
    struct stat about;
    rt_file_name(path, name);
    RT_REQUIRE(number != ENOENT || lstat(path, &about) != 0, err, RT_ERR_FILE,
               "cannot read %s: it is a symbolic link to a file that is not there", name);
    if (strerror_r(number, reason, sizeof(reason)) != 0)
        (void)snprintf(reason, sizeof(reason), "errno %d", number);
    return rt_fail(err, RT_ERR_FILE, "cannot read %s: %s", name, reason);
}

static enum rt_status fail_kind(const char *path, mode_t mode, struct rt_error *err)
{
    char name[RT_FILE_NAME_BYTES];
    rt_file_name(path, name);
    return rt_fail(err, RT_ERR_FILE, "cannot read %s: it is %s, must be a regular file", name,
                   S_ISDIR(mode) ? "a directory" : "a device, pipe or socket");
}

/* One byte more than the limit is room to notice a file that is too large, whatever stat says. */
static enum rt_status read_all(int fd, const char *path, char *text, size_t *bytes,
                               struct rt_error *err)
{
    size_t have = 0;
    while (have <= RT_TEXT_FILE_MAX_BYTES) {
        ssize_t got = read(fd, text + have, RT_TEXT_FILE_MAX_BYTES + 1 - have);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(path, errno, err);
        if (got == 0)
            break;
        have += (size_t)got;
    }
    char name[RT_FILE_NAME_BYTES];
    rt_file_name(path, name);
    RT_REQUIRE(have <= RT_TEXT_FILE_MAX_BYTES, err, RT_ERR_FILE,
               "cannot read %s: it is larger than %zu bytes", name, RT_TEXT_FILE_MAX_BYTES);
    *bytes = have;
    return RT_OK;
}

enum rt_status rt_text_file_read(const char *path, char **text, size_t *bytes, struct rt_error *err)
{
    enum rt_status status = RT_OK;
    char *buffer = NULL;
    struct stat about;
    *text = NULL;
    *bytes = 0;
    /* O_NONBLOCK: opening a pipe without a writer returns, and is refused below. */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return fail_errno(path, errno, err);
    if (fstat(fd, &about) != 0) {
        status = fail_errno(path, errno, err);
        goto fail;
    }
    if (!S_ISREG(about.st_mode)) {
        status = fail_kind(path, about.st_mode, err);
        goto fail;
    }
    buffer = malloc(RT_TEXT_FILE_MAX_BYTES + 1);
    if (!buffer) {
        status = rt_fail(err, RT_ERR_NOMEM, "no memory to read %s", path);
        goto fail;
    }
    RT_TRY_GOTO(read_all(fd, path, buffer, bytes, err));
    *text = buffer;
    (void)close(fd);
    return RT_OK;
fail:
    free(buffer);
    (void)close(fd);
    return status;
}

char *rt_path_beside(const char *file, const char *name)
{
    const char *slash = strrchr(file, '/');
    size_t folder = name[0] != '/' && slash ? (size_t)(slash - file) + 1 : 0;
    size_t length = strlen(name);
    char *path = malloc(folder + length + 1);
    if (!path)
        return NULL;
    memcpy(path, file, folder);
    memcpy(path + folder, name, length + 1);
    return path;
}

char *rt_path_within(const char *path, const char *name)
{
    struct stat about;
    const bool is_folder = stat(path, &about) == 0 && S_ISDIR(about.st_mode);
    const size_t bytes = strlen(path) + (is_folder ? strlen(name) + 1 : 0) + 1;
    char *out = malloc(bytes);
    if (out)
        (void)snprintf(out, bytes, "%s%s%s", path, is_folder ? "/" : "", is_folder ? name : "");
    return out;
}
