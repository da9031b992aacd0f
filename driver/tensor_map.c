/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/driver.h"

/* Limits of the hardware, as cuTensorMapEncodeTiled states them. */
#define ALIGN_BYTES 16u
#define MAX_SIZE (UINT64_C(1) << 32)
#define STRIDE_END (UINT64_C(1) << 40)
#define MAX_BOX 256u
#define ELEMENT_BYTES 2u
#define SWIZZLE_BYTES 128u

_Static_assert(sizeof(struct rt_tensor_map) == 128, "the hardware reads 128 bytes");
_Static_assert(_Alignof(struct rt_tensor_map) == 64, "at a multiple of 64");
_Static_assert(_Alignof(struct rt_launch) % _Alignof(struct rt_tensor_map) == 0,
               "a launch's parameters may hold tensor maps");

static bool extent_valid(uint64_t size, uint32_t box)
{
    return size >= 1 && size <= MAX_SIZE && box >= 1 && box <= MAX_BOX;
}

static bool stride_valid(uint64_t bytes)
{
    return bytes % ALIGN_BYTES == 0 && bytes < STRIDE_END;
}

bool rt_tensor_map_spec_valid(const struct rt_tensor_map_spec *spec)
{
    if (spec->address == 0 || spec->address % ALIGN_BYTES != 0 || spec->dims < 2 ||
        spec->dims > RT_TENSOR_MAP_DIMS)
        return false;
    for (uint32_t i = 0; i < spec->dims; i++) {
        if (!extent_valid(spec->size[i], spec->box[i]) ||
            (i > 0 && !stride_valid(spec->stride_bytes[i])))
            return false;
    }
    const uint32_t row_bytes = spec->box[0] * ELEMENT_BYTES;
    return row_bytes % ALIGN_BYTES == 0 && row_bytes <= SWIZZLE_BYTES;
}
