/* SPDX-License-Identifier: Apache-2.0 */
/* Which attention kernel serves a request, dense or sparse, of bf16 or e4m3, or the first reason
 * why none does. */
#include "common/math.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/project_sm90.h"
#include "kernels/abi/quant_sm90.h"
#include "kernels/abi/sparse_sm90.h"
#include "kernels/images.h"
#include "kernels/ops/op_build.h"

#include <stdio.h>
#include <string.h>

/* How long the leaves of the batch-invariant ones are: kernels/abi/invariant.h. */
#define INVARIANT_FOLDED RT_INVARIANT_FOLDED(4u, 3u)
#define INVARIANT_PIECES RT_INVARIANT_PIECES(2u, 1u)

/* The schedule's price of a piece, and its least size, in blocks of 64 tokens. */
#define GENERIC_OVERHEAD_BLOCKS 2
#define GENERIC_MIN_BLOCKS 2
#define SM90_OVERHEAD_BLOCKS 0
#define SM90_MIN_BLOCKS 1

/* The C references know no tiles; this keeps plans on the host like those on a large GPU. */
#define HOST_TILE_ROWS 64

/* Two tiles share their keys where parts are no more than so many times the rows: a cluster begins
 * and ends 1 us later than a block, which long parts win back. Likewise workers that have blocks of
 * their own, whose segments end later. */
#define SHARED_PARTS_PER_ROW 2u
/* Entries up to which rows of few tokens are a cluster's: docs/sparse.md. */
#define WHOLE_TOPK 2048u
#define APART_PARTS_PER_ROW 2u

#define SM90_CC 90

/* What the hardware takes of an SM's shared memory for each resident block. */
#define SMEM_RESERVED_BYTES 1024u

struct attend_kernel {
    enum rt_op_id op;
    enum rt_backend backend;
    const char *entry;
    uint32_t d_qk, d_v, tile_rows;
    uint32_t threads, smem_bytes;
    uint32_t blocks_per_sm; /* that its registers allow */
    uint32_t overhead_blocks, min_blocks;
    uint32_t invariant; /* as rt_variant has it */
    enum rt_attend_scales scales;
};

/* By operator and backend, then geometry, then rising tile_rows. */
static const struct attend_kernel attend_kernels[] = {
#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)
#define GENERIC(op_, name_, smem_, blocks_, d_qk_, d_v_, tile_rows_)                               \
    {.op = (op_),                                                                                  \
     .backend = RT_BACKEND_GENERIC,                                                                \
     .entry = "rt_mla_" name_ "_" #d_qk_ "x" #d_v_ "_r" #tile_rows_,                               \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = (tile_rows_),                                                                    \
     .threads = RT_ATTEND_GENERIC_THREADS,                                                         \
     .smem_bytes = smem_(tile_rows_, d_qk_),                                                       \
     .blocks_per_sm = blocks_(tile_rows_, d_qk_),                                                  \
     .overhead_blocks = GENERIC_OVERHEAD_BLOCKS,                                                   \
     .min_blocks = GENERIC_MIN_BLOCKS},
#define RT_ATTEND_GENERIC(d_qk_, d_v_, tile_rows_)                                                 \
    GENERIC(RT_OP_ATTEND, "attend", RT_ATTEND_GENERIC_SMEM_BYTES, RT_ATTEND_GENERIC_BLOCKS_PER_SM, \
            d_qk_, d_v_, tile_rows_)
#define RT_ATTEND_QUANT(d_qk_, d_v_, tile_rows_)                                                   \
    GENERIC(RT_OP_ATTEND_QUANT, "attend_quant", RT_ATTEND_GENERIC_SMEM_BYTES,                      \
            RT_ATTEND_QUANT_BLOCKS_PER_SM, d_qk_, d_v_, tile_rows_)
#define RT_SPARSE_GENERIC(d_qk_, d_v_, tile_rows_)                                                 \
    GENERIC(RT_OP_SPARSE_ATTEND, "sparse", RT_SPARSE_GENERIC_SMEM_BYTES,                           \
            RT_ATTEND_GENERIC_BLOCKS_PER_SM, d_qk_, d_v_, tile_rows_)
#define RT_SPARSE_QUANT(d_qk_, d_v_, tile_rows_)                                                   \
    GENERIC(RT_OP_SPARSE_ATTEND_QUANT, "sparse_quant", RT_SPARSE_GENERIC_SMEM_BYTES,               \
            RT_ATTEND_QUANT_BLOCKS_PER_SM, d_qk_, d_v_, tile_rows_)
#define SM90(op_, name_, threads_, smem_, d_qk_, d_v_, kind_, tile_rows_, scales_)                 \
    {.op = (op_),                                                                                  \
     .backend = RT_BACKEND_SM90,                                                                   \
     .entry = "rt_mla_" name_ "_" #d_qk_ "x" #d_v_ "_" #kind_,                                     \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = (tile_rows_),                                                                    \
     .threads = (threads_),                                                                        \
     .smem_bytes = smem_(tile_rows_, d_qk_, d_v_),                                                 \
     .blocks_per_sm = 1,                                                                           \
     .overhead_blocks = SM90_OVERHEAD_BLOCKS,                                                      \
     .min_blocks = SM90_MIN_BLOCKS,                                                                \
     .scales = (scales_)},
/* The schedule knows no more of these than rows' own pieces; see kernels/abi/schedule.h. */
#define RT_ATTEND_GENERIC_FOLD(d_qk_, d_v_, tile_rows_)                                            \
    {.op = RT_OP_ATTEND,                                                                           \
     .backend = RT_BACKEND_GENERIC,                                                                \
     .entry = "rt_mla_attend_" #d_qk_ "x" #d_v_ "_f" #tile_rows_,                                  \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = (tile_rows_),                                                                    \
     .threads = RT_ATTEND_GENERIC_THREADS,                                                         \
     .smem_bytes = RT_ATTEND_FOLD_SMEM_BYTES(tile_rows_, d_qk_),                                   \
     .blocks_per_sm = RT_ATTEND_FOLD_BLOCKS_PER_SM(tile_rows_, d_qk_),                             \
     .min_blocks = 1,                                                                              \
     .invariant = INVARIANT_FOLDED},
#define INVARIANT_SM90(d_qk_, d_v_, kind_, tile_rows_, invariant_)                                 \
    {.op = RT_OP_ATTEND,                                                                           \
     .backend = RT_BACKEND_SM90,                                                                   \
     .entry = "rt_mla_sm90_" #d_qk_ "x" #d_v_ "_" #kind_ #tile_rows_,                              \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = (tile_rows_),                                                                    \
     .threads = RT_ATTEND_SM90_THREADS,                                                            \
     .smem_bytes = RT_ATTEND_SM90_SMEM_BYTES(tile_rows_, d_qk_, d_v_),                             \
     .blocks_per_sm = 1,                                                                           \
     .min_blocks = 1,                                                                              \
     .invariant = (invariant_)},
#define RT_ATTEND_SM90_FOLD(d_qk_, d_v_, tile_rows_)                                               \
    INVARIANT_SM90(d_qk_, d_v_, f, tile_rows_, INVARIANT_FOLDED)
#define RT_ATTEND_SM90_OWN(d_qk_, d_v_) INVARIANT_SM90(d_qk_, d_v_, p, 64, INVARIANT_PIECES)
#define RT_ATTEND_SM90(d_qk_, d_v_, kind_, tile_rows_)                                             \
    SM90(RT_OP_ATTEND, "sm90", RT_ATTEND_SM90_THREADS, RT_ATTEND_SM90_SMEM_BYTES, d_qk_, d_v_,     \
         kind_, tile_rows_, RT_ATTEND_SCALES_any)
#define RT_ATTEND_SM90_SHARED(d_qk_, d_v_, kind_, own_)
#define RT_ATTEND_APART_SM90(d_qk_, d_v_, tile_rows_, scales_)
#define RT_SPARSE_SM90(d_qk_, d_v_, kind_, tile_rows_)                                             \
    SM90(RT_OP_SPARSE_ATTEND, "sparse_sm90", RT_ATTEND_SM90_THREADS, RT_ATTEND_SM90_SMEM_BYTES,    \
         d_qk_, d_v_, kind_, tile_rows_, RT_ATTEND_SCALES_any)
#define RT_ATTEND_QUANT_SM90(d_qk_, d_v_, kind_, tile_rows_)                                       \
    SM90(RT_OP_ATTEND_QUANT, "quant_sm90", RT_ATTEND_QUANT_SM90_THREADS(tile_rows_),               \
         RT_ATTEND_QUANT_SM90_SMEM_BYTES, d_qk_, d_v_, kind_, tile_rows_, RT_ATTEND_SCALES_any)
#define RT_ATTEND_SCALES_SM90(d_qk_, d_v_, kind_, tile_rows_, scales_)                             \
    SM90(RT_OP_ATTEND_QUANT, "quant_sm90", RT_ATTEND_QUANT_SM90_THREADS(tile_rows_),               \
         RT_ATTEND_QUANT_SM90_SMEM_BYTES, d_qk_, d_v_, kind_##_##scales_, tile_rows_,              \
         RT_ATTEND_SCALES_##scales_)
#define RT_SPARSE_QUANT_SM90(d_qk_, d_v_, kind_, tile_rows_)                                       \
    SM90(RT_OP_SPARSE_ATTEND_QUANT, "sparse_quant_sm90", RT_ATTEND_QUANT_SM90_THREADS(tile_rows_), \
         RT_ATTEND_QUANT_SM90_SMEM_BYTES, d_qk_, d_v_, kind_, tile_rows_, RT_ATTEND_SCALES_any)
#include "kernels/kernels.inc"
};
#define ATTEND_COUNT (sizeof(attend_kernels) / sizeof(attend_kernels[0]))

/* Of many rows: of bf16 tiles of 64 query rows, two of which share their keys; of e4m3 those whose
 * workers have blocks of their own. */
static const struct many_kernel {
    enum rt_op_id op;
    const char *entry;
    uint32_t d_qk, d_v, tile_rows, threads;
    uint32_t tiles; /* by which those of a row go, each a cluster */
    uint32_t parts_per_row;
    bool own; /* batch-invariant */
    enum rt_attend_scales scales;
    const char *reason;
} many_kernels[] = {
#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)
#define RT_ATTEND_SM90_SHARED(d_qk_, d_v_, kind_, own_)                                            \
    {.op = RT_OP_ATTEND,                                                                           \
     .entry = "rt_mla_sm90_" #d_qk_ "x" #d_v_ "_" #kind_,                                          \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = 64,                                                                              \
     .threads = RT_ATTEND_SM90_THREADS,                                                            \
     .tiles = 2,                                                                                   \
     .parts_per_row = SHARED_PARTS_PER_ROW,                                                        \
     .own = (own_),                                                                                \
     .reason = "two share keys"},
#define RT_ATTEND_APART_SM90(d_qk_, d_v_, tile_rows_, scales_)                                     \
    {.op = RT_OP_ATTEND_QUANT,                                                                     \
     .entry = "rt_mla_quant_sm90_" #d_qk_ "x" #d_v_ "_t" #tile_rows_ "_" #scales_,                 \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = (tile_rows_),                                                                    \
     .threads = RT_ATTEND_APART_SM90_THREADS,                                                      \
     .tiles = 1,                                                                                   \
     .parts_per_row = APART_PARTS_PER_ROW,                                                         \
     .scales = RT_ATTEND_SCALES_##scales_,                                                         \
     .reason = "three workers"},
#include "kernels/kernels.inc"
};

/* Of few query tokens over lists. */
static const struct whole_kernel {
    const char *entry;
    uint32_t d_qk, d_v, tile_rows;
} whole_kernels[] = {
#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)
#define RT_SPARSE_SM90_WHOLE(d_qk_, d_v_, tile_rows_)                                              \
    {.entry = "rt_mla_sparse_sm90_" #d_qk_ "x" #d_v_ "_w" #tile_rows_,                             \
     .d_qk = (d_qk_),                                                                              \
     .d_v = (d_v_),                                                                                \
     .tile_rows = (tile_rows_)},
#include "kernels/kernels.inc"
};

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

/* The kind that a cache's layout is of. */
static enum rt_attend_scales scales_of(const struct rt_kv_format *kv)
{
    const bool has_tiles = kv->scale != RT_KV_SCALE_TENSOR && kv->tile_elements < kv->d_v;
    return has_tiles ? RT_ATTEND_SCALES_tiles : RT_ATTEND_SCALES_one;
}

static bool serves(const struct attend_kernel *kernel, enum rt_op_id op,
                   const struct rt_op_request *request)
{
    return kernel->op == op && kernel->d_qk == request->kv->d_qk &&
           kernel->d_v == request->kv->d_v &&
           (kernel->invariant != 0) == (request->invariant != 0) &&
           (kernel->scales == RT_ATTEND_SCALES_any || kernel->scales == scales_of(request->kv));
}

static bool is_sparse(enum rt_op_id op)
{
    return op == RT_OP_SPARSE_ATTEND || op == RT_OP_SPARSE_ATTEND_QUANT;
}

/* "576/512, 320/256, …": geometries stand together in the table. */
static void list_geometries(enum rt_op_id op, char *text, size_t bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < ATTEND_COUNT && used < bytes; i++) {
        const struct attend_kernel *kernel = &attend_kernels[i];
        if (kernel->op != op || kernel->backend != RT_BACKEND_GENERIC || kernel->invariant ||
            (i > 0 && kernel->d_qk == attend_kernels[i - 1].d_qk))
            continue;
        int n = snprintf(text + used, bytes - used, "%s%u/%u", used ? ", " : "", kernel->d_qk,
                         kernel->d_v);
        used += n > 0 ? (size_t)n : 0;
    }
}

/* An operator reads bf16, or what is quantised, and not the other. */
static enum rt_status check_layout(enum rt_op_id op, const struct rt_kv_format *kv,
                                   struct rt_error *err)
{
    const bool reads_quantised = op == RT_OP_ATTEND_QUANT || op == RT_OP_SPARSE_ATTEND_QUANT;
    RT_REQUIRE(rt_kv_layout_name(kv->layout), err, RT_ERR_UNSUPPORTED, "KV layout %d is not known",
               (int)kv->layout);
    RT_REQUIRE(rt_kv_is_quantised(kv) == reads_quantised, err, RT_ERR_UNSUPPORTED,
               "KV layout %s is not read by %s%s", rt_kv_layout_name(kv->layout), rt_op_name(op),
               reads_quantised ? ", which reads quantised ones" : ", which reads bf16");
    return RT_OK;
}

static enum rt_status check_request(enum rt_op_id op, const struct rt_op_request *request,
                                    struct rt_error *err)
{
    size_t i = 0;
    RT_REQUIRE(!request->invariant || op == RT_OP_ATTEND, err, RT_ERR_UNSUPPORTED,
               "batch-invariant attention is of all keys of bf16 caches, neither of lists nor of "
               "e4m3");
    while (i < ATTEND_COUNT && !serves(&attend_kernels[i], op, request))
        i++;
    if (i == ATTEND_COUNT) {
        char served[128];
        list_geometries(op, served, sizeof(served));
        return rt_fail(err, RT_ERR_GEOMETRY, "no kernel serves%s d_qk/d_v %u/%u; served are %s",
                       is_sparse(op) ? " sparse attention of" : "", request->kv->d_qk,
                       request->kv->d_v, served);
    }
    RT_REQUIRE(request->heads >= 1 && request->heads <= RT_MAX_HEADS, err, RT_ERR_GEOMETRY,
               "%u heads per GPU; 1 to %u are served", request->heads, RT_MAX_HEADS);
    RT_REQUIRE(request->q_len >= 1 && request->q_len <= RT_MAX_QUERY_LEN, err, RT_ERR_UNSUPPORTED,
               "query length %u; 1 to %u are served", request->q_len, RT_MAX_QUERY_LEN);
    RT_REQUIRE(is_sparse(op) || rt_page_size_served(request->page_size), err, RT_ERR_UNSUPPORTED,
               "page size %u; 1, 8, 16, 32, 64 and 128 are served", request->page_size);
    return check_layout(op, request->kv, err);
}

bool rt_page_size_served(uint32_t page_size)
{
    return page_size == 1 || page_size == 8 || page_size == 16 || page_size == 32 ||
           page_size == 64 || page_size == 128;
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

/* Query rows of a row, as the kernels have rows: a sparse one's is a query token. */
static uint32_t query_rows(enum rt_op_id op, const struct rt_op_request *request)
{
    return is_sparse(op) ? request->heads : request->heads * request->q_len;
}

/* The smallest tile that holds all query rows; where there are more, 64 at a time. Or the smaller
 * one that is asked for. */
static enum rt_status pick_sm90(enum rt_op_id op, const struct rt_op_request *request,
                                const struct attend_kernel **out, struct rt_error *err)
{
    const uint32_t small = rt_small_tile_rows(op, request);
    const uint32_t wanted = small ? small : query_rows(op, request);
    const struct attend_kernel *best = NULL;
    RT_TRY(rt_check_sm90(request->caps, err));
    RT_REQUIRE(is_sparse(op) || request->page_size >= 8, err, RT_ERR_UNSUPPORTED,
               "backend sm90 serves pages of 8, 16, 32, 64 and 128 tokens, not of %u",
               request->page_size);
    for (size_t i = 0; i < ATTEND_COUNT; i++) {
        const struct attend_kernel *kernel = &attend_kernels[i];
        if (kernel->backend == RT_BACKEND_SM90 && serves(kernel, op, request) &&
            (!best || best->tile_rows < wanted))
            best = kernel;
    }
    *out = best;
    return RT_OK;
}

/* The smallest tile that holds all query rows, or the largest that the device has room for. */
static enum rt_status pick_generic(enum rt_op_id op, const struct rt_op_request *request,
                                   const struct attend_kernel **out, struct rt_error *err)
{
    const struct rt_device_caps *caps = request->caps;
    bool host = caps->kind == RT_DEVICE_KIND_HOST;
    uint32_t wanted = host ? HOST_TILE_ROWS : query_rows(op, request);
    uint32_t least_bytes = UINT32_MAX;
    *out = NULL;
    if (!host && caps->cc < RT_GENERIC_CC_MIN)
        return rt_fail(err, RT_ERR_UNSUPPORTED,
                       "backend generic needs compute capability 8.0 or later, %s has %u.%u",
                       caps->name, caps->cc / 10, caps->cc % 10);
    for (size_t i = 0; i < ATTEND_COUNT; i++) {
        const struct attend_kernel *kernel = &attend_kernels[i];
        if (kernel->backend != RT_BACKEND_GENERIC || !serves(kernel, op, request))
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

/* Null: none. Of an odd number of tiles the last would have nobody to share with. */
static const struct many_kernel *find_many(const struct attend_kernel *kernel, uint32_t m_tiles)
{
    for (size_t i = 0; i < sizeof(many_kernels) / sizeof(many_kernels[0]); i++) {
        const struct many_kernel *many = &many_kernels[i];
        if (kernel->backend == RT_BACKEND_SM90 && many->own == (kernel->invariant != 0) &&
            many->op == kernel->op && many->d_qk == kernel->d_qk && many->d_v == kernel->d_v &&
            many->tile_rows == kernel->tile_rows && many->scales == kernel->scales &&
            m_tiles % many->tiles == 0)
            return many;
    }
    return NULL;
}

/*
 * Where as many clusters as there are query tokens have room at the same time, for one more waits
 * for a whole row; and from half of those on, for fewer leave most of the device idle: of two tiles
 * of eight query rows, which send twice as much, one more. Of an H200's 132 multiprocessors 15
 * clusters of 8 have room, since an eleventh of them are neighbours of too few; another device may
 * have less, and a row waits there. Of longer lists each block has so many keys that rows cut over
 * all multiprocessors are quicker.
 */
static void find_whole(const struct rt_device_caps *caps, const struct attend_kernel *kernel,
                       struct rt_variant *choice)
{
    const uint32_t neighbours = caps->sm_count - caps->sm_count / 11;
    const uint32_t most = neighbours / RT_SPARSE_WHOLE_BLOCKS / choice->m_tiles;
    if (kernel->op != RT_OP_SPARSE_ATTEND || kernel->backend != RT_BACKEND_SM90 || most == 0)
        return;
    for (size_t i = 0; i < sizeof(whole_kernels) / sizeof(whole_kernels[0]); i++) {
        const struct whole_kernel *whole = &whole_kernels[i];
        if (whole->d_qk != kernel->d_qk || whole->d_v != kernel->d_v ||
            whole->tile_rows != kernel->tile_rows)
            continue;
        choice->whole_entry = whole->entry;
        choice->whole_least = rt_max_u32(1, (most + 1) / 2) + (whole->tile_rows > 8 ? 1 : 0);
        choice->whole_most = most;
        choice->whole_topk = WHOLE_TOPK;
    }
}

static void describe(const struct rt_device_caps *caps, const struct rt_op_request *request,
                     const struct attend_kernel *kernel, const struct rt_variant *choice,
                     const struct many_kernel *of_many, const char *why_not, char *text)
{
    const uint32_t rows = query_rows(kernel->op, request);
    const char *invariant = kernel->invariant ? ", batch-invariant" : "";
    char few[64] = "", many[64] = "";
    if (rt_small_tile_rows(kernel->op, request)) {
        const struct rt_small_tile_limit limit = rt_small_tile_limit_of(kernel->op, request);
        (void)snprintf(few, sizeof(few), " up to batch %u and %u blocks of keys", limit.rows,
                       limit.blocks);
    }
    if (choice->whole_entry)
        (void)snprintf(few, sizeof(few), ", whole ones by %u blocks of %u to %u query tokens",
                       RT_SPARSE_WHOLE_BLOCKS, choice->whole_least, choice->whole_most);
    if (of_many)
        (void)snprintf(many, sizeof(many), ", %s from batch %u on", of_many->reason,
                       choice->many_rows);
    if (kernel->backend == RT_BACKEND_SM90)
        (void)snprintf(text, RT_REASON_BYTES, "sm90%s%s, tiles of %u rows for %u%s%s, %u parts",
                       request->backend == RT_BACKEND_AUTO ? "" : " as asked for", invariant,
                       kernel->tile_rows, rows, few, many, choice->parts);
    else if (caps->kind == RT_DEVICE_KIND_HOST)
        (void)snprintf(text, RT_REASON_BYTES, "generic%s: the C references of the host device",
                       invariant);
    else if (request->backend == RT_BACKEND_AUTO)
        (void)snprintf(text, RT_REASON_BYTES,
                       "generic%s, tiles of %u rows for %u; not sm90: %.100s", invariant,
                       kernel->tile_rows, rows, why_not);
    else
        (void)snprintf(text, RT_REASON_BYTES,
                       "generic as asked for%s, tiles of %u rows for %u, %u parts", invariant,
                       kernel->tile_rows, rows, choice->parts);
}

static void choose(const struct rt_device_caps *caps, const struct rt_op_request *request,
                   const struct attend_kernel *kernel, const char *why_not, struct rt_variant *out)
{
    const uint32_t m_tiles = rt_ceil_div_u32(query_rows(kernel->op, request), kernel->tile_rows);
    const uint32_t parts = rt_max_u32(1, concurrent_blocks(caps, kernel) / m_tiles);
    /* A graph of few blocks leaves several workers with none. */
    const struct many_kernel *many =
        rt_small_tile_rows(kernel->op, request) ? NULL : find_many(kernel, m_tiles);
    struct rt_variant choice = {
        .op = kernel->op,
        .backend = kernel->backend,
        .entry = kernel->entry,
        .tile_rows = kernel->tile_rows,
        .m_tiles = m_tiles,
        .many_entry = many ? many->entry : NULL,
        .many_rows = many ? rt_ceil_div_u32(parts, many->parts_per_row) : 0,
        .many_threads = many ? many->threads : 0,
        .many_cluster = many ? many->tiles : 0,
        .parts = parts,
        .threads = kernel->threads,
        .smem_bytes = kernel->smem_bytes,
        .overhead_blocks = kernel->overhead_blocks,
        .min_blocks = kernel->min_blocks,
        .invariant = kernel->invariant,
        .scales = kernel->scales,
    };
    find_whole(caps, kernel, &choice);
    describe(caps, request, kernel, &choice, many, why_not, choice.reason);
    *out = choice;
}

enum rt_status rt_attend_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                 struct rt_error *err)
{
    const struct rt_device_caps *caps = request->caps;
    const enum rt_op_id op = out->op;
    RT_TRY(check_request(op, request, err));
    struct rt_error why_not = {0};
    const struct attend_kernel *kernel;
    switch (request->backend) {
    case RT_BACKEND_SM90:
        RT_TRY(pick_sm90(op, request, &kernel, err));
        break;
    case RT_BACKEND_AUTO:
        if (pick_sm90(op, request, &kernel, &why_not) != RT_OK)
            RT_TRY(pick_generic(op, request, &kernel, err));
        break;
    case RT_BACKEND_GENERIC:
        RT_TRY(pick_generic(op, request, &kernel, err));
        break;
    default:
        return rt_fail(err, RT_ERR_UNSUPPORTED, "backend %d is not known", (int)request->backend);
    }
    choose(caps, request, kernel, why_not.message, out);
    return RT_OK;
}
