/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target once on each file of the folders named: the corpus as an ordinary test. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_BYTES 1048576u

/* Returns 0, or 1 with the reason printed. */
static int run_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        return 1;
    }
    uint8_t *large = malloc(MAX_BYTES);
    const size_t size = large != NULL ? fread(large, 1, MAX_BYTES, file) : 0;
    const int bad = large == NULL || ferror(file) != 0 || size == MAX_BYTES;
    (void)fclose(file);
    /* A block of exactly the size, so that reading past its end is seen. */
    uint8_t *data = bad ? NULL : malloc(size > 0 ? size : 1);
    if (data == NULL) {
        fprintf(stderr, "%s: cannot be read, or has more than %u bytes\n", path, MAX_BYTES);
        free(large);
        return 1;
    }
    memcpy(data, large, size);
    free(large);
    (void)LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 0;
}

/* Returns the number of files run, or -1. */
static int run_folder(const char *folder)
{
    DIR *dir = opendir(folder);
    if (dir == NULL) {
        perror(folder);
        return -1;
    }
    int count = 0;
    const struct dirent *entry;
    while (count >= 0 && (entry = readdir(dir)) != NULL) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        const int wrote = snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (wrote < 0 || (size_t)wrote >= sizeof path || run_file(path) != 0)
            count = -1;
        else
            count++;
    }
    (void)closedir(dir);
    return count;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        const int count = run_folder(argv[i]);
        if (count <= 0)
            return 1;
        total += count;
    }
    printf("%d inputs\n", total);
    return total > 0 ? 0 : 1;
}
