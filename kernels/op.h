/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_OP_H
#define RT_KERNELS_OP_H

/*
 * An operator: what a step is made of. Whoever wants one asks twice: once which variant serves here
 * (resolve), and then for the work of one call (build). The runtime and the operators of
 * replayrt/ops.h go through the same two functions.
 */
#include "common/kv_format.h"
#include "common/work.h"
#include "kernels/abi/invariant.h"
#include "kernels/registry.h"

enum rt_op_id {
#define RT_OP(id, name, params, resolve, build) RT_OP_##id,
#include "kernels/ops.inc"
    RT_OP_COUNT
};

struct rt_project_params;          /* kernels/abi/project.h */
struct rt_preattend_absorb_params; /* kernels/abi/preattend_absorb.h */
struct rt_mla_block_params;        /* kernels/abi/mla_block.h */
struct rt_experts_up_params;       /* kernels/abi/experts.h */
struct rt_experts_down_params;
struct rt_moe_block_params; /* kernels/abi/moe_block.h */

/* What a graph asks of its operators. */
struct rt_op_request {
    const struct rt_device_caps *caps;
    const struct rt_kv_format *kv;
    uint32_t heads, q_len, page_size;
    enum rt_backend backend; /* AUTO: the fastest that serves it */
    /* Of project alone, which kernel takes it depends on all of it: what will be built, or null
     * while nothing is known of it. Other addresses are as good where they are aligned no worse. */
    const struct rt_project_params *product;
    /* Likewise of preattend_absorb alone. */
    const struct rt_preattend_absorb_params *preattend_absorb;
    /* Likewise of mla_block alone. */
    const struct rt_mla_block_params *mla_block;
    /* Likewise of the two halves of experts alone, each of its own. */
    const struct rt_experts_up_params *experts_up;
    const struct rt_experts_down_params *experts_down;
    /* Likewise of moe_block alone. */
    const struct rt_moe_block_params *moe_block;
    /* Of prefill_attend alone: a head's numbers. */
    uint32_t nope_dim, rope_dim, v_dim;
    uint32_t invariant; /* 1: of attend, schedule and reduce, those that are batch-invariant */
    uint32_t topk;      /* of sparse attention alone: keys of a list; 0: nobody asks for it */
    uint32_t small_tile_rows; /* of attend, and reduce behind it: that smaller tile, where
                                 rt_small_tiles_of has it; 0: none */
};

/* With so many rows at most, that have so many blocks of RT_BLOCK_TOKENS keys together at most, a
 * smaller tile of query rows is faster. */
struct rt_small_tile_limit {
    uint32_t tile_rows, rows, blocks;
};

/* By rising blocks: of several that serve, the first is the fastest. */
#define RT_MOST_SMALL_TILES 2
struct rt_small_tile_limits {
    struct rt_small_tile_limit tiles[RT_MOST_SMALL_TILES];
    uint32_t count; /* 0: nowhere */
};

/* Pure: of attention `op`, whatever request->small_tile_rows is. */
struct rt_small_tile_limits rt_small_tiles_of(enum rt_op_id op,
                                              const struct rt_op_request *request);

static inline bool rt_small_tile_serves(const struct rt_small_tile_limit *limit, uint32_t rows,
                                        uint64_t blocks)
{
    return rows <= limit->rows && blocks <= limit->blocks;
}

/* The index of the first that serves; small->count: none does. */
static inline uint32_t rt_small_tiles_find(const struct rt_small_tile_limits *small, uint32_t rows,
                                           uint64_t blocks)
{
    uint32_t i = 0;
    while (i < small->count && !rt_small_tile_serves(&small->tiles[i], rows, blocks))
        i++;
    return i;
}

/* Tokens of a page that some kernel of attend serves. */
bool rt_page_size_served(uint32_t page_size);

#define RT_REASON_BYTES 192
struct rt_variant {
    enum rt_op_id op;
    enum rt_backend backend; /* never AUTO */
    const char *entry;       /* the kernel's entry point, static storage */
    /* Of attend, dense and sparse, and of project and preattend_absorb where its comment says so;
     * the rest 0 and empty: */
    uint32_t tile_rows; /* query rows of a tile; reduce: of attend's, where that is the smaller */
    uint32_t m_tiles;   /* ceil(heads * q_len / tile_rows); project: tiles of a pass */
    uint32_t parts;     /* of the schedule: max(1, concurrent blocks / m_tiles); project: blocks */
    uint32_t threads;
    uint32_t smem_bytes;
    uint32_t invariant; /* of attend and reduce: how rows are cut by their own length, or 0 */
    uint32_t scales;    /* of attend over e4m3: enum rt_attend_scales of kernels/abi/quant_sm90.h */
    uint32_t overhead_blocks, min_blocks; /* schedule constants measured for this kernel */
    /* Of attend: of so many rows or more another kernel, of the same tiles and parts, whose tiles
     * share keys or whose workers are more; null: never. */
    const char *many_entry;
    uint32_t many_rows, many_threads;
    uint32_t many_cluster; /* its blocks of a cluster, 1: it has none */
    /* Of sparse_attend: of so many query tokens with lists of so many entries at most, where it
     * makes its plan itself, another kernel of the same tiles that leaves nothing to reduce; null:
     * never. */
    const char *whole_entry;
    uint32_t whole_least, whole_most, whole_topk;
    char reason[RT_REASON_BYTES]; /* one sentence: why this one */
};

/*
 * Pure: the variant that serves the request, or the first reason why none does. Build takes what
 * was resolved: what no other variant could serve is all that it refuses by itself.
 * An explicit backend is served or refused (RT_ERR_UNSUPPORTED), never replaced.
 * RT_ERR_GEOMETRY: no kernel anywhere serves the geometry; the message lists those that are served.
 */
enum rt_status rt_op_resolve(enum rt_op_id op, const struct rt_op_request *request,
                             struct rt_variant *out, struct rt_error *err);

/*
 * The work of one call. `params` is the operator's struct of kernels/abi: views, filled. Checks it,
 * sets the grid. The device's context is current (attend encodes tensor maps) unless nothing is
 * loaded. RT_ERR_INVALID; RT_ERR_UNSUPPORTED where k is loaded but lacks the kernel;
 * RT_ERR_INTERNAL where the params are not the operator's or not what was resolved.
 */
enum rt_status rt_op_build(const struct rt_kernels *k, const struct rt_variant *variant,
                           const void *params, size_t param_bytes, struct rt_work *out,
                           struct rt_error *err);

/*
 * Pure: into how many parts of k a product for many vectors is best cut where who reads it adds
 * them up, so that no multiprocessor idles: as many products, a batch, of k / parts each, whose y
 * is f32. 1: it is not.
 */
uint32_t rt_project_parts(const struct rt_device_caps *caps, const struct rt_project_params *p);

/* "step_begin", "attend", …: static storage. */
const char *rt_op_name(enum rt_op_id op);

/* "generic" or "sm90". */
const char *rt_backend_name(enum rt_backend backend);

static inline bool rt_attend_is_many(const struct rt_variant *attend, uint32_t rows)
{
    return attend->many_entry && rows >= attend->many_rows;
}

/* Attend's kernel of so many rows. */
static inline const char *rt_attend_entry(const struct rt_variant *attend, uint32_t rows)
{
    return rt_attend_is_many(attend, rows) ? attend->many_entry : attend->entry;
}

static inline uint32_t rt_attend_threads(const struct rt_variant *attend, uint32_t rows)
{
    return rt_attend_is_many(attend, rows) ? attend->many_threads : attend->threads;
}

/* Blocks of a cluster, which is compiled into the kernel; 1: it has none. */
static inline uint32_t rt_attend_cluster(const struct rt_variant *attend, uint32_t rows)
{
    return rt_attend_is_many(attend, rows) ? attend->many_cluster : 1;
}

/* Split slots that so many rows can need, of up to so many blocks of RT_BLOCK_TOKENS keys each: the
 * partial buffers have this many. */
static inline uint64_t rt_max_split_slots(const struct rt_variant *attend, uint32_t rows,
                                          uint32_t blocks)
{
    return attend->invariant ? rt_invariant_slots(attend->invariant, attend->parts, rows, blocks)
                             : 2 * attend->parts;
}

#endif
