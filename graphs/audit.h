/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_GRAPHS_AUDIT_H
#define RT_GRAPHS_AUDIT_H

/*
 * The audit reads the graph back from the driver, not from our notes: every address baked into a
 * node must lie in a registered allocation, and a node may be a kernel (or, on the host device,
 * work of another kind that its stage is of), nothing else.
 *
 * In our own kernels the addresses are known (rt_launch.address_mask). Of a library's work on the
 * host device all memory is known, and must be registered whole. In a captured kernel a parameter
 * word counts as an address where the driver knows an allocation at it.
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
