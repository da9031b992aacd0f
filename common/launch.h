/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_LAUNCH_H
#define RT_COMMON_LAUNCH_H

/*
 * One kernel launch as plain data. `kernels` fills it, `graphs` turns it into a node or hands it to
 * the driver, and neither knows the other.
 */
#include <stdbool.h>
#include <stdint.h>

/* An address the device can use. On the host device it is a host pointer. 0 is null. */
typedef uint64_t rt_addr;

/* A loaded kernel: a CUkernel on CUDA, a struct rt_host_kernel on the host device. */
typedef struct rt_dkernel_opaque *rt_dkernel;

#define RT_LAUNCH_PARAM_BYTES 768
#define RT_LAUNCH_NAME_BYTES 48

struct rt_launch {
    rt_dkernel kernel; /* null in a plan that was made without a device */
    const char *entry; /* name of the device entry point, static storage */
    uint32_t grid[3];
    uint32_t block[3];
    uint32_t cluster_x;  /* thread block cluster along x; 0 and 1 mean none */
    uint32_t smem_bytes; /* dynamic shared memory per block */
    /* The kernel waits for its predecessor (griddepcontrol.wait) before its first access to
     * anything a predecessor writes, so the edge into it may be programmatic. */
    bool waits;
    /* Every kernel takes one struct by value. Its first `pointer_count` 8-byte words are device
     * addresses or null, and no other word is: that is what the graph audit reads. */
    uint32_t param_bytes;
    uint32_t pointer_count;
    _Alignas(64) unsigned char params[RT_LAUNCH_PARAM_BYTES];
};

#endif
