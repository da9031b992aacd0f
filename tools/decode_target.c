/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/decode_target.h"

#include "tools/complain.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool same_file(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static bool ends_with(const char *text, const char *end)
{
    const size_t bytes = strlen(text), of_end = strlen(end);
    return bytes >= of_end && strcmp(text + bytes - of_end, end) == 0;
}

/* A checkpoint is named by its folder or by a file in it. */
static DIR *open_folder(const char *checkpoint)
{
    DIR *folder = opendir(checkpoint);
    if (folder)
        return folder;
    char *path = strdup(checkpoint), *slash = path ? strrchr(path, '/') : NULL;
    if (slash)
        slash[slash == path] = '\0'; /* of the root, the slash stays */
    folder = path ? opendir(slash ? path : ".") : NULL;
    free(path);
    return folder;
}

static bool in_folder(DIR *folder, const struct stat *target, const char *path)
{
    for (const struct dirent *entry; (entry = readdir(folder));) {
        struct stat info;
        if (!ends_with(entry->d_name, ".safetensors") && !ends_with(entry->d_name, ".json"))
            continue;
        if (fstatat(dirfd(folder), entry->d_name, &info, 0) != 0 || !same_file(&info, target))
            continue;
        complain("--dump %s would be written over %s of the checkpoint: name another file", path,
                 entry->d_name);
        return true;
    }
    return false;
}

/* What cannot be looked at has no file to lose, or fails where it is opened. */
bool decode_target_is_free(const char *path, const char *checkpoint, const char *config)
{
    struct stat target, info;
    if (stat(path, &target) != 0)
        return true;
    if (config && stat(config, &info) == 0 && same_file(&info, &target)) {
        complain("--dump %s would be written over --config %s: name another file", path, config);
        return false;
    }
    DIR *folder = open_folder(checkpoint);
    if (!folder)
        return true;
    const bool used = in_folder(folder, &target, path);
    (void)closedir(folder);
    return !used;
}
