/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_loader.h"

#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

void *__real_dlopen(const char *name, int flags);
void *__real_dlsym(void *handle, const char *name);
int __real_dlclose(void *handle);
char *__real_dlerror(void);
void *__wrap_dlopen(const char *name, int flags);
void *__wrap_dlsym(void *handle, const char *name);
int __wrap_dlclose(void *handle);
char *__wrap_dlerror(void);

static char load_error[128];

static void *handle_of_it(void)
{
    return (void *)(uintptr_t)&fake_library;
}

void *__wrap_dlopen(const char *name, int flags)
{
    if (!strstr(name, fake_library.names))
        return __real_dlopen(name, flags);
    if (!fake_library.open(name, flags, load_error, sizeof(load_error)))
        return NULL;
    ++*fake_library.loaded;
    return handle_of_it();
}

char *__wrap_dlerror(void)
{
    static char told[sizeof(load_error)];
    if (load_error[0] == '\0')
        return __real_dlerror();
    memcpy(told, load_error, sizeof(told));
    load_error[0] = '\0';
    return told;
}

int __wrap_dlclose(void *handle)
{
    if (handle != handle_of_it())
        return __real_dlclose(handle);
    --*fake_library.loaded;
    return 0;
}

void *__wrap_dlsym(void *handle, const char *name)
{
    if (handle != handle_of_it())
        return __real_dlsym(handle, name);
    const char *const lacks = *fake_library.lacks;
    return lacks && strcmp(lacks, name) == 0 ? NULL : fake_library.find(name);
}
