/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_MULTIPLY_H
#define RT_RUNTIME_MULTIPLY_H

/* Who multiplies by a weight: kernels of our own, or the library. */
#include "driver/driver.h"
#include "replayrt/rt.h"

/* Vectors up to which our kernels read weights faster than a library that cannot ask for them
 * before its predecessor is done. */
#define RT_OWN_MOST_VECTORS 16u
/* Bytes of a weight up to which that is so whatever its shape. Of larger ones it is so where few
 * vectors meet few rows: what our kernels spend on each 128 rows of a block, of which two share an
 * SM, is little then (docs/notebook.md, "128 heads and one vector"). */
#define RT_OWN_MOST_BYTES (UINT64_C(40) << 20)
#define RT_OWN_LARGE_MOST_VECTORS 8u
#define RT_OWN_LARGE_MOST_SM_ROWS 256u
/* Of more vectors, where a kernel of ours takes them: how many, of how many bytes in all, which
 * every block reads, and of how many heads (docs/notebook.md, "Many vectors"). Of twice the bytes
 * where a block has no more rows than one tile. */
#define RT_OWN_MANY_MOST_VECTORS 64u
#define RT_OWN_MANY_MOST_VECTOR_BYTES (UINT64_C(128) << 10)
#define RT_OWN_MANY_MOST_SM_ROWS 64u
#define RT_OWN_MANY_MOST_HEADS 32u
/* What a library may use for one product. */
#define RT_WORKSPACE_BYTES (UINT64_C(32) << 20)

struct rt_multiplication {
    uint32_t vectors;
    uint32_t heads;        /* that have a product each; 1: it is one */
    uint64_t vector_bytes; /* of one vector of one head */
    uint64_t weight_bytes; /* of all heads */
    uint64_t rows;         /* likewise */
    bool streams;          /* a kernel of ours that is tuned for the device takes it */
    const char *only_own;  /* why the library does not do all of it; null: it does */
};

/*
 * Pure: true: the library. *reason gets a sentence in static storage. What is asked for decides;
 * with auto the library is taken where the device has it and there are more vectors, or larger
 * weights, than the limits, or no kernel of ours is tuned for the device.
 */
bool rt_multiply_by_library(enum rt_projections projections, const struct rt_device_caps *caps,
                            const struct rt_multiplication *product, const char **reason);

#endif
