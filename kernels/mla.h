/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_MLA_H
#define RT_KERNELS_MLA_H

/* The host half of the kernels: parameters -> one launch with its grid. Pure but for the lookup. */
#include "kernels/abi/mla.h"
#include "kernels/abi/step.h"
#include "kernels/kernels.h"

enum rt_status rt_step_begin_launch(const struct rt_kernels *k,
                                    const struct rt_step_begin_params *p, struct rt_launch *out,
                                    struct rt_error *err);
enum rt_status rt_step_end_launch(const struct rt_kernels *k, const struct rt_step_end_params *p,
                                  struct rt_launch *out, struct rt_error *err);
enum rt_status rt_page_copy_launch(const struct rt_kernels *k, const struct rt_page_copy_params *p,
                                   struct rt_launch *out, struct rt_error *err);
enum rt_status rt_schedule_launch(const struct rt_kernels *k, const struct rt_schedule_params *p,
                                  struct rt_launch *out, struct rt_error *err);
enum rt_status rt_mla_append_launch(const struct rt_kernels *k,
                                    const struct rt_mla_append_params *p, struct rt_launch *out,
                                    struct rt_error *err);
/* Both halves are checked as rt_schedule_launch and rt_mla_append_launch check them. */
enum rt_status rt_schedule_append_launch(const struct rt_kernels *k,
                                         const struct rt_schedule_append_params *p,
                                         struct rt_launch *out, struct rt_error *err);
enum rt_status rt_mla_attend_launch(const struct rt_kernels *k, const struct rt_attend_choice *c,
                                    const struct rt_mla_attend_params *p, struct rt_launch *out,
                                    struct rt_error *err);
enum rt_status rt_mla_reduce_launch(const struct rt_kernels *k, const struct rt_attend_choice *c,
                                    const struct rt_mla_reduce_params *p, struct rt_launch *out,
                                    struct rt_error *err);

/* Split slots that `parts` parts can need: the partial buffers have this many. */
static inline uint32_t rt_max_split_slots(uint32_t parts)
{
    return 2 * parts;
}

#endif
