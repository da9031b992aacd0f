/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_MEASURE_RIG_H
#define RT_BENCH_MEASURE_RIG_H

/* One shape set up for measuring: its device memory, its inputs, and the launches on them. */
#include "bench/measure_device.h"
#include "graphs/program.h"
#include "runtime/ops_work.h"
#include "runtime/sparse_work.h"

/* Whose plan, partial buffers and output: the kernel's that is timed, or the one's it is held to.
 */
enum rt_rig_side { RT_RIG_TIMED, RT_RIG_TRUTH, RT_RIG_SIDES };

/* Of each side, behind the inputs that both have. */
enum rt_rig_output {
    RT_RIG_PARTS,
    RT_RIG_NUM_SPLITS,
    RT_RIG_PARTIAL_OUT,
    RT_RIG_PARTIAL_LSE,
    RT_RIG_OUT,
    RT_RIG_LSE,
    RT_RIG_OUTPUTS
};

struct rt_rig_buffer {
    rt_addr address;
    uint64_t bytes;
};

/* Of a shape over listed keys; see measure_lists.h. */
struct rt_rig_lists {
    struct rt_mla_sparse_shape shape;
    struct rt_sparse_choice choices[RT_RIG_SIDES];
    struct rt_rig_buffer indices, counts;
    struct rt_rig_buffer lengths[RT_RIG_SIDES]; /* that the schedule writes */
};

struct rt_rig {
    struct rt_measure *m;
    const struct rt_measure_attention_params *params;
    struct rt_mla_shape shape;
    struct rt_ops_choice choices[RT_RIG_SIDES];
    struct rt_rig_lists lists; /* where there are lists */
    struct rt_memory_region pool;
    uint64_t layer_bytes;
    uint32_t layers;
    rt_addr memory; /* one allocation, everything below lies in it */
    struct rt_rig_buffer lengths, positions, table, q, latent;
    struct rt_rig_buffer outputs[RT_RIG_SIDES][RT_RIG_OUTPUTS];
};

/* Decides, allocates and fills; the device's context is current. On failure *rig is zeroed. */
enum rt_status rt_rig_make(struct rt_measure *m, const struct rt_measure_attention_params *params,
                           struct rt_rig *rig);
void rt_rig_free(struct rt_rig *rig);

/* As operators want it: 0 where the layout has no scale of all tokens. */
static inline float rt_rig_kv_scale(const struct rt_rig *rig)
{
    return rig->params->kv_layout == RT_KV_FP8_TENSOR ? RT_MEASURE_KV_SCALE : 0;
}

/* What attends. */
static inline struct rt_variant *rt_rig_attend(struct rt_rig *rig, enum rt_rig_side side)
{
    return rig->params->topk ? &rig->lists.choices[side].attend : &rig->choices[side].attend;
}

/* Append a stage to the program. Attend brings its reduction, if it has one. */
enum rt_status rt_rig_add_schedule(const struct rt_rig *rig, enum rt_rig_side side,
                                   struct rt_program *p);
enum rt_status rt_rig_add_append(const struct rt_rig *rig, uint32_t layer, struct rt_program *p);
enum rt_status rt_rig_add_attend(const struct rt_rig *rig, enum rt_rig_side side, uint32_t layer,
                                 struct rt_program *p);

/* The shape as a graph's. */
static inline struct rt_graph_spec rt_rig_spec(const struct rt_rig *rig)
{
    return (struct rt_graph_spec){.phase = RT_PHASE_DECODE,
                                  .rows = rig->shape.batch,
                                  .tokens = rig->shape.batch * rig->shape.query_len,
                                  .decode_rows = rig->shape.batch};
}

/* Poisons what attend writes. */
enum rt_status rt_rig_poison(const struct rt_rig *rig, enum rt_rig_side side);

#endif
