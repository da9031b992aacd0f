/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_GRAPHS_BUILD_H
#define RT_GRAPHS_BUILD_H

/*
 * Program -> graph -> executable graph. Our kernels are added as explicit nodes; other work, a
 * caller's or a library's, is captured into the same graph between them (CUDA) or recorded as a
 * node of its own kind (host device). The graph is a chain, but for branches beside each other:
 * each stage follows those of rt_program_before, by a programmatic edge where that is safe. A
 * program with exchanges or foreign stages is captured as a whole (CUDA): its stages are put on the
 * stream as the eager runner puts them, those of branches too.
 */
#include "graphs/program.h"

struct rt_graph {
    rt_dgraph graph;
    rt_dexec exec;
    uint32_t node_count;
    uint64_t device_bytes; /* free device memory before minus after instantiate + upload */
    uint64_t begun_ns;     /* when the build began, by the monotonic clock */
    uint64_t build_ns;     /* from there to the end of the upload: build, audit, instantiate */
    /* Which stage made which nodes, in order of creation: nodes [first_node[i], first_node[i + 1])
     * belong to stage i. Used by audit and dump. [stage_count + 1] */
    uint32_t *first_node;
};

/* Most branches that a caller's stage may leave unjoined. */
#define RT_MAX_TAILS 32

/* Adds the nodes; *out is zeroed on failure. RT_ERR_INTERNAL where a cooperative kernel is in a
 * branch. What the program's calls refer to must outlive the
 * graph. `capture_stream` is used on CUDA, for work that is no launch. */
enum rt_status rt_graph_build(const struct rt_program *p, struct rt_driver *d,
                              rt_dstream capture_stream, struct rt_graph *out,
                              struct rt_error *err);

/* Instantiates and uploads; fills device_bytes and build_ns. Blocks. */
enum rt_status rt_graph_instantiate(struct rt_graph *g, struct rt_driver *d, rt_dstream stream,
                                    struct rt_error *err);

/* The stage that made node number `node`, by order of creation. */
uint32_t rt_graph_stage_of(const struct rt_graph *g, const struct rt_program *p, uint32_t node);

/* A caller's or a library's stage that left no node: what it launched went to another stream. */
static inline bool rt_graph_stage_is_empty(const struct rt_graph *g, uint32_t stage)
{
    return g->first_node[stage] == g->first_node[stage + 1];
}

void rt_graph_free(struct rt_graph *g, struct rt_driver *d);

#endif
