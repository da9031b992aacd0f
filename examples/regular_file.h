/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_REGULAR_FILE_H
#define RT_EXAMPLES_REGULAR_FILE_H

#include "replayrt/status.h"

#include <stddef.h>

/*
 * Opens a file for reading that is one: a pipe without a writer, a device or a folder is refused in
 * place of waited for. *fd is the caller's to close, *bytes the file's size. RT_ERR_FILE, with the
 * path and the reason.
 */
enum rt_status regular_file_open(const char *path, int *fd, size_t *bytes, struct rt_error *error);

#endif
