/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_STAGE_EXCHANGE_H
#define RT_RUNTIME_STAGE_EXCHANGE_H

/* What ranks exchange behind stages of the caller's: rt_create_params.exchanges. */
#include "buffers/arena.h"
#include "graphs/audit.h"
#include "graphs/spec.h"
#include "replayrt/ranks.h"
#include "runtime/blueprint.h"

struct rt_stage_exchanges {
    struct rt_stage_exchange items[RT_MAX_STAGE_EXCHANGES];
    uint32_t count;
};

/* Copies what the parameters list. RT_ERR_INVALID: a field, by its index and name. */
enum rt_status rt_stage_exchanges_take(const struct rt_create_params *p,
                                       struct rt_stage_exchanges *out, struct rt_error *err);

/* Tensor hidden, of all tokens: what blocks of that runtime sum too. */
bool rt_stage_exchange_is_of_hidden(const struct rt_stage_exchange *x);

/* What a graph's ranks do, of which comm's there are more than one. */
struct rt_collective rt_stage_exchange_work(const struct rt_stage_exchange *x,
                                            const struct rt_blueprint *b,
                                            const struct rt_arena *arena, struct rt_comm *comm,
                                            const struct rt_graph_spec *spec);

/*
 * Whether all that the graphs' exchanges read and write lies in the caller's regions, or is tensor
 * hidden; on the host device the memory is made known to the driver. RT_ERR_INVALID names what does
 * not; RT_ERR_NOMEM.
 */
enum rt_status rt_stage_exchanges_place(const struct rt_stage_exchanges *all,
                                        const struct rt_blueprint *b, uint32_t ranks,
                                        const struct rt_create_params *p, struct rt_driver *d,
                                        struct rt_error *err);

#endif
