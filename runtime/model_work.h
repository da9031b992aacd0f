/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_MODEL_WORK_H
#define RT_RUNTIME_MODEL_WORK_H

/* The arguments of replayrt/model_ops.h -> their work, checked. Nothing is launched here. */
#include "kernels/abi/route.h"
#include "kernels/op.h"
#include "replayrt/model_ops.h"
#include "runtime/ops_check.h"

enum rt_status rt_ops_embed_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                 const struct rt_embed_args *args, struct rt_work *out,
                                 struct rt_error *err);
enum rt_status rt_ops_take_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                const struct rt_take_rows_args *args, struct rt_work *out,
                                struct rt_error *err);
enum rt_status rt_ops_route_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                 const struct rt_route_args *args, struct rt_work *out,
                                 struct rt_error *err);

/* Of the workspace; RT_ERR_INVALID for what rt_sample does not take. */
enum rt_status rt_ops_sample_bytes(uint32_t rows, uint32_t query_len, uint32_t vocab,
                                   uint64_t *bytes, struct rt_error *err);

struct rt_sample_work {
    struct rt_work all[3]; /* the best of pieces, their tally, the choice */
};
enum rt_status rt_ops_sample_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                  const struct rt_sample_args *args, struct rt_sample_work *out,
                                  struct rt_error *err);

/* `route` is the public function, for messages. */
enum rt_status rt_ops_route_params(const char *route, const struct rt_route_args *args,
                                   struct rt_route_params *out, struct rt_error *err);
/* runtime/gate_work.c */
/* They lie inside of others' arguments, where they cannot grow. `fn` is the function's name. */
enum rt_status rt_ops_check_inner_sizes(const char *fn, const struct rt_mla_input_norm_args *norm,
                                        const struct rt_route_args *route, struct rt_error *err);
enum rt_status rt_ops_gate_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                const struct rt_gate_args *args, struct rt_work *out,
                                struct rt_error *err);

/* runtime/experts_work.c */
struct rt_experts_choice {
    struct rt_variant up, down;
    bool takes_scratch;
    struct rt_variant down_pairs; /* where it does */
};
/* Of rt_experts_get_info. RT_ERR_INVALID for a shape out of range, else what the resolver says. */
enum rt_status rt_ops_choose_experts(const struct rt_device_caps *caps,
                                     const struct rt_experts_shape *shape,
                                     struct rt_experts_choice *out, struct rt_error *err);
enum rt_status rt_ops_experts_up_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                      const struct rt_experts_up_args *args, struct rt_work *out,
                                      struct rt_error *err);
/* Of rt_experts_down_scratch. */
enum rt_status rt_ops_experts_scratch_bytes(const struct rt_experts_shape *shape, uint64_t *bytes,
                                            struct rt_error *err);

/* What the two make of their arguments, without their memory. `op` is the function's name. */
enum rt_status rt_ops_experts_up_params(const char *op, const struct rt_device_caps *caps,
                                        const struct rt_experts_up_args *args,
                                        struct rt_experts_up_params *p, struct rt_error *err);
enum rt_status rt_ops_experts_down_params(const char *op, const struct rt_device_caps *caps,
                                          const struct rt_experts_down_args *args,
                                          struct rt_experts_down_params *p, struct rt_error *err);

/* In one launch, or in two by way of scratch. */
struct rt_experts_down_work {
    struct rt_work all[2];
    uint32_t count;
};
enum rt_status rt_ops_experts_down_work(const struct rt_kernels *k,
                                        const struct rt_device_caps *caps,
                                        const struct rt_experts_down_args *args,
                                        struct rt_experts_down_work *out, struct rt_error *err);

/* runtime/moe_block_work.c */
enum rt_status rt_ops_moe_block_work(const struct rt_kernels *k, const struct rt_device_caps *caps,
                                     const struct rt_moe_block_args *args, struct rt_work *out,
                                     struct rt_error *err);
/* Of a shape alone, as rt_moe_block_get_info asks. */
enum rt_status rt_ops_choose_moe_block(const struct rt_kernels *k,
                                       const struct rt_device_caps *caps,
                                       const struct rt_experts_shape *shape, struct rt_variant *out,
                                       struct rt_error *err);

/* ---- what several of them have --------------------------------------------------------------- */

/* The view that kernels get. */
enum rt_status rt_ops_token_rows(const char *op, const struct rt_token_rows *rows,
                                 struct rt_rows_view *out, struct rt_error *err);
/* Of a routing none is null. */
enum rt_status rt_ops_routing(const char *op, const struct rt_routing *routing,
                              struct rt_groups_view *out, struct rt_error *err);
/* Pointers of which each may be null. */
enum rt_status rt_ops_check_optional(const char *op, const struct rt_named_pointer *pointers,
                                     uint32_t count, struct rt_error *err);
/* RT_ERR_INVALID: neither of the two. */
enum rt_status rt_ops_check_precision(const char *op, enum rt_precision precision,
                                      struct rt_error *err);
/* Likewise; RT_ERR_UNSUPPORTED: f32 on another device than the host. */
enum rt_status rt_ops_precision(const char *op, enum rt_precision precision,
                                const struct rt_device_caps *caps, uint32_t *is_f32,
                                struct rt_error *err);
/* least..most */
enum rt_status rt_ops_check_count(const char *op, const char *name, uint64_t value, uint64_t least,
                                  uint64_t most, struct rt_error *err);
/* What multiplies; 0: 1. */
enum rt_status rt_ops_factor(const char *op, const char *name, float given, float *out,
                             struct rt_error *err);

#endif
