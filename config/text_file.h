/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_TEXT_FILE_H
#define RT_CONFIG_TEXT_FILE_H

/* Small files read whole, and file names fit for messages. */
#include "common/check.h"

#include <stddef.h>

/* Configuration and model files are kilobytes; anything larger is some other file. */
#define RT_TEXT_FILE_MAX_BYTES ((size_t)4 << 20)

#define RT_FILE_NAME_BYTES 160

/* The path for a message: a long one keeps its end, so that the message has room for its story. */
void rt_file_name(const char *path, char out[RT_FILE_NAME_BYTES]);

/*
 * Reads a regular file of at most RT_TEXT_FILE_MAX_BYTES. *text is the caller's to free, with room
 * for a NUL behind it. Never
 * waits for a pipe's other end. RT_ERR_FILE names the path and the reason; RT_ERR_NOMEM.
 */
enum rt_status rt_text_file_read(const char *path, char **text, size_t *bytes,
                                 struct rt_error *err);

/* `name` as seen from the folder that holds `file`; malloc'ed, null when out of memory. */
char *rt_path_beside(const char *file, const char *name);
/* `path`, or what is called `name` in it where it is a folder; likewise. */
char *rt_path_within(const char *path, const char *name);

#endif
