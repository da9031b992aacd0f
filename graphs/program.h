/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_GRAPHS_PROGRAM_H
#define RT_GRAPHS_PROGRAM_H

/*
 * A step is data: a list of stages in order. The eager runner walks it on a stream, the builder
 * walks the same list into a graph, so eager and replay are the same work.
 *
 * Most stages are of the trunk, each behind the one before. Where stages may run beside each other
 * they are of branches: a branch is a chain that begins behind the trunk's last stage in front of
 * it, and the trunk goes on behind the ends of all of them. In the list the stages of a branch
 * stand together, and all branches between the same two stages of the trunk. What those of one
 * write, no other branch beside it touches: on a stream they run one after the other. Edges where
 * branches begin and end are full, but those of tight ones, which are for single kernels that are
 * shorter than an edge is.
 *
 *   list   t0  a1  a2  b1  t3          t0 ─┬─ a1 ─ a2 ─┬─ t3
 *   branch 0   1   1   2   0               └─── b1 ────┘
 */
#include "driver/driver.h"
#include "graphs/spec.h"

#define RT_LABEL_BYTES 40
#define RT_STAGE_REASON_BYTES 256
#define RT_NO_LAYER UINT32_MAX
#define RT_TRUNK 0u
#define RT_MAX_BRANCHES 4u /* beside each other */

/* How far the audit looks into a captured stage. */
enum rt_stage_trust {
    RT_STAGE_AUDITED,     /* kernels only, every address registered */
    RT_STAGE_FOREIGN,     /* a library's: copies and fills too, addresses are its own */
    RT_STAGE_FOREIGN_HOST /* host functions besides */
};

struct rt_stage {
    uint32_t layer;             /* RT_NO_LAYER for stages of the whole step */
    uint32_t branch;            /* RT_TRUNK, or 1 to RT_MAX_BRANCHES */
    char label[RT_LABEL_BYTES]; /* "append.12", "before_attention.0" */
    struct rt_work *work;       /* owned by the program */
    enum rt_stage_trust trust;
    /* Of what is no launch: its last kernel may be overlapped by a launch behind it. */
    bool overlapped;
    bool tight;                         /* of its branch, and of those beside it */
    char reason[RT_STAGE_REASON_BYTES]; /* why this work and not another; "": nobody asks */
};

struct rt_program {
    struct rt_graph_spec spec;
    struct rt_stage *stages;
    uint32_t count, capacity;
    uint32_t branch;                  /* of what is appended now, */
    bool tight;                       /* and whether that is a tight one */
    char form[RT_STAGE_REASON_BYTES]; /* of a graph's blocks, and why; "": nobody asks */
};

/* Zeroed is empty. Appending copies label (cut to its field) and work; RT_ERR_NOMEM leaves the
 * program as it was. */
enum rt_status rt_program_add(struct rt_program *p, const char *label, uint32_t layer,
                              const struct rt_work *work, struct rt_error *err);
/* Takes the last stage away, of which there is one. */
void rt_program_drop(struct rt_program *p);
/* No graph built from it may be launched any more. */
void rt_program_free(struct rt_program *p);

/* The stages that stage i is behind, newest first: returns how many. */
uint32_t rt_program_before(const struct rt_program *p, uint32_t i,
                           uint32_t before[RT_MAX_BRANCHES]);

/* The edges into stage i may be programmatic: stage i is a launch that waits, and in front of it,
 * in the graph and in the list, is a launch or what may be overlapped. Of the latter the builder
 * sees what has been captured, and makes the edge so where that ends in one kernel; on a stream
 * the driver does. Where branches that are not tight begin and end edges are full. */
bool rt_program_edge_programmatic(const struct rt_program *p, uint32_t i);

/* Puts graph and stage before the story in err and returns `status`. */
enum rt_status rt_program_stage_failed(const struct rt_program *p, uint32_t i,
                                       enum rt_status status, struct rt_error *err);

/* Puts one piece of work on the stream: what a walk does, and what a capture records. */
enum rt_status rt_work_put(const struct rt_work *work, struct rt_driver *d, bool programmatic,
                           rt_dstream stream, struct rt_error *err);

/* Walks the list on the stream. Host device: the work is done on return unless the stream is held.
 * RT_ERR_CALLBACK names the stage and its return value. */
enum rt_status rt_program_run(const struct rt_program *p, struct rt_driver *d, rt_dstream stream,
                              struct rt_error *err);

#endif
