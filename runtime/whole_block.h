/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_WHOLE_BLOCK_H
#define RT_RUNTIME_WHOLE_BLOCK_H

/*
 * Graphs whose blocks are one kernel each, mla_block (docs/mla_block.md): which they are, and the
 * exchanges that such kernels hand their words through.
 */
#include "runtime/blueprint.h"

/* A graph's exchanges, one behind the other in the arena's tensor; count 0: it has none. */
struct rt_exchanges {
    uint64_t offset; /* of the first, bytes into the tensor */
    uint64_t bytes;  /* of one */
    uint32_t count;
};

/*
 * Pure: whether configuration and device let the graph's blocks be one kernel each. What weights
 * are bound, and what the device holds at the same time, is asked when the graph's recipe is
 * written. RT_ERR_UNSUPPORTED with the first reason why not.
 */
enum rt_status rt_whole_block_resolve(const struct rt_blueprint *b,
                                      const struct rt_graph_spec *spec, struct rt_variant *out,
                                      struct rt_error *err);

/*
 * A layer's kernel blanks the exchange of the layer in front, the first one's that of the last: so
 * layers next to each other have different ones, first and last too. Two where there is an even
 * number of layers; of an odd number the last has a third.
 */
static inline uint32_t rt_exchange_of(uint32_t layer, uint32_t layers)
{
    return layers % 2 == 1 && layer + 1 == layers ? 2 : layer % 2;
}

/* Of one of the blueprint's specs, whose other members are there. */
struct rt_exchanges rt_exchanges_of(const struct rt_blueprint *b, const struct rt_graph_spec *spec);
/* Bytes of all graphs'. */
uint64_t rt_exchanges_bytes(const struct rt_blueprint *b);

#endif
