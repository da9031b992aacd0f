/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_GRAPHS_AUDIT_H
#define RT_GRAPHS_AUDIT_H

/*
 * The audit reads the graph back from the driver, not from our notes: every address baked into a
 * node must lie in a registered allocation, and a node may be a kernel (or, on the host device,
 * work of another kind that its stage is of), nothing else.
 *
 * In our own kernels the addresses are known (rt_launch.address_mask). Of a library's work its
 * operands are, and must be registered whole; what else its kernels' words are is not: numbers look
 * like addresses, and memory of the library's own lives as long as it. But where a way of it has
 * named an operand by a word of its own when it was tried, its kernels in the graph do too, or they
 * have stale addresses. In a caller's captured kernel a parameter word counts as an address where
 * the driver knows an allocation at it, and it is no small numbers (is_number).
 *
 * A stage that its caller calls foreign is not proved: it may copy and fill, and its addresses are
 * not looked at, which the driver may not even tell.
 */
#include "graphs/build.h"

struct rt_audit_region {
    rt_addr base;
    uint64_t bytes;
    const char *name;
};

/* RT_ERR_AUDIT: graph (batch, query length), stage label, kernel, word number and value. */
enum rt_status rt_graph_audit(const struct rt_graph *g, const struct rt_program *p,
                              struct rt_driver *d, const struct rt_audit_region *regions,
                              uint32_t region_count, struct rt_error *err);

#endif
