/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chunk_rows: prompts' tokens get their places, by the rule of kernels/abi/chunk.h. One block.
 *
 *   all        ctrl; row r's slot and start; its count, over the bus
 *   thread 0   row after row: counts that are good, sums                                 -A-
 *   thread r   row r                      \  a token finds its row among the sums        -B-
 *   thread j   tokens j, j + THREADS, …   /  by halving
 *
 *   barrier   makes visible
 *   A         slots, starts and counts, to thread 0
 *   B         sums and counts that stay, to all
 *
 * The one thread meets the rows in order, so the first error is the first by itself; it has a few
 * cycles for each of at most 256.
 */
#include "kernels/abi/chunk.h"
#include "kernels/device/ptx/mapped.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "replayrt/rt.h"

#define THREADS RT_CHUNK_ROWS_THREADS
RT_STATIC_ASSERT(THREADS > RT_MAX_PREFILL_ROWS, "a thread a row of prompts, and one for their end");

struct desk {
    int32_t count[RT_MAX_PREFILL_ROWS]; /* tokens of the row; behind B those with a place */
    int32_t slot[RT_MAX_PREFILL_ROWS];  /* behind B -1: dropped */
    int32_t start[RT_MAX_PREFILL_ROWS]; /* behind B 0 where dropped */
    int32_t first[RT_MAX_PREFILL_ROWS + 1], context[RT_MAX_PREFILL_ROWS + 1];
    uint32_t prompts, live;
};

static __device__ __forceinline__ const unsigned char *
record_of(const struct rt_chunk_rows_params &p, uint64_t step)
{
    return p.ring + step % p.ring_depth * p.record_bytes;
}

static __device__ __forceinline__ uint32_t bucket_of(const struct rt_chunk_rows_params &p)
{
    return p.prefill_rows + p.decode_rows;
}

/* Of the record's int32 behind the rows' columns. */
static __device__ __forceinline__ int32_t load_word(const struct rt_chunk_rows_params &p,
                                                    const unsigned char *record, uint32_t i)
{
    const uint64_t at = (uint64_t)bucket_of(p) * p.query_len + i;
    return rt_load_mapped_4(record + p.tokens_offset + at * sizeof(int32_t));
}

/* Kept by the one thread, in order. */
static __device__ __forceinline__ void note(const struct rt_chunk_rows_params &p,
                                            enum rt_device_error error, uint32_t row, int64_t value)
{
    if (p.ctrl->error != RT_DEV_OK)
        return;
    p.ctrl->error = error;
    p.ctrl->error_row = row;
    p.ctrl->error_value = value;
}

/* Each row's count and place, and what is dropped. One thread. */
static __device__ void sum_rows(const struct rt_chunk_rows_params &p, struct desk &desk)
{
    const uint32_t prompts = min(desk.prompts, desk.live);
    int32_t taken = 0, context = 0;
#pragma unroll 1
    for (uint32_t r = 0; r < p.prefill_rows; r++) {
        desk.first[r] = taken;
        desk.context[r] = context;
        if (r >= prompts)
            continue;
        int32_t n = desk.count[r];
        if (n < 1 || n > (int32_t)p.chunk - taken) {
            note(p, RT_DEV_TOKENS, r, n);
            n = 0;
        }
        taken += n;
        const int64_t end = (int64_t)desk.start[r] + n;
        const bool there = n > 0 && desk.slot[r] >= 0;
        if (there && end > (int64_t)p.max_length)
            note(p, RT_DEV_LENGTH, r, end);
        if (!there || end > (int64_t)p.max_length) {
            desk.slot[r] = -1;
            desk.start[r] = 0;
        }
        desk.count[r] = n;
        context += desk.start[r];
    }
    desk.first[p.prefill_rows] = taken;
    desk.context[p.prefill_rows] = context;
    if (p.pieces > 0 && context > (int64_t)p.pieces * p.piece)
        note(p, RT_DEV_LENGTH, 0, context);
}

static __device__ __forceinline__ void write_row(const struct rt_chunk_rows_params &p, uint32_t r,
                                                 const struct desk &desk)
{
    const bool live = r < desk.live;
    const bool prompt = live && r < desk.prompts;
    const int32_t slot = !live ? -1 : prompt ? desk.slot[r] : p.row_slot[r];
    if (slot < 0) {
        p.row_slot[r] = -1;
        p.row_position[r] = p.row_length[r] = p.row_accept[r] = p.row_start[r] = 0;
        return;
    }
    if (!prompt) {
        p.row_start[r] = p.row_position[r];
        return;
    }
    const int32_t end = desk.start[r] + desk.count[r];
    p.row_start[r] = desk.start[r];
    p.row_position[r] = end - 1;
    p.row_length[r] = end;
}

/* What may be sampled from in column t of row r: a token of the chunk, or -1. Of rows as step_begin
 * left them. */
static __device__ __forceinline__ int32_t column_of(const struct rt_chunk_rows_params &p,
                                                    uint32_t r, uint32_t t, const struct desk &desk)
{
    if (r >= desk.live)
        return -1;
    if (r < desk.prompts)
        return t == 0 && desk.slot[r] >= 0 ? desk.first[r] + desk.count[r] - 1 : -1;
    const bool there = p.row_slot[r] >= 0 && (int32_t)t < p.row_length[r] - p.row_position[r];
    return there ? (int32_t)(p.chunk + (r - desk.prompts) * p.query_len + t) : -1;
}

static __device__ __forceinline__ void write_token(const struct rt_chunk_rows_params &p, uint32_t j,
                                                   int32_t slot, int32_t position, int32_t id)
{
    p.token_id[j] = slot >= 0 ? id : -1;
    p.token_slot[j] = slot >= 0 ? slot : -1;
    p.token_position[j] = slot >= 0 ? position : 0;
    p.token_length[j] = slot >= 0 ? position + 1 : 0;
}

/* The row of prompts that token j belongs to; it is there. */
static __device__ __forceinline__ uint32_t row_of(const struct desk &desk, uint32_t rows, int32_t j)
{
    uint32_t low = 0, high = rows; /* first[low] <= j < first[high] */
    while (high - low > 1) {
        const uint32_t middle = (low + high) / 2;
        if (desk.first[middle] <= j)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static __device__ __forceinline__ void write_prompt_token(const struct rt_chunk_rows_params &p,
                                                          const unsigned char *record, uint32_t j,
                                                          const struct desk &desk)
{
    if ((int32_t)j >= desk.first[p.prefill_rows]) {
        write_token(p, j, -1, 0, -1);
        return;
    }
    const uint32_t r = row_of(desk, p.prefill_rows, (int32_t)j);
    const int32_t t = (int32_t)j - desk.first[r], slot = desk.slot[r];
    int32_t id = -1;
    if (slot >= 0) {
        id = t == desk.count[r] - 1 ? p.tokens[r * p.query_len]
                                    : load_word(p, record, p.prefill_rows + j);
        if (t == 0 && id == -1)
            id = p.slot_token[slot];
    }
    write_token(p, j, slot, desk.start[r] + t, id);
}

/* The k-th column of rows that decode, as step_begin left them. */
static __device__ __forceinline__ void write_decoding_token(const struct rt_chunk_rows_params &p,
                                                            uint32_t k, const struct desk &desk)
{
    const uint32_t r = desk.prompts + k / p.query_len, t = k % p.query_len;
    const bool live = r < desk.live && (int32_t)t < p.row_length[r] - p.row_position[r];
    if (live)
        write_token(p, p.chunk + k, p.row_slot[r], p.row_position[r] + (int32_t)t,
                    p.tokens[r * p.query_len + t]);
    else
        write_token(p, p.chunk + k, -1, 0, -1);
}

/* The i-th row that decodes, as attention has it. */
static __device__ __forceinline__ void write_beside(const struct rt_chunk_rows_params &p,
                                                    uint32_t i, const struct desk &desk)
{
    const uint32_t r = desk.prompts + i;
    const int32_t slot = r < desk.live ? p.row_slot[r] : -1;
    const int32_t position = slot >= 0 ? p.row_position[r] : 0;
    p.beside_slot[i] = slot >= 0 ? slot : -1;
    p.beside_position[i] = position;
    p.beside_reach[i] = slot >= 0 ? position + (int32_t)p.query_len : 0;
}

static __device__ __forceinline__ void write_sums(const struct rt_chunk_rows_params &p,
                                                  const struct desk &desk)
{
    const uint32_t ends = p.prefill_rows + 1;
    for (uint32_t r = threadIdx.x; r < ends; r += THREADS) {
        p.chunk_first[r] = desk.first[r];
        p.context_first[r] = desk.context[r];
        for (uint32_t i = 0; i < p.pieces; i++)
            p.piece_first[(uint64_t)i * ends + r] = desk.context[r] - (int32_t)(i * p.piece);
    }
}

/* A record whose rows do not fit: none of them runs. */
static __device__ __forceinline__ void check_rows(const struct rt_chunk_rows_params &p,
                                                  struct desk &desk)
{
    const uint32_t behind = desk.live > desk.prompts ? desk.live - desk.prompts : 0;
    if (desk.prompts <= p.prefill_rows && behind <= p.decode_rows)
        return;
    note(p, RT_DEV_TOKENS, 0, desk.prompts);
    desk.prompts = desk.live = 0;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    rt_chunk_rows(const __grid_constant__ struct rt_chunk_rows_params p)
{
    __shared__ struct desk desk;
    rt_pdl_wait();
    rt_pdl_launch_dependents();
    const unsigned char *record = record_of(p, p.ctrl->step + 1);
    const uint32_t live = p.ctrl->live_rows;
    if (threadIdx.x < p.prefill_rows) {
        desk.count[threadIdx.x] = load_word(p, record, threadIdx.x);
        desk.slot[threadIdx.x] = p.row_slot[threadIdx.x];
        desk.start[threadIdx.x] = p.row_position[threadIdx.x];
    }
    if (threadIdx.x == 0) {
        const uint32_t prompts =
            (uint32_t)rt_load_mapped_4(record + offsetof(struct rt_record, prompts));
        desk.live = live;
        desk.prompts = live > 0 ? prompts : 0;
    }
    __syncthreads(); /* A */
    if (threadIdx.x == 0) {
        check_rows(p, desk);
        sum_rows(p, desk);
    }
    __syncthreads(); /* B */
    for (uint32_t j = threadIdx.x; j < p.chunk; j += THREADS)
        write_prompt_token(p, record, j, desk);
    for (uint32_t k = threadIdx.x; k < p.decode_rows * p.query_len; k += THREADS)
        write_decoding_token(p, k, desk);
    for (uint32_t i = threadIdx.x; p.query_len > 1 && i < p.decode_rows; i += THREADS)
        write_beside(p, i, desk);
    for (uint32_t k = threadIdx.x; k < bucket_of(p) * p.query_len; k += THREADS)
        p.row_last[k] = column_of(p, k / p.query_len, k % p.query_len, desk);
    write_sums(p, desk);
    __syncthreads(); /* rows are read above as step_begin left them */
    for (uint32_t r = threadIdx.x; r < bucket_of(p); r += THREADS)
        write_row(p, r, desk);
}
