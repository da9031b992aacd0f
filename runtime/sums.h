/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_SUMS_H
#define RT_RUNTIME_SUMS_H

/*
 * By what sums over ranks are done, what is gathered, and what ranks that share a context exchange,
 * for every size that graphs have: the communicator's library, or one shot by our own kernel. Both
 * are timed when a runtime is made, and what rank 0 has seen, or has chosen for a runtime that this
 * one is to be like, is what all ranks do, for an exchange is one thing on all of them.
 */
#include "graphs/spec.h"
#include "kernels/registry.h"
#include "runtime/context_exchange.h"
#include "runtime/sum_norm.h"
#include "runtime/sum_time.h"

#define RT_SUM_REASON_BYTES 200u

/* Three kinds of exchange in every graph, and a sum with the norm behind it. */
#define RT_SUM_MOST_CHOICES (4u * RT_MAX_SPECS)

struct rt_sum_choice {
    enum rt_collective_kind kind;
    uint64_t count; /* elements, as struct rt_collective has them */
    enum rt_dtype dtype;
    uint32_t with_norm; /* of a sum in one shot with the input norm behind it: in one launch? */
    uint32_t one_shot;
    char reason[RT_SUM_REASON_BYTES];
};

struct rt_sums {
    /* Another runtime's, whose choices are taken where it has made the same; null: nobody's. Looked
     * at by rt_sums_choose… alone. */
    const struct rt_sums *like;
    struct rt_sum_choice choices[RT_SUM_MOST_CHOICES];
    uint32_t choice_count;
};

/* Times this exchange, whose numbers are spoilt, where both can do it; once more does nothing. All
 * ranks have posted a step, and do it. Nothing is in flight. RT_ERR_RANKS, RT_ERR_DRIVER. */
enum rt_status rt_sums_choose(struct rt_sums *s, const struct rt_kernels *k,
                              const struct rt_collective *x, rt_dstream stream,
                              struct rt_error *err);

/* Likewise of what ranks that share a context do, which with the library is its all-to-all and a
 * merge: the choice is that of x->swap. */
enum rt_status rt_sums_choose_context(struct rt_sums *s, const struct rt_kernels *k,
                                      const struct rt_context_exchange *x, rt_dstream stream,
                                      struct rt_error *err);

/* Likewise, where that sum is chosen to go in one shot, of it and the input norm behind it: in one
 * launch or two. */
enum rt_status rt_sums_choose_norm(struct rt_sums *s, const struct rt_kernels *k,
                                   const struct rt_collective *x,
                                   const struct rt_input_norm_params *norm, rt_dstream stream,
                                   struct rt_error *err);

/* "sums", "gathers", "exchanges", "sums and norms": static storage. */
const char *rt_sum_choice_name(const struct rt_sum_choice *choice);

/* Null: nothing was chosen for it, and it is the communicator's. */
const struct rt_sum_choice *rt_sums_find(const struct rt_sums *s, const struct rt_collective *x);
const struct rt_sum_choice *rt_sums_find_norm(const struct rt_sums *s,
                                              const struct rt_collective *x);

#endif
