/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_REF_REF_H
#define RT_KERNELS_REF_REF_H

/*
 * The definition of correct: plain C, double accumulation. These are also the host device's
 * kernels. Each takes the parameter struct that its CUDA twin takes by value.
 */
#include "common/bf16.h"
#include "driver/driver.h"
#include "kernels/abi/all_reduce_norm.h"
#include "kernels/abi/append.h"
#include "kernels/abi/attend.h"
#include "kernels/abi/chunk.h"
#include "kernels/abi/context.h"
#include "kernels/abi/context_merge.h"
#include "kernels/abi/convert.h"
#include "kernels/abi/embed.h"
#include "kernels/abi/experts.h"
#include "kernels/abi/gather.h"
#include "kernels/abi/input_norm.h"
#include "kernels/abi/merge.h"
#include "kernels/abi/mla_block.h"
#include "kernels/abi/preattend_absorb_sm90.h"
#include "kernels/abi/preattend_sums.h"
#include "kernels/abi/prefill.h"
#include "kernels/abi/project.h"
#include "kernels/abi/quant.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/sample.h"
#include "kernels/abi/sparse.h"
#include "kernels/abi/step.h"
#include "kernels/abi/take.h"

void rt_ref_step_begin(const void *params);
void rt_ref_chunk_rows(const void *params);
void rt_ref_context_rows(const void *params);
void rt_ref_step_end(const void *params);
void rt_ref_page_copy(const void *params);
void rt_ref_schedule(const void *params);
void rt_ref_append(const void *params);
void rt_ref_append_general(const void *params);
void rt_ref_append_quant(const void *params);
void rt_ref_embed(const void *params);
void rt_ref_input_norm(const void *params);
void rt_ref_preattend(const void *params);
void rt_ref_preattend_quant(const void *params);
void rt_ref_preattend_sums(const void *params);
void rt_ref_preattend_absorb(const void *params);
void rt_ref_preattend_absorb_sm90(const void *params);
void rt_ref_schedule_append(const void *params);
void rt_ref_attend(const void *params);
void rt_ref_attend_quant(const void *params);
void rt_ref_sparse_schedule(const void *params);
void rt_ref_sparse_attend(const void *params);
void rt_ref_sparse_attend_whole(const void *params);
void rt_ref_sparse_attend_quant(const void *params);
void rt_ref_reduce(const void *params);
void rt_ref_kv_convert(const void *params);
void rt_ref_kv_gather(const void *params);
void rt_ref_kv_gather_quant(const void *params);
void rt_ref_merge(const void *params);
/* Waits for the other ranks, which are other threads or processes, or have sent already. */
void rt_ref_all_reduce(const void *params);
void rt_ref_all_gather(const void *params); /* likewise, as the next */
void rt_ref_all_reduce_norm(const void *params);
void rt_ref_all_reduce_norm_send(const struct rt_all_reduce_norm_params *p);
/* Their first half: what is sent to the others. */
void rt_ref_all_reduce_send(const struct rt_all_reduce_params *p);
void rt_ref_context_merge(const void *params); /* likewise, and its first half */
void rt_ref_context_merge_send(const struct rt_context_merge_params *p);
void rt_ref_take(const void *params);
void rt_ref_sample_best(const void *params);
void rt_ref_sample_tally(const void *params);
void rt_ref_sample(const void *params);
void rt_ref_project(const void *params);
void rt_ref_mla_block(const void *params);
void rt_ref_moe_block(const void *params);
void rt_ref_route(const void *params);
void rt_ref_gate(const void *params);
void rt_ref_experts_up(const void *params);
void rt_ref_experts_down(const void *params);
void rt_ref_experts_down_pairs(const void *params);
void rt_ref_experts_down_sum(const void *params);
void rt_ref_prefill_attend(const void *params);

/*
 * Attention without tiles, splits or partials: what attend and reduce together must give. Reads the
 * same struct (tiles, num_splits, partials unused) and writes every row, padding included, in
 * double: out [rows, q_len, heads, d_v], lse [rows, q_len, heads], both packed from row 0.
 */
void rt_ref_mla_attention(const struct rt_attend_params *p, double *out, double *lse);
/* One query row of it, token * heads + head of batch row `row`: out [d_v], lse [1]. */
void rt_ref_mla_attention_query(const struct rt_attend_params *p, uint32_t row, uint32_t query,
                                double *out, double *lse);

/* One step of mla_block alone, from what stands in the exchange, which it writes to, or the cache,
 * or hidden and residual. */
enum rt_ref_mla_block_step {
    RT_REF_MLA_BLOCK_A, /* and q, where there is no q rank */
    RT_REF_MLA_BLOCK_QUERY,
    RT_REF_MLA_BLOCK_ABSORB,
    RT_REF_MLA_BLOCK_APPEND,
    RT_REF_MLA_BLOCK_ATTEND,
    RT_REF_MLA_BLOCK_VALUES,
    RT_REF_MLA_BLOCK_HIDDEN
};
void rt_ref_mla_block_step(const struct rt_mla_block_params *p, enum rt_ref_mla_block_step step);

/* The table that the host device loads. */
extern const struct rt_host_kernel rt_ref_kernels[];
extern const uint32_t rt_ref_kernel_count;

#endif
