/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_FAKE_LOADER_H
#define RT_TESTS_UNIT_FAKE_LOADER_H

/* In front of the loader, for programs that are linked with --wrap of dlopen, dlsym, dlclose and
 * dlerror: the one library that a program has a stand-in for. Any other is the loader's. */
#include <stdbool.h>
#include <stddef.h>

struct fake_library {
    const char *names; /* of libraries that are it: they have this in them */
    /* Whether the file of that name can be loaded; if not, what dlerror says of it. */
    bool (*open)(const char *name, int flags, char *story, size_t bytes);
    void *(*find)(const char *symbol); /* null: it has none of that name */
    const char **lacks;                /* a symbol that it has not, though `find` has; or null */
    int *loaded;                       /* counts who has opened and not closed it */
};

/* The program's own. */
extern const struct fake_library fake_library;

#endif
