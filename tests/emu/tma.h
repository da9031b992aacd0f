/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_TMA_H
#define RT_TESTS_EMU_TMA_H

/* Tensor maps as the emulated device makes them, and copies of boxes. Read by C and by C++. */
#include "common/launch.h"

/* The words of a map: what it was made from. */
enum {
    EMU_MAP_MARK,
    EMU_MAP_ADDRESS,
    EMU_MAP_DIMS,
    EMU_MAP_SIZE,
    EMU_MAP_STRIDE = EMU_MAP_SIZE + RT_TENSOR_MAP_DIMS,
    EMU_MAP_BOX = EMU_MAP_STRIDE + RT_TENSOR_MAP_DIMS, /* all dimensions, 12 bits each */
    EMU_MAP_WORDS
};
#define EMU_MAP_IS_ONE UINT64_C(0x70616d2075)
#define EMU_MAP_BOX_BITS 12

#ifdef __cplusplus
/* Boxes of a tensor; at[0] is the innermost coordinate. */
void emu_tma_load(void *shared, const void *map, uint64_t *barrier, int dims, const int *at);
/* Likewise for each block of the cluster whose rank's bit is set, at the same place of each. */
void emu_tma_share(void *shared, const void *map, uint64_t *barrier, int dims, const int *at,
                   unsigned ranks);
/* Two numbers to a place of another block of the cluster, which count at its barrier. A place is a
 * block's rank above a byte of its memory. */
enum { EMU_PLACE_BITS = 20 };
void emu_cluster_send(uint32_t place, uint32_t barrier, float low, float high);
/* Bytes of this block's shared memory, likewise, but not to itself. */
void emu_cluster_send_bytes(uint32_t place, uint32_t barrier, const void *shared, uint32_t bytes);
/* Bytes one behind the other. */
void emu_bulk_load(void *shared, const void *global, uint32_t bytes, uint64_t *barrier);
#endif

#endif
