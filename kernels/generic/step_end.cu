/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step_end: the step's outcome -> the slots and the host. The rule is in kernels/abi/step.h, the
 * timeline in cycles in docs/schedule.md. One block, last node of the graph.
 *
 *   all        ctrl, and row r's slot, position, both counts,     \ one trip to L2, or two where
 *              sampled token and last token                       / row_base is not 0
 *   thread r   slot length, token and drafts; outcome r and its tokens to the host
 *                                                     -A- all outcomes are on their way
 *   thread 0   header to the host, system fence, step word and completed word
 *
 *   barrier   makes visible                              to
 *   A         every thread's outcomes, and whether       thread 0, whose fence then orders them
 *             some accepted count was out of range       before the two words
 *   E         which row was the first such               thread 0
 *
 * One fence serves both words: whoever sees either sees the outcomes and the rest of the header,
 * but not yet surely the other word. The host polls `completed` alone.
 */
#include "kernels/abi/step.h"
#include "kernels/device/ptx/mapped.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/timer.cuh"

#define THREADS RT_STEP_END_THREADS
#define NO_ROW UINT32_MAX

/* What a row left in the data tensors; last: token query_len - 1. */
struct row_data {
    int32_t accepted, sampled, last;
};

/* accept: RT_ACCEPT_BY_DEVICE, or the count that the host has decided, and counted already. */
struct row_place {
    int32_t slot, position, length, accept;
};

static __device__ __forceinline__ struct row_place load_place(const struct rt_step_end_params &p,
                                                              uint32_t row)
{
    return {p.row_slot[row], p.row_position[row], p.row_length[row], p.row_accept[row]};
}

static __device__ __forceinline__ struct row_data load_data(const struct rt_step_end_params &p,
                                                            uint64_t data_row)
{
    return {p.accepted[data_row], p.sampled[data_row],
            p.tokens[data_row * p.query_len + p.query_len - 1]};
}

static __device__ __forceinline__ struct rt_completion *
completion_of(const struct rt_step_end_params &p, uint64_t step)
{
    /* As in step_begin: a 64-bit division only where the ring's depth needs it. */
    const uint32_t mask = p.ring_depth - 1;
    const uint32_t index = (uint32_t)(p.ring_depth & mask ? step % p.ring_depth : step & mask);
    return reinterpret_cast<struct rt_completion *>(p.completions +
                                                    (uint64_t)index * p.completion_bytes);
}

/* Writes the slot, returns the outcome; a count out of range is replaced by the row's tokens. */
static __device__ __forceinline__ struct rt_row_outcome end_row(const struct rt_step_end_params &p,
                                                                const struct row_place &place,
                                                                const struct row_data &data,
                                                                uint64_t data_row)
{
    if (place.slot < 0)
        return {0, -1};
    const uint32_t tokens = (uint32_t)(place.length - place.position);
    const uint32_t accepted = min((uint32_t)data.accepted, tokens);
    p.slot_length[place.slot] = place.position + (int32_t)accepted;

    int32_t token = data.sampled;
    if (token < 0 && accepted > 0)
        token =
            accepted == p.query_len ? data.last : p.tokens[data_row * p.query_len + accepted - 1];
    if (token >= 0)
        p.slot_token[place.slot] = token;
    return {(int32_t)accepted, data.sampled};
}

/* The row's drafts become the slot's. */
static __device__ __forceinline__ void end_drafts(const struct rt_step_end_params &p, int32_t slot,
                                                  uint64_t data_row)
{
    const uint32_t columns = p.draft_columns;
#pragma unroll 1
    for (uint32_t i = 0; i < columns; i++)
        p.slot_drafts[(uint64_t)slot * columns + i] = max(p.drafts[data_row * columns + i], -1);
}

/* To the host. A step of one token a row has it at hand. */
static __device__ __forceinline__ void end_tokens(const struct rt_step_end_params &p,
                                                  const struct row_place &place,
                                                  const struct row_data &data, uint64_t data_row,
                                                  int32_t *to)
{
    const uint32_t last = p.query_len - 1;
#pragma unroll 1
    for (uint32_t t = 0; t < last; t++)
        to[t] = place.slot >= 0 ? p.tokens[data_row * p.query_len + t] : -1;
    to[last] = place.slot >= 0 ? data.last : -1;
}

/*
 * Counts the step and completes it, `ctrl` with its final error. One thread. 16 bytes at a time:
 * each store is a packet on the bus.
 */
static __device__ __forceinline__ void complete(const struct rt_step_end_params &p,
                                                const struct rt_ctrl &ctrl, uint64_t step,
                                                struct rt_completion *completion)
{
    struct alignas(16) {
        struct rt_completion c;
    } header = {};
    header.c.error = ctrl.error;
    header.c.error_row = ctrl.error_row;
    header.c.error_value = ctrl.error_value;
    header.c.t_begin = ctrl.t_begin;
    header.c.t_attend_first = ctrl.t_attend_first;
    header.c.t_attend_last = ctrl.t_attend_last;
    header.c.live_rows = ctrl.live_rows;
    header.c.t_end = rt_globaltimer_ns();

    const uint4 *from = reinterpret_cast<const uint4 *>(&header);
    uint4 *to = reinterpret_cast<uint4 *>(completion);
    reinterpret_cast<uint2 *>(to)[1] = make_uint2(from[0].z, from[0].w);
#pragma unroll
    for (uint32_t i = 1; i < sizeof(header) / sizeof(uint4); i++)
        to[i] = from[i];
    p.ctrl->step = step;
    rt_fence_mapped();
    rt_store_mapped_8(&completion->step, step);
    rt_store_mapped_8(p.completed, step);
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    rt_step_end(const __grid_constant__ struct rt_step_end_params p)
{
    __shared__ uint32_t first_bad;
    if (threadIdx.x == 0)
        first_bad = NO_ROW;
    rt_pdl_wait();

    /* Asked for before ctrl has arrived: the bucket bounds them, and row_base is 0 wherever a step
     * is one replay. */
    struct row_place place = {-1, 0, 0, 0};
    struct row_data data = {};
    if (threadIdx.x < p.bucket) {
        place = load_place(p, threadIdx.x);
        data = load_data(p, threadIdx.x);
    }
    struct rt_ctrl ctrl = *p.ctrl;
    /* No early exit: a branch on ctrl would hold the loads above back until it has arrived. */
    const bool counts = ctrl.error != RT_DEV_STEP;
    const uint32_t live_rows = counts ? ctrl.live_rows : 0;

    const uint64_t step = ctrl.step + 1;
    struct rt_completion *completion = completion_of(p, step);
    uint2 *outcomes = reinterpret_cast<uint2 *>(completion + 1);
    int32_t *tokens = reinterpret_cast<int32_t *>(reinterpret_cast<unsigned char *>(completion) +
                                                  p.tokens_offset);
    uint32_t bad_row = NO_ROW;
    int32_t bad_value = 0;
    for (uint32_t row = threadIdx.x; row < live_rows; row += THREADS) {
        const uint64_t data_row = (uint64_t)ctrl.row_base + row;
        if (row >= THREADS)
            place = load_place(p, row);
        if (row >= THREADS || ctrl.row_base > 0)
            data = load_data(p, data_row);
        if (place.accept != RT_ACCEPT_BY_DEVICE)
            data.accepted = place.accept;
        const struct rt_row_outcome outcome = end_row(p, place, data, data_row);
        outcomes[row] = make_uint2((uint32_t)outcome.accepted, (uint32_t)outcome.sampled);
        end_tokens(p, place, data, data_row, tokens + row * p.query_len);
        if (place.slot >= 0)
            end_drafts(p, place.slot, data_row);
        if (place.slot >= 0 && outcome.accepted != data.accepted && bad_row == NO_ROW) {
            bad_row = row;
            bad_value = data.accepted;
        }
    }

    bool closes = counts && threadIdx.x == 0;
    if (__syncthreads_or(bad_row != NO_ROW) && ctrl.error == RT_DEV_OK) { /* A */
        if (bad_row != NO_ROW)
            atomicMin(&first_bad, bad_row);
        __syncthreads(); /* E */
        closes = bad_row == first_bad;
        if (closes) {
            ctrl.error = p.ctrl->error = RT_DEV_ACCEPT;
            ctrl.error_row = p.ctrl->error_row = bad_row;
            ctrl.error_value = p.ctrl->error_value = bad_value;
        }
    }
    if (closes)
        complete(p, ctrl, step, completion);
}
