/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_PROMISES_H
#define RT_RUNTIME_PROMISES_H

/*
 * How the operands of a graph's products are aligned on all ranks. A library offers other ways for
 * operands that are aligned otherwise, and weights lie where each rank has them: so all ask for the
 * least, which makes their lists, and which products share a plan, the same.
 */
#include "driver/comm/comm.h"
#include "driver/matmul_plan.h"
#include "graphs/program.h"

#define RT_PROMISES_WHY_BYTES 96u

/* One for every product that has work, in the order of the program. */
struct rt_promises {
    /* bias: of the ranks that have one; 0: none has. */
    struct rt_matmul_alignment *least;
    uint32_t count;
    /* Not all ranks have as many products, and which; `least` is this one's alone then. */
    char why_not[RT_PROMISES_WHY_BYTES];
};

/* Whether a stage's work has a promise. */
static inline bool rt_has_promise(const struct rt_work *work)
{
    return work->kind == RT_WORK_MATMUL && work->matmul.m > 0;
}

/* Null comm, or one of a single rank: what this one's operands are. All ranks come here with their
 * program of the same graph. Blocks. To be freed also on failure. RT_ERR_RANKS, RT_ERR_NOMEM. */
enum rt_status rt_promises_make(const struct rt_program *program, struct rt_comm *comm,
                                struct rt_promises *out, struct rt_error *err);
void rt_promises_free(struct rt_promises *promises);

/* A product as the library is asked for it: for addresses their alignment. */
struct rt_matmul rt_promised(const struct rt_matmul *m, const struct rt_matmul_alignment *least);

#endif
