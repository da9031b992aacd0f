/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_WORK_H
#define RT_COMMON_WORK_H

/*
 * One piece of a step as plain data: what a stage does. `kernels` and `runtime` fill it, `graphs`
 * turns it into nodes, prints and audits it, `driver` does it. Each kind has a twin on the host
 * device, so that whatever is built of them runs without a GPU.
 *
 *   LAUNCH      one kernel of ours                 an explicit node
 *   MATMUL      one product by a library           captured; host device: a typed node
 *   COLLECTIVE  one exchange between ranks         captured; host device: a typed node
 *   CALL        a caller's function                captured; host device: a typed node
 */
#include "common/launch.h"
#include "replayrt/rt.h"

#include <stddef.h>

typedef struct rt_dstream_opaque *rt_dstream; /* CUstream; null is the host device's own stream */

enum rt_work_kind { RT_WORK_LAUNCH, RT_WORK_MATMUL, RT_WORK_COLLECTIVE, RT_WORK_CALL };

/*
 * d[z, i, j] = bias[j] + sum over l of a[z, i, l] * b[z, j, l], summed in float or better and
 * rounded once. Weights are taken as they lie: of b's two strides one is 1. Strides in elements,
 * not negative. Null bias: none. m 0: no work.
 *
 * Each dtype is bf16 or f32. A bias lies beside its weight in a checkpoint, and has its dtype. The
 * host device takes any mix: f32 numbers by bf16 weights are what comparisons want. CUDA takes bf16
 * by bf16 to either and f32 throughout, and a bias where d has its dtype; the rest is refused.
 */
struct rt_matmul {
    rt_addr a;    /* [batch, m, k] */
    rt_addr b;    /* [batch, n, k] */
    rt_addr bias; /* [n] or null */
    rt_addr d;    /* [batch, m, n], overlaps no other */
    /* of a; of b and bias; of d */
    enum rt_dtype input_dtype, weight_dtype, output_dtype;
    uint32_t batch, m, n, k;
    int64_t a_batch_stride, a_row_stride;
    int64_t b_batch_stride, b_row_stride, b_column_stride; /* of j, of l */
    int64_t d_batch_stride, d_row_stride;
    const struct rt_matmul_plan *plan; /* CUDA: needed; outlives what was built of the product */
    rt_addr workspace;                 /* on RT_WORKSPACE_ALIGN; as many bytes as the plan wants */
    uint64_t workspace_bytes;          /* or more; 0: none */
};

/*
 * How the device does a product: made by the driver's matmul_prepare, good for every product of the
 * same dtypes, shape and strides whose addresses are aligned no worse. The back end's own part lies
 * behind it.
 */
#define RT_WORKSPACE_ALIGN 256u
#define RT_MATMUL_PLAN_TEXT 128
#define RT_MATMUL_IDENTITY_WORDS 10
struct rt_matmul_plan {
    uint32_t candidates;            /* ways to do it, the fastest by estimate first; at least 1 */
    uint32_t selected;              /* one of them, below too */
    uint64_t workspace_bytes;       /* that it wants */
    char text[RT_MATMUL_PLAN_TEXT]; /* for people: "algo 66, tile 64x64, split-K 5" */
    /* For other processes of this machine: equal where a plan of theirs for the same product does
     * it alike, to the same bits. */
    uint32_t identity[RT_MATMUL_IDENTITY_WORDS];
    /* Operands whose address a parameter word of the selected way's kernels is, as who has captured
     * it has seen: bits of RT_OPERAND_. 0 from when it is selected on. */
    uint32_t named;
};
enum rt_operand_bit { RT_OPERAND_A = 1, RT_OPERAND_B = 2, RT_OPERAND_D = 4, RT_OPERAND_BIAS = 8 };

enum rt_collective_kind {
    RT_ALL_REDUCE,
    RT_ALL_GATHER,
    RT_REDUCE_SCATTER,
    RT_ALL_TO_ALL
}; /* reductions are sums */

struct rt_comm;

/*
 * What every rank of `comm` does together, in the same order. Reductions are of bf16 or f32.
 *
 * ALL_TO_ALL is between the ranks of a group, `group` neighbours of which the first one's number is
 * a multiple of it: of rank i of the group comes what lies in its `from` at this rank's place.
 */
struct rt_collective {
    enum rt_collective_kind kind;
    enum rt_dtype dtype;
    rt_addr from;   /* [count]; REDUCE_SCATTER [ranks, count]; ALL_TO_ALL [group, count] */
    rt_addr to;     /* [count]; ALL_GATHER [ranks, count]; ALL_TO_ALL [group, count]; may be `from`
                     * itself in ALL_REDUCE */
    uint64_t count; /* elements */
    uint32_t ranks;
    uint32_t group;       /* of ALL_TO_ALL: it divides ranks */
    struct rt_comm *comm; /* driver/comm/comm.h; null: a group of one */
};

/* The caller's work: puts itself on `stream` (CUDA), or is done when it returns (host device, where
 * `stream` is null). 0 or a number of the caller's that means failure. */
struct rt_call {
    int (*fn)(void *user, rt_dstream stream);
    void *user; /* must outlive whatever was built of the call */
};

struct rt_work {
    enum rt_work_kind kind;
    union {
        struct rt_launch launch;
        struct rt_matmul matmul;
        struct rt_collective collective;
        struct rt_call call;
    };
};

/* A kernel's entry point, "matmul", "all_reduce", …, "callback": static storage. */
const char *rt_work_name(const struct rt_work *work);

/* For people: grid and blocks and on a line of its own what else, or shapes and dtypes, and a
 * product's plan on a line of its own. Cut to the text's size; "" for a call. */
void rt_work_describe(const struct rt_work *work, char *text, size_t bytes);

/* Memory that a MATMUL or COLLECTIVE reads or writes. */
struct rt_span {
    const char *name;
    rt_addr address;
    uint64_t bytes;
};
#define RT_MAX_SPANS 5
/* How many there are. A size beyond 64 bits is UINT64_MAX, which fits nowhere. */
uint32_t rt_matmul_spans(const struct rt_matmul *m, struct rt_span spans[RT_MAX_SPANS]);
uint32_t rt_collective_spans(const struct rt_collective *c, struct rt_span spans[RT_MAX_SPANS]);

/* Bytes of one element. */
uint32_t rt_dtype_bytes(enum rt_dtype dtype);
const char *rt_dtype_name(enum rt_dtype dtype);

#endif
