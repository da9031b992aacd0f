/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_ONE_SHOT_H
#define RT_RUNTIME_ONE_SHOT_H

/* Sums over ranks and what they gather by kernels of ours, rt_all_reduce and rt_all_gather, through
 * memory that all have mapped. */
#include "driver/comm/comm.h"
#include "kernels/abi/all_reduce.h"
#include "kernels/registry.h"

/* Maps the mailboxes, which are of all runtimes that the group serves: see rt_comm_map. */
enum rt_status rt_one_shot_map(struct rt_comm *c, struct rt_driver *d, struct rt_error *err);

/* Where in a rank's memory its mailbox of rt_context_merge is. */
rt_addr rt_one_shot_context_mailbox(const struct rt_comm *c, uint32_t rank);

/* False: the ranks' memory is not mapped, and why[0..bytes), else empty, says so. */
bool rt_one_shot_reaches(const struct rt_comm *c, char *why, size_t bytes);

/* False: it cannot do this exchange, and why[0..bytes) says so. The same on every rank. */
bool rt_one_shot_serves(const struct rt_comm *c, const struct rt_collective *x, char *why,
                        size_t bytes);

/* Of the kernel for such a one. */
struct rt_all_reduce_params rt_one_shot_params(const struct rt_collective *x);
/* The launch for an exchange that it serves. RT_ERR_UNSUPPORTED, RT_ERR_INVALID. */
enum rt_status rt_one_shot_work(const struct rt_kernels *k, const struct rt_collective *x,
                                struct rt_work *out, struct rt_error *err);

#endif
