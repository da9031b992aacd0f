/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_LAUNCH_H
#define RT_COMMON_LAUNCH_H

/*
 * One kernel launch as plain data. `kernels` fills it, `graphs` turns it into a node or hands it to
 * the driver, and neither knows the other.
 */
#include "common/attributes.h"

#include <stdbool.h>
#include <stdint.h>

/* An address the device can use. On the host device it is a host pointer. 0 is null. */
typedef uint64_t rt_addr;

/* A loaded kernel: a CUkernel on CUDA, a struct rt_host_kernel on the host device. */
typedef struct rt_dkernel_opaque *rt_dkernel;

/* A TMA tensor map as the hardware takes it: opaque, 64-byte aligned (CUtensorMap). */
struct rt_tensor_map {
    RT_ALIGNAS(64) uint64_t words[16];
};

#define RT_TENSOR_MAP_DIMS 5

/*
 * What a tensor map describes: bf16 elements, dimension 0 contiguous, and the box of them that one
 * instruction moves, in shared memory with the 128-byte swizzle. Outside of the tensor is zero, L2
 * is asked for 128 bytes at a time, nothing is interleaved.
 */
struct rt_tensor_map_spec {
    rt_addr address;                           /* multiple of 16, not null */
    uint32_t dims;                             /* 2..RT_TENSOR_MAP_DIMS */
    uint64_t size[RT_TENSOR_MAP_DIMS];         /* elements; 1..2^32 */
    uint64_t stride_bytes[RT_TENSOR_MAP_DIMS]; /* multiples of 16, < 2^40; [0] ignored: 2 bytes */
    uint32_t box[RT_TENSOR_MAP_DIMS];          /* elements; 1..256, [0] a multiple of 8 up to 64 */
};

#define RT_LAUNCH_PARAM_BYTES 896
#define RT_LAUNCH_NAME_BYTES 48

struct rt_launch {
    rt_dkernel kernel; /* null in a plan that was made without a device */
    const char *entry; /* name of the device entry point, static storage */
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t cluster_x;  /* thread block cluster along x; 0 and 1 mean none */
    uint32_t smem_bytes; /* dynamic shared memory per block */
    /* The cluster is compiled into the kernel, so a driver has nothing to ask for; whoever runs or
     * draws the launch sees it all the same. */
    bool own_cluster;
    /* The kernel waits for its predecessor (griddepcontrol.wait) before its first access to
     * anything a predecessor writes, so the edge into it may be programmatic. */
    bool waits;
    /* Its blocks wait for each other, so they must all be resident at the same time: a device that
     * cannot hold the whole grid refuses the launch. Nothing stands beside it in a graph. */
    bool cooperative;
    /* Every kernel takes one struct by value. Bit i of the mask: its i-th 8-byte word is a device
     * address or null; no other word is one: that is what the graph audit reads. It cannot read
     * tensor maps, so the address in each of them stands among those words too. */
    uint64_t address_mask;
    uint32_t param_bytes;
    RT_ALIGNAS(64) unsigned char params[RT_LAUNCH_PARAM_BYTES];
};

#endif
