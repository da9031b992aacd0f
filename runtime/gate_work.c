/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/gate.h"
#include "runtime/block_work.h"
#include "runtime/model_memory.h"
#include "runtime/ops_check.h"

static const char op[] = "rt_gate";

enum rt_status rt_ops_check_inner_sizes(const char *fn, const struct rt_mla_input_norm_args *norm,
                                        const struct rt_route_args *route, struct rt_error *err)
{
    RT_REQUIRE(norm->struct_size == sizeof(*norm), err, RT_ERR_INVALID,
               "%s: norm.struct_size is %u, not %zu", fn, norm->struct_size, sizeof(*norm));
    RT_REQUIRE(route->struct_size == sizeof(*route), err, RT_ERR_INVALID,
               "%s: route.struct_size is %u, not %zu", fn, route->struct_size, sizeof(*route));
    return RT_OK;
}

/* What the three parts hand on is written too. */
static enum rt_status check_memory(const struct rt_gate_args *args, const struct rt_gate_params *p,
                                   struct rt_error *err)
{
    const struct rt_route_params *r = &p->route;
    struct rt_operands o = {.count = 0};
    rt_ops_input_norm_operands(&args->norm, &p->norm, &o);
    rt_ops_route_operands(&args->route, &o);
    rt_operands_writes(&o, rt_ops_route_logits(&args->route, r));
    rt_operands_writes(&o, rt_strided_flat("arrivals", args->arrivals, sizeof(int32_t)));
    rt_operands_reads(&o, rt_strided_vectors("router", args->router, r->experts, p->norm.norm.width,
                                             p->router_stride, sizeof(uint16_t), "router_stride"));
    return rt_operands_check(op, &o, err);
}

enum rt_status rt_ops_gate_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                const struct rt_gate_args *args, struct rt_work *out,
                                struct rt_error *err)
{
    const struct rt_op_request request = {.caps = caps};
    const struct rt_named_pointer pointers[] = {{"router", args->router, RT_ALIGN_VECTOR},
                                                {"arrivals", args->arrivals, RT_ALIGN_INT32}};
    struct rt_variant variant;
    struct rt_gate_params p = {.router = rt_ops_pointer(args->router),
                               .arrivals = rt_ops_pointer(args->arrivals)};
    RT_TRY(rt_ops_check_inner_sizes(op, &args->norm, &args->route, err));
    RT_TRY(RT_CHECK_RESERVED(op, args, reserved, err));
    RT_TRY(rt_ops_input_norm_params(op, caps, &args->norm, &p.norm, err));
    RT_TRY(rt_ops_route_params(op, &args->route, &p.route, err));
    RT_TRY(RT_CHECK_POINTERS(op, pointers, err));
    RT_TRY(RT_STRIDE(op, args, router_stride, args->norm.norm.width, 8, &p.router_stride, err));
    RT_REQUIRE(args->norm.tokens == p.route.rows.count * p.route.rows.q_len, err, RT_ERR_INVALID,
               "%s: norm.tokens %u, but %u rows of query_len %u", op, args->norm.tokens,
               p.route.rows.count, p.route.rows.q_len);
    RT_TRY(rt_op_resolve(RT_OP_GATE, &request, &variant, err));
    RT_TRY(rt_ops_named(op, rt_op_build(k, &variant, &p, sizeof(p), out, err), err));
    return check_memory(args, &p, err);
}
