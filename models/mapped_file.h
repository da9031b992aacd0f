/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_MODELS_MAPPED_FILE_H
#define RT_MODELS_MAPPED_FILE_H

/* Whole files in memory that the system reads where they are looked at. */
#include "models/fail.h"

#include <stdbool.h>

#define RT_PATH_BYTES 4096

struct rt_mapped_file {
    const void *data; /* null: nothing is mapped, as of an empty file */
    size_t bytes;
};

/* Of a regular file; never waits for a pipe's other end. Blocks. RT_ERR_FILE names the path and the
 * reason. */
enum rt_status rt_mapped_file_open(const char *path, struct rt_mapped_file *out,
                                   struct rt_error *err);
void rt_mapped_file_close(struct rt_mapped_file *file);

/* Joins two parts of a path; RT_ERR_FILE where it would be RT_PATH_BYTES long or longer. */
enum rt_status rt_path_join(const char *folder, const char *name, char out[RT_PATH_BYTES],
                            struct rt_error *err);
/* The path for a message: a long one keeps its end, so that there is room for the story. */
#define RT_PATH_LABEL_BYTES 160
void rt_path_label(const char *path, char out[RT_PATH_LABEL_BYTES]);
bool rt_path_is_folder(const char *path);
/* Also where it is a symbolic link that leads nowhere. */
bool rt_path_exists(const char *path);

#endif
