/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_PROJECT_SM90_H
#define RT_KERNELS_ABI_PROJECT_SM90_H

/*
 * What the launch of the sm_90 project kernels has to know of their insides. Read by gcc and by
 * nvcc.
 *
 * Weights that lie along k: the rows of all of the batch are one line, cut evenly into as many
 * shares as there are blocks. A block takes its share in tiles of up to tile_rows rows, and k in
 * chunks of RT_PROJECT_SM90_CHUNK; a tile's chunk is a stage of its ring.
 * Weights that lie across: tiles of RT_PROJECT_SM90_ACROSS_ROWS rows, shared out likewise.
 */
#include "kernels/abi/project.h"

/* When a block lets the next kernel start. */
enum rt_project_trigger {
    RT_PROJECT_TRIGGER_FIRST, /* at once */
    RT_PROJECT_TRIGGER_ASKED, /* when its ring is full of requests */
    RT_PROJECT_TRIGGER_WAITED /* behind its own wait */
};

struct rt_project_sm90_params {
    struct rt_project_params project;
    uint32_t tile_rows;        /* 1..16 */
    uint32_t stages;           /* of the ring */
    uint32_t early;            /* stages on their way at once while the ring fills first */
    uint32_t trigger;          /* enum rt_project_trigger */
    uint32_t norm_at, ring_at; /* bytes from the start of shared memory */
    uint32_t sums_stride;      /* floats from one vector's sums to the next one's */
    uint32_t reserved;
};
RT_STATIC_ASSERT(sizeof(struct rt_project_sm90_params) == 224, "sm90 project ABI");

/* More vectors are the generic kernel's, or a library's. */
#define RT_PROJECT_SM90_MOST_VECTORS 16u

/* Warps that multiply, and in front of weights along k two more, which bring them: a lane asks for
 * a row, one lane after the other, so that one warp takes longer for 16 rows than memory does. */
#define RT_PROJECT_SM90_WARPS 8u
#define RT_PROJECT_SM90_BRINGERS 2u
#define RT_PROJECT_SM90_THREADS (32u * (RT_PROJECT_SM90_WARPS + RT_PROJECT_SM90_BRINGERS))
#define RT_PROJECT_SM90_ACROSS_THREADS (32u * RT_PROJECT_SM90_WARPS)

/* Numbers of a row in a stage; 64 bytes more lie between rows, so that eight lanes that read two
 * rows meet all banks once. */
#define RT_PROJECT_SM90_CHUNK 512u
#define RT_PROJECT_SM90_ROW_BYTES (2u * RT_PROJECT_SM90_CHUNK + 64u)

#define RT_PROJECT_SM90_TILE_ROWS 16u
#define RT_PROJECT_SM90_TILES 4u /* of a pass: their sums are in registers */
#define RT_PROJECT_SM90_ACROSS_ROWS 64u

#define RT_PROJECT_SM90_MOST_STAGES 24u

/* Barriers, squares. */
#define RT_PROJECT_SM90_DESK_BYTES 1024u

/* Sums of each warp, [warp][vector][row of the pass], 4 floats further apart than the rows are, so
 * that lanes write to different banks. */
#define RT_PROJECT_SM90_SUMS_STRIDE(tiles) (RT_PROJECT_SM90_TILE_ROWS * (tiles) + 4u)
#define RT_PROJECT_SM90_SUMS_BYTES(m, stride) (4u * RT_PROJECT_SM90_WARPS * (m) * (stride))
#define RT_PROJECT_SM90_ACROSS_BYTES(m)                                                            \
    RT_PROJECT_SM90_SUMS_BYTES(m, RT_PROJECT_SM90_SUMS_STRIDE(4u))

/* What a block may have at most. */
#define RT_PROJECT_SM90_SMEM_BYTES (227u * 1024u)

#endif
