/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/regular_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum rt_status regular_file_open(const char *path, int *fd, size_t *bytes, struct rt_error *error)
{
    /* Without the flag, opening a pipe would wait for somebody to write into it. */
    *fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (*fd < 0)
        return rt_error_set(error, RT_ERR_FILE, "%s: %s", path, strerror(errno));
    struct stat info;
    enum rt_status status = RT_OK;
    if (fstat(*fd, &info) != 0)
        status = rt_error_set(error, RT_ERR_FILE, "%s: %s", path, strerror(errno));
    else if (!S_ISREG(info.st_mode))
        status = rt_error_set(error, RT_ERR_FILE, "%s: not a regular file", path);
    if (status == RT_OK) {
        *bytes = (size_t)info.st_size;
        return RT_OK;
    }
    (void)close(*fd);
    *fd = -1;
    return status;
}
