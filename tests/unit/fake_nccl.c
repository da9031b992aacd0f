/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/fake_nccl.h"

#include "tests/unit/fake_loader.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

struct fake_nccl fake_nccl;

/* Opens every function that may fail. */
#define CALL()                                                                                     \
    do {                                                                                           \
        if (++fake_nccl.calls == fake_nccl.fail_at)                                                \
            return FAKE_NCCL_FAILURE;                                                              \
    } while (0)

void fake_nccl_reset(void)
{
    fake_nccl = (struct fake_nccl){.found = "libnccl.so.2", .version = 22703, .given_count = 1};
}

static rt_nccl_result fake_GetVersion(int *out)
{
    CALL();
    *out = fake_nccl.version;
    return RT_NCCL_SUCCESS;
}

static const char *fake_GetErrorString(rt_nccl_result rc)
{
    return rc == FAKE_NCCL_FAILURE ? "internal error" : "remote process exited";
}

static rt_nccl_result fake_GetUniqueId(struct rt_nccl_id *out)
{
    CALL();
    (void)snprintf(out->bytes, sizeof(out->bytes), "an id");
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_CommInitRank(rt_nccl_comm *out, int ranks, struct rt_nccl_id id,
                                        int rank)
{
    CALL();
    fake_nccl.inside++;
    while (fake_nccl.stuck)
        continue;
    fake_nccl.inside--;
    if (rank < 0 || rank >= ranks || ranks > 4)
        return FAKE_NCCL_FAILURE;
    fake_nccl.ids[rank] = id;
    fake_nccl.made++;
    *out = (rt_nccl_comm)(void *)&fake_nccl.ids[rank];
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_CommDestroy(rt_nccl_comm comm)
{
    (void)comm;
    fake_nccl.made--;
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_CommAbort(rt_nccl_comm comm)
{
    (void)comm;
    while (fake_nccl.stuck_abort)
        continue;
    fake_nccl.stuck_exchange = 0;
    while (fake_nccl.graphs)
        continue;
    fake_nccl.made--;
    fake_nccl.aborts++;
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_CommGetAsyncError(rt_nccl_comm comm, rt_nccl_result *out)
{
    (void)comm;
    CALL();
    *out = fake_nccl.async;
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_CommCount(rt_nccl_comm comm, int *out)
{
    (void)comm;
    CALL();
    *out = fake_nccl.given_count;
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_CommUserRank(rt_nccl_comm comm, int *out)
{
    (void)comm;
    CALL();
    *out = fake_nccl.given_rank;
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result exchanged(const char *call, const void *from, void *to, size_t count,
                                int dtype, int sum, void *stream)
{
    CALL();
    while (fake_nccl.stuck_exchange)
        continue;
    if (fake_nccl.touch) /* as kernels of it would */
        fake_nccl.touch(from, to, stream);
    (void)snprintf(fake_nccl.call, sizeof(fake_nccl.call), "%s", call);
    fake_nccl.from = from;
    fake_nccl.to = to;
    fake_nccl.count = count;
    fake_nccl.dtype = dtype;
    fake_nccl.sum = sum;
    fake_nccl.stream = stream;
    fake_nccl.exchanges++;
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_AllReduce(const void *from, void *to, size_t count, int dtype, int op,
                                     rt_nccl_comm comm, void *stream)
{
    (void)comm;
    return exchanged("AllReduce", from, to, count, dtype, op == RT_NCCL_SUM, stream);
}

static rt_nccl_result fake_AllGather(const void *from, void *to, size_t count, int dtype,
                                     rt_nccl_comm comm, void *stream)
{
    (void)comm;
    return exchanged("AllGather", from, to, count, dtype, 0, stream);
}

static rt_nccl_result fake_ReduceScatter(const void *from, void *to, size_t count, int dtype,
                                         int op, rt_nccl_comm comm, void *stream)
{
    (void)comm;
    return exchanged("ReduceScatter", from, to, count, dtype, op == RT_NCCL_SUM, stream);
}

static rt_nccl_result fake_GroupStart(void)
{
    CALL();
    fake_nccl.groups++;
    fake_nccl.sends = fake_nccl.receives = 0;
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_GroupEnd(void)
{
    fake_nccl.groups--;
    CALL();
    return RT_NCCL_SUCCESS;
}

static rt_nccl_result fake_Send(const void *from, size_t count, int dtype, int peer,
                                rt_nccl_comm comm, void *stream)
{
    (void)comm;
    fake_nccl.places[0][fake_nccl.sends] = (uintptr_t)from;
    fake_nccl.peers[0][fake_nccl.sends++] = peer;
    return exchanged("Send", from, fake_nccl.to, count, dtype, 0, stream);
}

static rt_nccl_result fake_Recv(void *to, size_t count, int dtype, int peer, rt_nccl_comm comm,
                                void *stream)
{
    (void)comm;
    fake_nccl.places[1][fake_nccl.receives] = (uintptr_t)to;
    fake_nccl.peers[1][fake_nccl.receives++] = peer;
    return exchanged("Recv", fake_nccl.from, to, count, dtype, 0, stream);
}

/* ---- the loader ---- */

static const struct rt_nccl_api fake_api = {
#define RT_NCCL_SYMBOL(name, result, arguments) .name = fake_##name,
#include "driver/comm/comm_nccl_symbols.inc"
#undef RT_NCCL_SYMBOL
};
const struct rt_nccl_api *fake_nccl_api(void)
{
    return &fake_api;
}

static bool open_it(const char *name, int flags, char *story, size_t bytes)
{
    const size_t used = strlen(fake_nccl.tried);
    (void)snprintf(fake_nccl.tried + used, sizeof(fake_nccl.tried) - used, "%s ", name);
    if (fake_nccl.found && strcmp(name, fake_nccl.found) == 0 && flags & RTLD_NOW)
        return true;
    (void)snprintf(story, bytes, "%s: no such file", name);
    return false;
}

static void *find_symbol(const char *name)
{
    void *p = NULL;
#define RT_NCCL_SYMBOL(symbol, result, arguments)                                                  \
    if (strcmp(name, "nccl" #symbol) == 0)                                                         \
        memcpy(&p, &fake_api.symbol, sizeof(p));
#include "driver/comm/comm_nccl_symbols.inc"
#undef RT_NCCL_SYMBOL
    return p;
}

const struct fake_library fake_library = {.names = "libnccl",
                                          .open = open_it,
                                          .find = find_symbol,
                                          .lacks = &fake_nccl.lacks,
                                          .loaded = &fake_nccl.loaded};
