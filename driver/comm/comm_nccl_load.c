/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/comm/comm_nccl.h"

#include <dlfcn.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The bare name is there where somebody develops. */
static const char *const libraries[] = {"libnccl.so.2", "libnccl.so"};
#define LIBRARY_COUNT (sizeof(libraries) / sizeof(libraries[0]))
#define TRIED "tried libnccl.so.2, libnccl.so; LD_LIBRARY_PATH must reach it"
#define NEEDED "needed is NCCL " RT_NCCL_OLDEST " or later"

static const struct {
    const char *name;
    size_t offset; /* in struct rt_nccl_api */
} symbols[] = {
#define RT_NCCL_SYMBOL(name, result, arguments) {"nccl" #name, offsetof(struct rt_nccl_api, name)},
#include "driver/comm/comm_nccl_symbols.inc"
#undef RT_NCCL_SYMBOL
};
#define SYMBOL_COUNT (sizeof(symbols) / sizeof(symbols[0]))

/* RTLD_NODELETE: it has threads and handlers of its own that outlive the handle. */
static enum rt_status find_library(struct rt_nccl *n, const char **name, struct rt_error *err)
{
    char reasons[2][160] = {"", ""};
    for (size_t i = 0; i < LIBRARY_COUNT; i++) {
        *name = libraries[i];
        n->library = dlopen(*name, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
        if (n->library)
            return RT_OK;
        const char *const why = dlerror();
        (void)snprintf(reasons[i], sizeof(reasons[i]), "%s", why ? why : *name);
    }
    return rt_fail(err, RT_ERR_UNSUPPORTED, "NCCL cannot be loaded (%s; %s): " TRIED, reasons[0],
                   reasons[1]);
}

static enum rt_status load_symbols(struct rt_nccl *n, const char *name, struct rt_error *err)
{
    for (size_t i = 0; i < SYMBOL_COUNT; i++) {
        void *const p = dlsym(n->library, symbols[i].name);
        RT_REQUIRE(p, err, RT_ERR_UNSUPPORTED, "%s lacks %s; " NEEDED, name, symbols[i].name);
        memcpy((char *)&n->api + symbols[i].offset, &p, sizeof(p));
    }
    return RT_OK;
}

/* Until 2.8 the library counted a version 1000 times its major number. */
static enum rt_status check_version(const struct rt_nccl *n, const char *name, struct rt_error *err)
{
    int found = 0;
    const rt_nccl_result rc = n->api.GetVersion(&found);
    RT_REQUIRE(rc == RT_NCCL_SUCCESS, err, RT_ERR_UNSUPPORTED, "%s: ncclGetVersion failed: %s",
               name, n->api.GetErrorString(rc));
    const int major = found < 10000 ? 1000 : 10000;
    RT_REQUIRE(found >= RT_NCCL_OLDEST_VERSION, err, RT_ERR_UNSUPPORTED,
               "%s is NCCL %d.%d; " NEEDED, name, found / major, found % major / 100);
    return RT_OK;
}

enum rt_status rt_nccl_load(struct rt_nccl *n, struct rt_error *err)
{
    enum rt_status status;
    const char *name = NULL;
    RT_TRY_GOTO(find_library(n, &name, err));
    RT_TRY_GOTO(load_symbols(n, name, err));
    RT_TRY_GOTO(check_version(n, name, err));
    return RT_OK;
fail:
    rt_nccl_unload(n);
    return status;
}

void rt_nccl_unload(struct rt_nccl *n)
{
    if (n->library)
        (void)dlclose(n->library);
    *n = (struct rt_nccl){0};
}
