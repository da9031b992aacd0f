/* SPDX-License-Identifier: Apache-2.0 */
/* Which attention kernel serves a request, or the first reason why none does. */
#include "common/math.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/project_sm90.h"
#include "kernels/images.h"
#include "kernels/ops/op_build.h"

#include <stdio.h>
#include <string.h>

/* The schedule's price of a piece, and its least size, in blocks of 64 tokens. */
#define GENERIC_OVERHEAD_BLOCKS 2
#define GENERIC_MIN_BLOCKS 2
#define SM90_OVERHEAD_BLOCKS 0
#define SM90_MIN_BLOCKS 1

/* The C references know no tiles; this keeps plans on the host like those on a large GPU. */
#define HOST_TILE_ROWS 64

#define SM90_CC 90

/* What the hardware takes of an SM's shared memory for each resident block. */
#define SMEM_RESERVED_BYTES 1024u

struct attend_kernel {
    enum rt_backend backend;
    const char *entry;
    uint32_t d_qk, d_v, tile_rows;
    uint32_t threads, smem_bytes;
    uint32_t blocks_per_sm; /* that its registers allow */
    uint32_t overhead_blocks, min_blocks;
};

/* By backend, then geometry, then rising tile_rows. */
static const struct attend_kernel attend_kernels[] = {
#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)
#define RT_ATTEND_GENERIC(d_qk_, d_v_, tile_rows_)                                                 \
    {.backend = RT_BACKEND_GENERIC,                                                                \
     .entry = "rt_mla_attend_" #d_qk_ "x" #d_v_ "_r" #tile_rows_,                                  \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = (tile_rows_),                                                                    \
     .threads = RT_ATTEND_GENERIC_THREADS,                                                         \
     .smem_bytes = RT_ATTEND_GENERIC_SMEM_BYTES(tile_rows_, d_qk_),                                \
     .blocks_per_sm = RT_ATTEND_GENERIC_BLOCKS_PER_SM(tile_rows_, d_qk_),                          \
     .overhead_blocks = GENERIC_OVERHEAD_BLOCKS,                                                   \
     .min_blocks = GENERIC_MIN_BLOCKS},
#define RT_ATTEND_SM90(d_qk_, d_v_, kind_, tile_rows_)                                             \
    {.backend = RT_BACKEND_SM90,                                                                   \
     .entry = "rt_mla_sm90_" #d_qk_ "x" #d_v_ "_" #kind_,                                          \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = (tile_rows_),                                                                    \
     .threads = RT_ATTEND_SM90_THREADS,                                                            \
     .smem_bytes = RT_ATTEND_SM90_SMEM_BYTES(tile_rows_, d_qk_, d_v_),                             \
     .blocks_per_sm = 1,                                                                           \
     .overhead_blocks = SM90_OVERHEAD_BLOCKS,                                                      \
     .min_blocks = SM90_MIN_BLOCKS},
#include "kernels/kernels.inc"
};
#define ATTEND_COUNT (sizeof(attend_kernels) / sizeof(attend_kernels[0]))

const char *rt_backend_name(enum rt_backend backend)
{
    switch (backend) {
    case RT_BACKEND_AUTO:
        return "auto";
    case RT_BACKEND_GENERIC:
        return "generic";
    case RT_BACKEND_SM90:
        return "sm90";
    }
    return "unknown";
}

static bool serves(const struct attend_kernel *kernel, const struct rt_op_request *request)
{
    return kernel->d_qk == request->kv->d_qk && kernel->d_v == request->kv->d_v;
}

/* "576/512, 320/256, …": geometries stand together in the table. */
static void list_geometries(char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < ATTEND_COUNT && used < bytes; i++) {
        const struct attend_kernel *kernel = &attend_kernels[i];
        if (kernel->backend != RT_BACKEND_GENERIC ||
            (i > 0 && kernel->d_qk == attend_kernels[i - 1].d_qk))
            continue;
        int n = snprintf(text + used, bytes - used, "%s%u/%u", used ? ", " : "", kernel->d_qk,
                         kernel->d_v);
        used += n > 0 ? (size_t)n : 0;
    }
}

static enum rt_status check_request(const struct rt_op_request *request, struct rt_error *err)
{
    size_t i = 0;
    while (i < ATTEND_COUNT && !serves(&attend_kernels[i], request))
        i++;
    if (i == ATTEND_COUNT) {
        char served[128];
        list_geometries(served, sizeof(served));
        return rt_fail(err, RT_ERR_GEOMETRY, "no kernel serves d_qk/d_v %u/%u; served are %s",
                       request->kv->d_qk, request->kv->d_v, served);
    }
    RT_REQUIRE(request->heads >= 1 && request->heads <= RT_MAX_HEADS, err, RT_ERR_GEOMETRY,
               "%u heads per GPU; 1 to %u are served", request->heads, RT_MAX_HEADS);
    RT_REQUIRE(request->q_len >= 1 && request->q_len <= RT_MAX_QUERY_LEN, err, RT_ERR_UNSUPPORTED,
               "query length %u; 1 to %u are served", request->q_len, RT_MAX_QUERY_LEN);
    uint32_t page = request->page_size;
    RT_REQUIRE(page == 16 || page == 32 || page == 64 || page == 128, err, RT_ERR_UNSUPPORTED,
               "page size %u; 16, 32, 64 and 128 are served", page);
    RT_REQUIRE(request->kv->layout == RT_KV_BF16, err, RT_ERR_UNSUPPORTED,
               "KV layout %d; only bf16 (0) is served", (int)request->kv->layout);
    return RT_OK;
}

/* A build without any device code plans for all devices; one with some has what it has. */
static bool sm90_is_built(void)
{
    const struct rt_built_image *built = rt_built_images;
    while (built->name && strncmp(built->name, "mla_sm90_", strlen("mla_sm90_")) != 0)
        built++;
    return built->name || !rt_built_images[0].name;
}

enum rt_status rt_check_sm90(const struct rt_device_caps *caps, struct rt_error *err)
{
    if (caps->kind == RT_DEVICE_KIND_HOST && caps->cc == 0)
        return rt_fail(err, RT_ERR_UNSUPPORTED,
                       "backend sm90 needs compute capability 9.0, this is the host device");
    if (caps->cc != SM90_CC)
        return rt_fail(err, RT_ERR_UNSUPPORTED,
                       "backend sm90 needs compute capability 9.0, %s has %u.%u", caps->name,
                       caps->cc / 10, caps->cc % 10);
    RT_REQUIRE(sm90_is_built(), err, RT_ERR_UNSUPPORTED,
               "backend sm90: this build's gpu_archs have no 90a");
    return RT_OK;
}

/* The smallest tile that holds all query rows; where there are more, 64 at a time. */
static const struct attend_kernel *pick_sm90(const struct rt_op_request *request)
{
    const uint32_t wanted = request->heads * request->q_len;
    const struct attend_kernel *best = NULL;
    for (size_t i = 0; i < ATTEND_COUNT; i++) {
        const struct attend_kernel *kernel = &attend_kernels[i];
        if (kernel->backend == RT_BACKEND_SM90 && serves(kernel, request) &&
            (!best || best->tile_rows < wanted))
            best = kernel;
    }
    return best;
}

/* The smallest tile that holds all query rows, or the largest that the device has room for. */
static enum rt_status pick_generic(const struct rt_device_caps *caps,
                                   const struct rt_op_request *request,
                                   const struct attend_kernel **out, struct rt_error *err)
{
    bool host = caps->kind == RT_DEVICE_KIND_HOST;
    uint32_t wanted = host ? HOST_TILE_ROWS : request->heads * request->q_len;
    uint32_t least_bytes = UINT32_MAX;
    *out = NULL;
    if (!host && caps->cc < RT_GENERIC_CC_MIN)
        return rt_fail(err, RT_ERR_UNSUPPORTED,
                       "backend generic needs compute capability 8.0 or later, %s has %u.%u",
                       caps->name, caps->cc / 10, caps->cc % 10);
    for (size_t i = 0; i < ATTEND_COUNT; i++) {
        const struct attend_kernel *kernel = &attend_kernels[i];
        if (kernel->backend != RT_BACKEND_GENERIC || !serves(kernel, request))
            continue;
        least_bytes = rt_min_u32(least_bytes, kernel->smem_bytes);
        bool fits = host || kernel->smem_bytes <= caps->smem_optin_bytes;
        if (fits && (!*out || (*out)->tile_rows < wanted))
            *out = kernel;
    }
    RT_REQUIRE(*out, err, RT_ERR_UNSUPPORTED,
               "backend generic needs %u bytes of shared memory per block, %s has %u", least_bytes,
               caps->name, caps->smem_optin_bytes);
    return RT_OK;
}

static uint32_t concurrent_blocks(const struct rt_device_caps *caps,
                                  const struct attend_kernel *kernel)
{
    if (caps->kind == RT_DEVICE_KIND_HOST)
        return caps->sm_count;
    uint32_t per_sm =
        (caps->smem_optin_bytes + SMEM_RESERVED_BYTES) / (kernel->smem_bytes + SMEM_RESERVED_BYTES);
    return caps->sm_count * rt_min_u32(per_sm, kernel->blocks_per_sm);
}

static void describe(const struct rt_device_caps *caps, const struct rt_op_request *request,
                     const struct attend_kernel *kernel, const struct rt_variant *choice,
                     const char *why_not, char *text)
{
    const uint32_t rows = request->heads * request->q_len;
    if (kernel->backend == RT_BACKEND_SM90)
        (void)snprintf(text, RT_REASON_BYTES, "sm90%s, tiles of %u rows for %u, %u parts",
                       request->backend == RT_BACKEND_AUTO ? "" : " as asked for",
                       kernel->tile_rows, rows, choice->parts);
    else if (caps->kind == RT_DEVICE_KIND_HOST)
        (void)snprintf(text, RT_REASON_BYTES, "generic: the C references of the host device");
    else if (request->backend == RT_BACKEND_AUTO)
        (void)snprintf(text, RT_REASON_BYTES, "generic, tiles of %u rows for %u; not sm90: %.120s",
                       kernel->tile_rows, rows, why_not);
    else
        (void)snprintf(text, RT_REASON_BYTES,
                       "generic as asked for, tiles of %u rows for %u, %u parts", kernel->tile_rows,
                       rows, choice->parts);
}

static void choose(const struct rt_device_caps *caps, const struct rt_op_request *request,
                   const struct attend_kernel *kernel, const char *why_not, struct rt_variant *out)
{
    uint32_t m_tiles = rt_ceil_div_u32(request->heads * request->q_len, kernel->tile_rows);
    struct rt_variant choice = {
        .op = RT_OP_ATTEND,
        .backend = kernel->backend,
        .entry = kernel->entry,
        .tile_rows = kernel->tile_rows,
        .m_tiles = m_tiles,
        .parts = rt_max_u32(1, concurrent_blocks(caps, kernel) / m_tiles),
        .threads = kernel->threads,
        .smem_bytes = kernel->smem_bytes,
        .overhead_blocks = kernel->overhead_blocks,
        .min_blocks = kernel->min_blocks,
    };
    describe(caps, request, kernel, &choice, why_not, choice.reason);
    *out = choice;
}

enum rt_status rt_attend_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                 struct rt_error *err)
{
    const struct rt_device_caps *caps = request->caps;
    RT_TRY(check_request(request, err));
    struct rt_error why_not = {0};
    const struct attend_kernel *kernel;
    switch (request->backend) {
    case RT_BACKEND_SM90:
        RT_TRY(rt_check_sm90(caps, err));
        kernel = pick_sm90(request);
        break;
    case RT_BACKEND_AUTO:
        if (rt_check_sm90(caps, &why_not) == RT_OK)
            kernel = pick_sm90(request);
        else
            RT_TRY(pick_generic(caps, request, &kernel, err));
        break;
    case RT_BACKEND_GENERIC:
        RT_TRY(pick_generic(caps, request, &kernel, err));
        break;
    default:
        return rt_fail(err, RT_ERR_UNSUPPORTED, "backend %d is not known", (int)request->backend);
    }
    choose(caps, request, kernel, why_not.message, out);
    return RT_OK;
}
