/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_OPS_OP_BUILD_H
#define RT_KERNELS_OPS_OP_BUILD_H

/*
 * The host half of the kernels, one file an operator: parameters -> one checked launch with its
 * grid. Pure but for the registry's lookup and attend's tensor maps. Called through kernels/op.h.
 */
#include "kernels/abi/all_reduce_norm.h"
#include "kernels/abi/append.h"
#include "kernels/abi/attend.h"
#include "kernels/abi/chunk.h"
#include "kernels/abi/context.h"
#include "kernels/abi/context_merge.h"
#include "kernels/abi/convert.h"
#include "kernels/abi/embed.h"
#include "kernels/abi/experts_many.h"
#include "kernels/abi/gate.h"
#include "kernels/abi/gather.h"
#include "kernels/abi/input_norm.h"
#include "kernels/abi/merge.h"
#include "kernels/abi/mla_block.h"
#include "kernels/abi/moe_block.h"
#include "kernels/abi/preattend_absorb.h"
#include "kernels/abi/preattend_sums.h"
#include "kernels/abi/prefill.h"
#include "kernels/abi/project.h"
#include "kernels/abi/quant.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/sample.h"
#include "kernels/abi/sparse.h"
#include "kernels/abi/step.h"
#include "kernels/abi/take.h"
#include "kernels/op.h"

/* The generic kernels' least device. */
#define RT_GENERIC_CC_MIN RT_OLDEST_CC

#define RT_WARP_THREADS 32u

/* For operators with one variant everywhere: *out comes with its op, backend and entry. */
enum rt_status rt_plain_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                struct rt_error *err);
enum rt_status rt_attend_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                 struct rt_error *err);
enum rt_status rt_reduce_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                 struct rt_error *err);
enum rt_status rt_project_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                  struct rt_error *err);
enum rt_status rt_preattend_absorb_resolve(const struct rt_op_request *request,
                                           struct rt_variant *out, struct rt_error *err);
enum rt_status rt_mla_block_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                    struct rt_error *err);
enum rt_status rt_experts_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                  struct rt_error *err);
enum rt_status rt_experts_pairs_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                        struct rt_error *err);
enum rt_status rt_moe_block_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                    struct rt_error *err);
enum rt_status rt_prefill_attend_resolve(const struct rt_op_request *request,
                                         struct rt_variant *out, struct rt_error *err);

/* What append_general has in common with append_quant. */
enum rt_status rt_check_append(const struct rt_append_params *p, struct rt_error *err);

/* What schedule and attend have in common with their kin. */
enum rt_status rt_check_schedule(const struct rt_schedule_params *p, struct rt_error *err);
enum rt_status rt_check_attend(const struct rt_variant *v, const struct rt_attend_params *p,
                               struct rt_error *err);

/*
 * The maps of queries that the sm_90 attention kernels have, as kernels/abi/attend_sm90.h says, of
 * rows of `p` that are q.row_stride elements apart. *even: whether there can be maps; else none is
 * made. Needs a driver.
 */
enum rt_status rt_attend_query_maps(const struct rt_kernels *k, const struct rt_variant *v,
                                    const struct rt_attend_params *p, uint32_t *even,
                                    struct rt_tensor_map *map, struct rt_tensor_map *rest_map,
                                    struct rt_error *err);

/* What gate has in common with the two that it is made of. */
enum rt_status rt_check_input_norm(const struct rt_input_norm_params *p, struct rt_error *err);
enum rt_status rt_check_route(const struct rt_route_params *p, struct rt_error *err);

/* Of ranks that exchange by mailboxes, as kernels/abi/all_reduce.h has them: which one, of how
 * many, each with its own, and no more. */
enum rt_status rt_check_mailboxes(void *const mailbox[], uint32_t rank, uint32_t ranks,
                                  struct rt_error *err);

/* Tiles of a product whose weight lies across, as the sm90 kernels deal them out. */
uint32_t rt_project_across_tiles(const struct rt_project_params *p);

/* The first reason why the Hopper kernels cannot serve. */
enum rt_status rt_check_sm90(const struct rt_device_caps *caps, struct rt_error *err);

/* Query rows of the request's smaller tile; 0: it asks for none, or there is none. */
uint32_t rt_small_tile_rows(enum rt_op_id op, const struct rt_op_request *request);

/* Its limit; zeros: likewise. */
struct rt_small_tile_limit rt_small_tile_limit_of(enum rt_op_id op,
                                                  const struct rt_op_request *request);

#define RT_OP(id, name, params_type, resolve, build)                                               \
    enum rt_status build(const struct rt_kernels *k, const struct rt_variant *variant,             \
                         const void *params, struct rt_launch *out, struct rt_error *err);
#include "kernels/ops.inc"

/* What rows hold, beside what the cache itself is held to. */
enum rt_status rt_check_quant(const struct rt_quant_view *q, uint32_t d_qk,
                              const struct rt_kv_view *kv, struct rt_error *err);

/* And what the sm90 kernels over them are, beside. */
enum rt_status rt_check_quant_sm90(const struct rt_quant_view *q, const struct rt_attend_params *p,
                                   struct rt_error *err);

/* A warp a token: append's blocks. */
uint32_t rt_append_blocks(const struct rt_rows_view *rows);

/* Shared by them: a launch of one-dimensional blocks, and the checks that name what is wrong. */
enum rt_status rt_launch_grid(const struct rt_kernels *k, const char *entry, const void *params,
                              size_t param_bytes, uint32_t grid_x, uint32_t grid_y,
                              uint32_t threads, struct rt_launch *out, struct rt_error *err);
/* Of the sm_90 kernel that attends over so many rows. */
enum rt_status rt_launch_attend(const struct rt_kernels *k, const struct rt_variant *attend,
                                uint32_t rows, const void *params, size_t param_bytes,
                                struct rt_launch *out, struct rt_error *err);
enum rt_status rt_check_rows(uint32_t rows, uint32_t q_len, struct rt_error *err);
/* Where nothing is scheduled by row: as many rows of one token as there may be tokens. */
enum rt_status rt_check_token_rows(uint32_t rows, uint32_t q_len, struct rt_error *err);
/* Rows are moved 16 bytes at a time. */
enum rt_status rt_check_pointer(const char *name, const void *pointer, struct rt_error *err);
/* Of `element_bytes` each. */
enum rt_status rt_check_stride(const char *name, int64_t stride, uint32_t element_bytes,
                               struct rt_error *err);
enum rt_status rt_check_kv(const struct rt_kv_view *kv, struct rt_error *err);
/* q or out: base and three strides. */
enum rt_status rt_check_heads(const char *name, const struct rt_heads_view *view,
                              struct rt_error *err);
enum rt_status rt_check_tokens(const char *name, const struct rt_tokens_view *view,
                               struct rt_error *err);
/* At most `most` wide. */
enum rt_status rt_check_norm(const char *name, const struct rt_norm_view *norm, uint32_t most,
                             struct rt_error *err);
/* RT_ERR_UNSUPPORTED for f32 where CUDA kernels are loaded. */
enum rt_status rt_check_f32(const struct rt_kernels *k, const struct rt_variant *variant,
                            uint32_t is_f32, struct rt_error *err);

#endif
