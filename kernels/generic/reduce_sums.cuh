/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_REDUCE_SUMS_CUH
#define RT_KERNELS_GENERIC_REDUCE_SUMS_CUH

/*
 * What reduce's lanes, teams and warps add up: pieces in any order, by a common maximum; or, for
 * batch-invariant attention, one after the other.
 */
#include "kernels/abi/invariant.h"
#include "kernels/abi/reduce.h"
#include "kernels/device/divisor.cuh"
#include "kernels/device/fold.cuh"
#include "kernels/device/piece.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/scan.cuh"

#define RT_REDUCE_LN_2 0.6931471805599453f
#define RT_REDUCE_LOG2_E 1.4426950408889634f
#define RT_REDUCE_INFINITY __builtin_huge_valf()
#define RT_REDUCE_LANE_COLUMNS 4u /* of a vector: 8 bytes, or 16 of f32 */
#define RT_REDUCE_WARP_COLUMNS (RT_WARP_LANES * RT_REDUCE_LANE_COLUMNS)
#define RT_REDUCE_DEPTH 8        /* vectors of a lane in flight */
#define RT_REDUCE_FEW 8          /* pieces that one warp takes alone */
#define RT_REDUCE_FEW_OF_MANY 32 /* likewise, where there are many items */
#define RT_REDUCE_THREAD_ROWS 2u
#define RT_REDUCE_WINDOW (RT_REDUCE_THREAD_ROWS * RT_REDUCE_THREADS)

#define RT_REDUCE_COUNTS (RT_REDUCE_THREAD_ROWS * RT_REDUCE_WARPS)

RT_STATIC_ASSERT(RT_REDUCE_COUNTS <= RT_WARP_LANES, "a lane for each count");
RT_STATIC_ASSERT(RT_REDUCE_FEW == RT_INVARIANT_GROUP && RT_REDUCE_WARPS == RT_INVARIANT_GROUPS &&
                     RT_REDUCE_DEPTH == RT_INVARIANT_GROUP,
                 "a warp for each group, which is loaded at once");
RT_STATIC_ASSERT(RT_REDUCE_WARP_COLUMNS == 4 * RT_REDUCE_LEAST_COLUMNS, "four teams at most");

/* The kernel's kinds. FOLD: in the order of the row's leaves and groups. F32: numbers as they are,
 * no words. MOST_ROUND: items of many pieces that a block takes at once. FEW_OF_MANY: pieces that
 * one warp takes alone where it has to take several items. */
struct rt_reduce_alone {
    static constexpr bool FOLD = false, F32 = false, BESIDE = false, COUNTED = false;
    static constexpr uint32_t MOST_ROUND = 1, FEW_OF_MANY = RT_REDUCE_FEW_OF_MANY;
};

/* With a block for each SM, beside attend's: warps share more out, and wait later. */
struct rt_reduce_beside_attend {
    static constexpr bool FOLD = false, F32 = false, BESIDE = true, COUNTED = false;
    static constexpr uint32_t MOST_ROUND = RT_REDUCE_WARPS / 2, FEW_OF_MANY = RT_REDUCE_FEW_OF_MANY;
};

/* Likewise with a plan of its own (kernels/abi/counted.h). */
struct rt_reduce_counts : rt_reduce_beside_attend {
    static constexpr bool COUNTED = true;
};

struct rt_reduce_folds {
    static constexpr bool FOLD = true, F32 = true, BESIDE = false, COUNTED = false;
    static constexpr uint32_t MOST_ROUND = 1, FEW_OF_MANY = RT_REDUCE_FEW;
};

/* All of a row's leaves: where items are many, one warp adds up group after group. */
struct rt_reduce_owns {
    static constexpr bool FOLD = true, F32 = false, BESIDE = false, COUNTED = false;
    static constexpr uint32_t MOST_ROUND = 1, FEW_OF_MANY = RT_INVARIANT_LEAVES;
};

/* A batch row to work on. The schedule has at most 65535 parts, and a row not more pieces. */
struct rt_reduce_row {
    int32_t slot; /* of piece 0 */
    uint16_t row;
    uint16_t pieces; /* 0: the row is empty */
};

struct rt_reduce_board {
    struct rt_reduce_row list[RT_REDUCE_WINDOW];
    float4 sum[RT_REDUCE_THREADS];
    float top[RT_REDUCE_WARPS], total[RT_REDUCE_WARPS];
    uint32_t counts[2][RT_REDUCE_COUNTS]; /* each of three counts, as rt_reduce_count has them */
};
RT_STATIC_ASSERT(sizeof(struct rt_reduce_board) == 4096 + 4096 + 64 + 128, "the table above");

static __shared__ __align__(16) struct rt_reduce_board rt_reduce_memory;

/* The same for every item; all but row_base is known before the wait. */
struct rt_reduce_shape {
    rt_divisor<uint32_t> query_rows, heads;
    uint32_t chunks_log2; /* of RT_REDUCE_WARP_COLUMNS columns in a query row */
    uint32_t row_base;
};

/* The lengths of the two lists. */
struct rt_reduce_found {
    uint32_t many, few;
};

/* A query row of a listed batch row, from column `column` of this lane on. */
struct rt_reduce_target {
    struct rt_reduce_row row;
    uint32_t query, column;
};

/* Sums of 2^(lse - top) and of 2^(lse - top) partial; top is the largest lse, -inf if none. */
template <int VECTORS> struct rt_reduce_sum {
    float top, total;
    float4 out[VECTORS];
};

/* In exponents, 0 stands for a maximum of -inf: -inf less -inf would be NaN. */
static __device__ __forceinline__ float rt_reduce_base(float top)
{
    return top == -RT_REDUCE_INFINITY ? 0.0f : top;
}

static __device__ __forceinline__ void rt_reduce_fma(float4 &sum, float weight, const float4 &x)
{
    sum.x = fmaf(weight, x.x, sum.x);
    sum.y = fmaf(weight, x.y, sum.y);
    sum.z = fmaf(weight, x.z, sum.z);
    sum.w = fmaf(weight, x.w, sum.w);
}

static __device__ __forceinline__ float4 rt_reduce_scaled(const float4 &x, float factor)
{
    return make_float4(x.x * factor, x.y * factor, x.z * factor, x.w * factor);
}

/* The same sums with respect to a larger maximum. */
template <int VECTORS>
static __device__ __forceinline__ void rt_reduce_raise(rt_reduce_sum<VECTORS> &sum, float top)
{
    const float factor = exp2f(sum.top - rt_reduce_base(top));
    sum.top = top;
    sum.total *= factor;
#pragma unroll
    for (int v = 0; v < VECTORS; v++)
        sum.out[v] = rt_reduce_scaled(sum.out[v], factor);
}

/* Four numbers as they are loaded: f32, or two words of halves. */
template <bool F32> struct rt_reduce_loaded {
    uint2 x;
};
template <> struct rt_reduce_loaded<true> {
    float4 x;
};

static __device__ __forceinline__ float4 rt_reduce_number(const rt_reduce_loaded<false> &loaded)
{
    const float2 low = rt_piece_of_halves(loaded.x.x), high = rt_piece_of_halves(loaded.x.y);
    return make_float4(low.x, low.y, high.x, high.y);
}

static __device__ __forceinline__ float4 rt_reduce_number(const rt_reduce_loaded<true> &loaded)
{
    return loaded.x;
}

/* Where the words are that this lane has of a piece. */
static __device__ __forceinline__ const uint16_t *
rt_reduce_words(const struct rt_reduce_params &p, const struct rt_reduce_target &of, int piece)
{
    return rt_piece_row(p.partials, of.row.slot + piece, (int)(p.rows.q_len * p.heads),
                        (int)of.query, (int)p.d_v) +
           of.column;
}

/*
 * Loads PIECES pieces, `first` and every `step`-th behind it; those that are not there weigh
 * nothing. Addresses are derived here, from little: there is no register for more.
 */
template <class KIND, int VECTORS, int PIECES>
static __device__ __forceinline__ void
rt_reduce_load(const struct rt_reduce_params &p, const struct rt_reduce_target &of, int first,
               int step, float (&lse)[PIECES], rt_reduce_loaded<KIND::F32> (&x)[PIECES][VECTORS])
{
    typedef decltype(x[0][0].x) vector;
    const int64_t query_rows = (int64_t)(p.rows.q_len * p.heads);
    const int64_t at = (of.row.slot + first) * query_rows + of.query;
    const float *lse_at = p.partials.lse + at;
    const char *x_at = KIND::F32 ? (const char *)(p.partials.out + at * p.d_v + of.column)
                                 : (const char *)rt_reduce_words(p, of, first);
    if constexpr (KIND::BESIDE)
        rt_pdl_wait();
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const bool have = first + i * step < of.row.pieces;
        lse[i] = have ? *lse_at : -RT_REDUCE_INFINITY;
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            x[i][v].x =
                have ? *(const vector *)(x_at + v * RT_WARP_LANES * sizeof(vector)) : vector{};
        lse_at += step * query_rows;
        x_at += step * query_rows * p.d_v * (int)sizeof(float);
    }
}

template <class KIND, int VECTORS, int PIECES>
static __device__ __forceinline__ void rt_reduce_add(const struct rt_reduce_params &p,
                                                     const struct rt_reduce_target &of, int first,
                                                     int step, rt_reduce_sum<VECTORS> &sum)
{
    float lse[PIECES];
    rt_reduce_loaded<KIND::F32> x[PIECES][VECTORS];
    rt_reduce_load<KIND, VECTORS, PIECES>(p, of, first, step, lse, x);
    float top = sum.top;
#pragma unroll
    for (int i = 0; i < PIECES; i++)
        top = fmaxf(top, lse[i]);
    rt_reduce_raise(sum, top);
#pragma unroll
    for (int i = 0; i < PIECES; i++) {
        const float weight = exp2f(lse[i] - rt_reduce_base(top));
        sum.total += weight;
#pragma unroll
        for (int v = 0; v < VECTORS; v++)
            rt_reduce_fma(sum.out[v], weight, rt_reduce_number(x[i][v]));
    }
}

/* The sums of four columns where words may be wide, piece by piece, with respect to the maximum. */
static __device__ __forceinline__ float4 rt_reduce_add_wide(const struct rt_reduce_params &p,
                                                            const struct rt_reduce_target &of,
                                                            float top)
{
    const int query_rows = (int)(p.rows.q_len * p.heads);
    const int rest = rt_piece_rest(query_rows, (int)p.d_v);
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 1
    for (int i = 0; i < of.row.pieces; i++) {
        const float lse = p.partials.lse[(int64_t)(of.row.slot + i) * query_rows + of.query];
        const uint16_t *at = rt_reduce_words(p, of, i);
        const float2 low = rt_piece_read(at, rest), high = rt_piece_read(at + 2, rest);
        rt_reduce_fma(sum, exp2f(lse - rt_reduce_base(top)),
                      make_float4(low.x, low.y, high.x, high.y));
    }
    return sum;
}

/* Piece `first` and every `step`-th behind it. */
template <class KIND, int VECTORS>
static __device__ __forceinline__ rt_reduce_sum<VECTORS>
rt_reduce_add_all(const struct rt_reduce_params &p, const struct rt_reduce_target &of, int first,
                  int step)
{
    rt_reduce_sum<VECTORS> sum = {-RT_REDUCE_INFINITY, 0.0f, {}};
    constexpr int PIECES = RT_REDUCE_DEPTH / VECTORS;
    for (; first < of.row.pieces; first += PIECES * step)
        rt_reduce_add<KIND, VECTORS, PIECES>(p, of, first, step, sum);
    return sum;
}

/* ---- one after the other ---- */

/* Adds a piece that is there. */
static __device__ __forceinline__ void rt_reduce_fold_one(rt_reduce_sum<1> &sum, float lse,
                                                          const float4 &x)
{
    struct rt_fold state = {sum.top, sum.total};
    const struct rt_fold_step step = rt_fold_add(state, lse);
    sum.top = state.top;
    sum.total = state.total;
    sum.out[0] = make_float4(
        rt_fold_number(sum.out[0].x, step, x.x), rt_fold_number(sum.out[0].y, step, x.y),
        rt_fold_number(sum.out[0].z, step, x.z), rt_fold_number(sum.out[0].w, step, x.w));
}

/* Pieces from `first` up to `end`, RT_REDUCE_DEPTH of them at most. */
template <class KIND>
static __device__ __forceinline__ rt_reduce_sum<1>
rt_reduce_fold_all(const struct rt_reduce_params &p, const struct rt_reduce_target &of, int first,
                   int end)
{
    rt_reduce_sum<1> sum = {-RT_REDUCE_INFINITY, 0.0f, {}};
    float lse[RT_REDUCE_DEPTH];
    rt_reduce_loaded<KIND::F32> x[RT_REDUCE_DEPTH][1];
    rt_reduce_load<KIND, 1, RT_REDUCE_DEPTH>(p, of, first, 1, lse, x);
#pragma unroll
    for (int i = 0; i < RT_REDUCE_DEPTH; i++)
        if (first + i < end)
            rt_reduce_fold_one(sum, lse[i], rt_reduce_number(x[i][0]));
    return sum;
}

/* A group's sums as the piece that it would be: normalised, and its lse in the place of top. */
static __device__ __forceinline__ void rt_reduce_fold_end(rt_reduce_sum<1> &sum)
{
    const float by = rt_fold_inverse(sum.total);
    sum.top = rt_fold_lse({sum.top, sum.total});
    sum.out[0] = make_float4(rt_fold_scaled(sum.out[0].x, by), rt_fold_scaled(sum.out[0].y, by),
                             rt_fold_scaled(sum.out[0].z, by), rt_fold_scaled(sum.out[0].w, by));
}

/* A warp's group of a row of many leaves. */
template <class KIND>
static __device__ __forceinline__ rt_reduce_sum<1>
rt_reduce_fold_group(const struct rt_reduce_params &p, const struct rt_reduce_target &of, int group)
{
    const int first = group * RT_REDUCE_FEW;
    rt_reduce_sum<1> sum =
        rt_reduce_fold_all<KIND>(p, of, first, min(first + RT_REDUCE_FEW, (int)of.row.pieces));
    rt_reduce_fold_end(sum);
    return sum;
}

/* A row of few pieces: leaves of its only group, or groups; or of none. */
static __device__ __forceinline__ rt_reduce_sum<1>
rt_reduce_fold_few(const struct rt_reduce_params &p, const struct rt_reduce_target &of)
{
    rt_reduce_sum<1> sum = rt_reduce_fold_all<rt_reduce_folds>(p, of, 0, of.row.pieces);
    if (of.row.pieces == 0)
        return sum;
    const uint32_t blocks = rt_invariant_blocks(p.rows.length[of.row.row]);
    const uint32_t way = p.schedule.invariant;
    if (rt_invariant_unit_of(way, blocks, of.row.pieces) != rt_invariant_leaf(way, blocks))
        return sum;
    rt_reduce_sum<1> row = {-RT_REDUCE_INFINITY, 0.0f, {}};
    rt_reduce_fold_end(sum);
    rt_reduce_fold_one(row, sum.top, sum.out[0]);
    return row;
}

/* A row of leaves, or of none, by one warp. */
static __device__ __forceinline__ rt_reduce_sum<1>
rt_reduce_fold_leaves(const struct rt_reduce_params &p, const struct rt_reduce_target &of)
{
    rt_reduce_sum<1> row = {-RT_REDUCE_INFINITY, 0.0f, {}};
    for (int group = 0; group * RT_REDUCE_FEW < of.row.pieces; group++) {
        const rt_reduce_sum<1> sum = rt_reduce_fold_group<rt_reduce_owns>(p, of, group);
        rt_reduce_fold_one(row, sum.top, sum.out[0]);
    }
    return row;
}

/* The groups of all warps. */
static __device__ __forceinline__ rt_reduce_sum<1>
rt_reduce_fold_warps(const struct rt_reduce_board &board, int pieces)
{
    rt_reduce_sum<1> row = {-RT_REDUCE_INFINITY, 0.0f, {}};
    const int groups = (pieces + RT_REDUCE_FEW - 1) / RT_REDUCE_FEW;
    for (int g = 0; g < groups; g++)
        rt_reduce_fold_one(row, board.top[g], board.sum[g * (int)RT_WARP_LANES + (int)rt_lane()]);
    return row;
}

#endif
