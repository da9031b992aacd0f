/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_EXPERTS_SM90_H
#define RT_KERNELS_ABI_EXPERTS_SM90_H

/*
 * What the launch of the sm_90 kernels of experts has to know of their insides. They bring weights
 * through the ring of the sm_90 project kernels, and are as those in warps, chunks and table of
 * sums. Read by gcc and by nvcc.
 */
#include "kernels/abi/experts.h"
#include "kernels/abi/project_sm90.h"

/* Where what lies in shared memory, in bytes from its start, behind the desk: the table of sums. */
struct rt_experts_ring {
    uint32_t ring_at;
    uint32_t stages;
    uint32_t early;     /* stages on their way at once while the ring fills first */
    uint32_t tile_rows; /* of down; up has RT_EXPERTS_SM90_UP_ROWS */
    uint32_t sums_at; /* of down in slices: [tokens][16 tiles] floats; of few tokens: their work */
    uint32_t row_bytes; /* from one row of a stage to the next: those of project, or tight */
};

struct rt_experts_up_sm90_params {
    struct rt_experts_up_params up;
    struct rt_experts_ring ring;
};
RT_STATIC_ASSERT(sizeof(struct rt_experts_up_sm90_params) == 224, "sm90 experts_up ABI");

struct rt_experts_down_sm90_params {
    struct rt_experts_down_params down;
    struct rt_experts_ring ring;
};
RT_STATIC_ASSERT(sizeof(struct rt_experts_down_sm90_params) == 232, "sm90 experts_down ABI");

/* More tokens are the generic kernel's. */
#define RT_EXPERTS_SM90_MOST_TOKENS 128u

/* Rows of a stage without a gap. */
#define RT_EXPERTS_SM90_TIGHT_ROW_BYTES (2u * RT_PROJECT_SM90_CHUNK)

/* The kernels for few tokens take so many, of whom all together have so many choices; what these
 * are takes so much of shared memory. */
#define RT_EXPERTS_SM90_FEW_TOKENS 8u
#define RT_EXPERTS_SM90_FEW_PAIRS 64u
#define RT_EXPERTS_SM90_FEW_BRINGERS 4u
#define RT_EXPERTS_SM90_FEW_THREADS (32u * (RT_PROJECT_SM90_WARPS + RT_EXPERTS_SM90_FEW_BRINGERS))
#define RT_EXPERTS_SM90_FEW_BYTES (RT_EXPERTS_SM90_FEW_PAIRS * (16u + 3u * 4u + 8u) + 48u)

/* A tile of up is so many rows of gate and as many of up; a pass has so many tiles. */
#define RT_EXPERTS_SM90_UP_ROWS 8u
#define RT_EXPERTS_SM90_UP_TILES 4u

#endif
