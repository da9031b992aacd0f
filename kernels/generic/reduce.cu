/* SPDX-License-Identifier: Apache-2.0 */

/*
 * reduce: the pieces of split batch rows become their output.
 *
 *   m = max lse_i     g = m + log2(sum 2^(lse_i - m))     out = sum 2^(lse_i - g) partial_i
 *
 * Grid (x, 1), any x: every block lists the batch rows that need it, the same list in each, and
 * takes every x-th item of it. The lists are made for RT_REDUCE_WINDOW rows at a time:
 *
 *   front  many pieces: an item is a query row's columns 0..127, 128..255, … or narrower, and the
 *          block's; its warps share the pieces
 *   back   few pieces or, where the row is empty, none: an item is a warp's
 *
 * Many are more than RT_REDUCE_FEW. But where blocks would have to take a second item of those, up
 * to RT_REDUCE_FEW_OF_MANY count as few: a block's items come one after the other, each with two
 * barriers and a trip to memory, while its eight warps take eight items at once, each with up to
 * RT_REDUCE_FEW_OF_MANY / RT_REDUCE_DEPTH trips.
 *
 * A lane loads the lse and 8 bytes, four columns as f16, of RT_REDUCE_DEPTH pieces before it uses
 * the first; where words are wide (kernels/abi/piece.h) sums are NaN, and are made anew. It keeps a
 * maximum and sums of its own; they meet where all of them are known, in one order, so two runs
 * give the same bits. Where items are so few that blocks would be idle, a warp's lanes form 2 or 4
 * teams, each with every second or fourth piece and a half or a quarter of the columns.
 *
 *   shared memory     bytes
 *   list               4096   a row to list, 8 bytes; no more, so as to fit beside an sm90 attend
 *   sums               4096   a lane each
 *   tops, totals         64   a warp each
 *   counts              128   of rows to list, 16 warps' worth of them, of two windows
 *
 *   barrier   makes visible                 and frees
 *   A         counts                        the list; counts of the window before
 *   B         list                          -
 *   C         -                             sums, tops, totals of the item before
 *   D         sums, tops, totals            -
 *
 *   lengths, splits │ A │ list │ B │ wait │ lse, pieces │ C │ sums │ D │ warp 0: out, lse
 *
 * What stands in front of the wait was complete when attend passed its own, and so when this began.
 *
 * rt_reduce_beside is the same for the few blocks that begin beside attend's. An item of many
 * pieces is eight, four or two warps', so that blocks take up to four at once. And warps wait when
 * they have the addresses of their pieces, or where there is none in front of the output, and those
 * without an item not at all. It is a kernel of its own for its size: code that other blocks would
 * have to fetch costs them 1 us.
 *
 * rt_reduce_counted is rt_reduce_beside without a plan in memory: of up to 32 rows the first warp
 * makes it of their counts, in front of A (kernels/device/counted_plan.cuh).
 *
 * rt_reduce_fold is the same for batch-invariant attention, where the order follows from the row's
 * length alone (kernels/abi/invariant.h): many are more than RT_REDUCE_FEW, wherever that is, and
 * are leaves, of which each warp adds up a group; then one warp adds up the groups. Few are the
 * leaves of a single group, or groups. Its pieces are f32, since a leaf that attend adds up itself
 * must be the same number as one that is stored.
 *
 * rt_reduce_own is it for attention whose leaves are all pieces, of 16 bits a number. Where items
 * are many, one warp takes all of a row, since it adds up groups in the same order as eight do.
 */
#include "kernels/device/counted_plan.cuh"
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/settle.cuh"
#include "kernels/device/ptx/timer.cuh"
#include "kernels/generic/reduce_sums.cuh"

/* What a row's sums are multiplied by, and its lse. */
struct rt_reduce_end {
    float factor, lse;
};

template <class KIND>
static __device__ __forceinline__ struct rt_reduce_end
rt_reduce_end_of(const struct rt_reduce_params &p, float top, float total, uint32_t head)
{
    if (KIND::FOLD) {
        const struct rt_fold row = {top, total};
        return {rt_fold_row_inverse(row, p.sink, (int)head), rt_fold_row_lse(row, p.lse_base2)};
    }
    const bool empty = total == 0.0f;
    const float sink = p.sink ? exp2f(p.sink[head] * RT_REDUCE_LOG2_E - rt_reduce_base(top)) : 0.0f;
    return {empty ? 0.0f : 1.0f / (total + sink),
            empty ? RT_REDUCE_INFINITY
                  : (top + log2f(total)) * (p.lse_base2 ? 1.0f : RT_REDUCE_LN_2)};
}

/* Four columns; of words of a piece they are two and two, eight apart. */
template <class KIND> static __device__ __forceinline__ void rt_reduce_put(uint16_t *to, uint2 four)
{
    if constexpr (KIND::F32) {
        *(uint2 *)to = four;
    } else {
        *(uint32_t *)to = four.x;
        *(uint32_t *)(to + 8) = four.y;
    }
}

/* Four columns' sums as out has them; 0 where there was no key or is only sink, and the sums may
 * hold anything. */
static __device__ __forceinline__ uint2 rt_reduce_packed(const float4 &sum, float factor)
{
    const float4 x =
        factor == 0.0f ? make_float4(0.0f, 0.0f, 0.0f, 0.0f) : rt_reduce_scaled(sum, factor);
    return make_uint2(rt_pack_bf16x2(x.x, x.y), rt_pack_bf16x2(x.z, x.w));
}

/*
 * Once more, where words are wide, by which sums of their halves are NaN: all pieces by the one
 * warp that stores. Seldom run, so it is one copy, and called where nothing has to be kept.
 */
static __device__ __noinline__ void rt_reduce_store_wide(const struct rt_reduce_params &p,
                                                         struct rt_reduce_target of, float top,
                                                         float factor, uint16_t *out, int vectors)
{
#pragma unroll 1
    for (int v = 0; v < vectors; v++) {
        const uint2 four = rt_reduce_packed(rt_reduce_add_wide(p, of, top), factor);
        rt_reduce_put<rt_reduce_alone>(out + v * (int)RT_REDUCE_WARP_COLUMNS, four);
        of.column += RT_REDUCE_WARP_COLUMNS;
    }
}

template <class KIND, int VECTORS>
static __device__ __forceinline__ void
rt_reduce_store(const struct rt_reduce_params &p, const struct rt_reduce_shape &shape,
                const struct rt_reduce_target &to, const rt_reduce_sum<VECTORS> &sum)
{
    const uint32_t token_of_row = shape.heads.quotient(to.query);
    const uint32_t head = to.query - token_of_row * p.heads;
    const uint32_t of_data = p.row_tokens ? to.row.row / p.row_tokens : to.row.row;
    const uint32_t token = p.row_tokens ? to.row.row - of_data * p.row_tokens : token_of_row;
    const int64_t row = (int64_t)(shape.row_base + of_data);
    const struct rt_reduce_end end = rt_reduce_end_of<KIND>(p, sum.top, sum.total, head);
    if constexpr (KIND::BESIDE)
        rt_pdl_wait(); /* where there was no piece to wait for */
    uint16_t *out = (uint16_t *)p.out.base + row * p.out.row_stride + token * p.out.token_stride +
                    head * p.out.head_stride + (KIND::F32 ? to.column : RT_PIECE_COLUMN(to.column));
    bool all_numbers = true; /* in the first half of every word that is not wide, or of NaN */
#pragma unroll
    for (int v = 0; v < VECTORS; v++) {
        rt_reduce_put<KIND>(out + v * (int)RT_REDUCE_WARP_COLUMNS,
                            rt_reduce_packed(sum.out[v], end.factor));
        all_numbers &= sum.out[v].x == sum.out[v].x;
    }
    if (!KIND::F32 && __builtin_expect(!all_numbers, 0))
        rt_reduce_store_wide(p, to, sum.top, end.factor, out, VECTORS);
    if (to.column == 0)
        ((float *)p.lse.base)[row * p.lse.row_stride + token * p.lse.token_stride +
                              head * p.lse.head_stride] = end.lse;
}

/* Item `item` of the listed rows from `list` on, of 1 << chunks_log2 items for a query row. */
static __device__ __forceinline__ struct rt_reduce_target
rt_reduce_target_of(const struct rt_reduce_shape &shape, const struct rt_reduce_row *list,
                    uint32_t item, uint32_t chunks_log2, uint32_t lanes)
{
    const uint32_t chunk = item & ((1u << chunks_log2) - 1);
    const uint32_t index = shape.query_rows.quotient(item >> chunks_log2);
    const uint32_t query = (item >> chunks_log2) - index * shape.query_rows.by;
    const uint32_t column = (chunk * lanes + (rt_lane() & (lanes - 1))) * RT_REDUCE_LANE_COLUMNS;
    return {list[index], query, column};
}

/* The sums of the warp's teams, of `lanes` lanes each, into every one of them. */
static __device__ __forceinline__ void rt_reduce_join_teams(rt_reduce_sum<1> &sum, uint32_t lanes)
{
    float top = sum.top;
    for (uint32_t distance = lanes; distance < RT_WARP_LANES; distance *= 2)
        top = fmaxf(top, __shfl_xor_sync(RT_FULL_WARP, top, distance));
    rt_reduce_raise(sum, top);
    for (uint32_t distance = lanes; distance < RT_WARP_LANES; distance *= 2) {
        sum.total += __shfl_xor_sync(RT_FULL_WARP, sum.total, distance);
        sum.out[0].x += __shfl_xor_sync(RT_FULL_WARP, sum.out[0].x, distance);
        sum.out[0].y += __shfl_xor_sync(RT_FULL_WARP, sum.out[0].y, distance);
        sum.out[0].z += __shfl_xor_sync(RT_FULL_WARP, sum.out[0].z, distance);
        sum.out[0].w += __shfl_xor_sync(RT_FULL_WARP, sum.out[0].w, distance);
    }
}

/* The sums of the WARPS warps of this one's item, of which it is the first. */
template <uint32_t WARPS>
static __device__ __forceinline__ rt_reduce_sum<1>
rt_reduce_join_warps(const struct rt_reduce_board &board)
{
    const uint32_t first = WARPS < RT_REDUCE_WARPS ? threadIdx.x / RT_WARP_LANES : 0;
    rt_reduce_sum<1> sum = {-RT_REDUCE_INFINITY, 0.0f, {}};
#pragma unroll
    for (uint32_t w = 0; w < WARPS; w++)
        sum.top = fmaxf(sum.top, board.top[first + w]);
#pragma unroll
    for (uint32_t w = 0; w < WARPS; w++) {
        const float factor = exp2f(board.top[first + w] - rt_reduce_base(sum.top));
        sum.total = fmaf(factor, board.total[first + w], sum.total);
        rt_reduce_fma(sum.out[0], factor, board.sum[(first + w) * RT_WARP_LANES + rt_lane()]);
    }
    return sum;
}

/*
 * The block's items among rows of many pieces, WARPS warps to each. All its warps go as many
 * rounds: items are dealt to blocks first and then to a block's warps, of which the last may have
 * none. Returns this block's place among the items that follow.
 */
template <class KIND, uint32_t WARPS>
static __device__ __forceinline__ uint32_t rt_reduce_by_warps(const struct rt_reduce_params &p,
                                                              const struct rt_reduce_shape &shape,
                                                              uint32_t items, uint32_t teams_log2,
                                                              struct rt_reduce_board &board)
{
    constexpr uint32_t GROUPS = RT_REDUCE_WARPS / WARPS;
    const uint32_t lanes = RT_WARP_LANES >> teams_log2;
    const uint32_t warp = threadIdx.x / RT_WARP_LANES, of_item = warp % WARPS;
    const uint32_t reader = (of_item << teams_log2) + (rt_lane() >> (5 - teams_log2));
    uint32_t round = blockIdx.x;
    for (; round < items; round += GROUPS * gridDim.x) {
        const uint32_t mine = GROUPS > 1 ? round + warp / WARPS * gridDim.x : round;
        const bool have = GROUPS == 1 || mine < items;
        struct rt_reduce_target target = rt_reduce_target_of(shape, board.list, have ? mine : round,
                                                             shape.chunks_log2 + teams_log2, lanes);
        if (!have)
            target.row.pieces = 0;
        rt_reduce_sum<1> sum;
        if constexpr (KIND::FOLD) {
            sum = rt_reduce_fold_group<KIND>(p, target, (int)warp);
        } else {
            sum = rt_reduce_add_all<KIND, 1>(p, target, (int)reader, (int)(WARPS << teams_log2));
            rt_reduce_join_teams(sum, lanes);
        }
        __syncthreads(); /* C */
        board.sum[threadIdx.x] = sum.out[0];
        if (rt_lane() == 0) {
            board.top[warp] = sum.top;
            board.total[warp] = sum.total;
        }
        __syncthreads(); /* D */
        if (GROUPS > 1 ? have && of_item == 0 && rt_lane() < lanes : threadIdx.x < lanes)
            rt_reduce_store<KIND>(p, shape, target,
                                  KIND::FOLD ? rt_reduce_fold_warps(board, target.row.pieces)
                                             : rt_reduce_join_warps<WARPS>(board));
    }
    uint32_t place = round - items;
    while (GROUPS > 1 && place >= gridDim.x)
        place -= gridDim.x;
    return place;
}

/* Beside attend as many warps to an item as leave none for a second round. */
template <class KIND>
static __device__ __forceinline__ uint32_t rt_reduce_many(const struct rt_reduce_params &p,
                                                          const struct rt_reduce_shape &shape,
                                                          uint32_t rows,
                                                          struct rt_reduce_board &board)
{
    uint32_t items = rows * shape.query_rows.by << shape.chunks_log2;
    uint32_t teams_log2 = 0;
    if constexpr (KIND::BESIDE) {
        if (items > 2 * gridDim.x)
            return rt_reduce_by_warps<KIND, RT_REDUCE_WARPS / 4>(p, shape, items, 0, board);
        if (items > gridDim.x)
            return rt_reduce_by_warps<KIND, RT_REDUCE_WARPS / 2>(p, shape, items, 0, board);
    }
    while (!KIND::FOLD && teams_log2 < 2 && items * 2 <= gridDim.x) {
        teams_log2++;
        items *= 2;
    }
    return rt_reduce_by_warps<KIND, RT_REDUCE_WARPS>(p, shape, items, teams_log2, board);
}

/* A warp's share of the rows of few pieces: the unit is VECTORS * 128 columns of a query row. */
template <class KIND, int VECTORS>
static __device__ __forceinline__ void
rt_reduce_units(const struct rt_reduce_params &p, const struct rt_reduce_shape &shape,
                const struct rt_reduce_row *list, uint32_t unit, uint32_t units)
{
    const uint32_t chunks_log2 = VECTORS == 1 ? shape.chunks_log2 : 0;
    for (; unit < units; unit += gridDim.x * RT_REDUCE_WARPS) {
        const struct rt_reduce_target target =
            rt_reduce_target_of(shape, list, unit, chunks_log2, RT_WARP_LANES);
        if constexpr (KIND::FOLD)
            rt_reduce_store<KIND>(p, shape, target,
                                  KIND::F32 ? rt_reduce_fold_few(p, target)
                                            : rt_reduce_fold_leaves(p, target));
        else
            rt_reduce_store<KIND>(p, shape, target,
                                  rt_reduce_add_all<KIND, VECTORS>(p, target, 0, 1));
    }
}

/*
 * The rows of few pieces; `place` as rt_reduce_many returns it. Neighbouring units go to different
 * blocks, so that few of them have many SMs. Once every warp has one, whole query rows keep more
 * of two pieces in flight than a quarter of it would; folding leaves no registers for that.
 */
template <class KIND>
static __device__ __forceinline__ void
rt_reduce_few(const struct rt_reduce_params &p, const struct rt_reduce_shape &shape,
              const struct rt_reduce_row *list, uint32_t rows, uint32_t place)
{
    const uint32_t first = threadIdx.x / RT_WARP_LANES * gridDim.x + place;
    const uint32_t queries = rows * shape.query_rows.by;
    const uint32_t units = queries << shape.chunks_log2;
    if (KIND::FOLD || units <= gridDim.x * RT_REDUCE_WARPS)
        rt_reduce_units<KIND, 1>(p, shape, list, first, units);
    else if (shape.chunks_log2 == 2)
        rt_reduce_units<KIND, 4>(p, shape, list, first, queries);
    else
        rt_reduce_units<KIND, 2>(p, shape, list, first, queries);
}

/* A warp's rows of few pieces or none, of more than RT_REDUCE_FEW, of still more: ten bits each,
 * which hold a whole window's. */
#define RT_REDUCE_COUNT_BITS 10
#define RT_REDUCE_COUNT_MASK ((1u << RT_REDUCE_COUNT_BITS) - 1)
RT_STATIC_ASSERT(RT_REDUCE_WINDOW <= RT_REDUCE_COUNT_MASK, "counts of a window");

template <class KIND>
static __device__ __forceinline__ uint32_t rt_reduce_count(bool listed, int pieces)
{
    const uint32_t all = __popc(__ballot_sync(RT_FULL_WARP, listed));
    const uint32_t more = __popc(__ballot_sync(RT_FULL_WARP, pieces > RT_REDUCE_FEW));
    const uint32_t most = __popc(__ballot_sync(RT_FULL_WARP, pieces > (int)KIND::FEW_OF_MANY));
    return (all - more) | (more - most) << RT_REDUCE_COUNT_BITS | most << 2 * RT_REDUCE_COUNT_BITS;
}

/* As the two lists have them; `few_of_many` goes to either. */
static __device__ __forceinline__ struct rt_reduce_found rt_reduce_found_of(uint32_t count,
                                                                            bool few_of_many)
{
    const uint32_t few = count & RT_REDUCE_COUNT_MASK;
    const uint32_t more = count >> RT_REDUCE_COUNT_BITS & RT_REDUCE_COUNT_MASK;
    const uint32_t most = count >> 2 * RT_REDUCE_COUNT_BITS;
    return few_of_many ? rt_reduce_found{most, few + more} : rt_reduce_found{most + more, few};
}

/* The rows of the window that this thread looks at. */
struct rt_reduce_look {
    struct rt_reduce_row row[RT_REDUCE_THREAD_ROWS];
    bool listed[RT_REDUCE_THREAD_ROWS]; /* split or empty */
};

/* What a row's length and num_splits are, for this thread's rows of the window; of those that there
 * are not: no pieces, and not empty. */
struct rt_reduce_plan {
    int32_t length[RT_REDUCE_THREAD_ROWS], slot[RT_REDUCE_THREAD_ROWS], end[RT_REDUCE_THREAD_ROWS];
};

template <class KIND>
static __device__ __forceinline__ struct rt_reduce_plan
rt_reduce_plan_of(const struct rt_reduce_params &p, uint32_t window)
{
    struct rt_reduce_plan plan;
#pragma unroll
    for (uint32_t i = 0; i < RT_REDUCE_THREAD_ROWS; i++) {
        const uint32_t row = window + i * RT_REDUCE_THREADS + threadIdx.x;
        const bool have = !KIND::COUNTED && row < p.rows.count;
        plan.length[i] = have ? p.rows.length[row] : 1;
        plan.slot[i] = have ? p.schedule.num_splits[row] : 0;
        plan.end[i] = have ? p.schedule.num_splits[row + 1] : 0;
    }
    if (KIND::COUNTED && threadIdx.x < RT_WARP_LANES) {
        struct rt_counted_plan counted(p.counted, p.schedule, p.rows);
        counted.make(counted.ask());
        counted.find_splits(&plan.slot[0], &plan.end[0]);
        plan.length[0] = rt_lane() < p.rows.count ? (int32_t)counted.length : 1;
    }
    return plan;
}

/* Looks at the window and counts. */
template <class KIND>
static __device__ __forceinline__ struct rt_reduce_look
rt_reduce_scan(const struct rt_reduce_params &p, uint32_t window,
               uint32_t (&counts)[RT_REDUCE_COUNTS])
{
    const struct rt_reduce_plan plan = rt_reduce_plan_of<KIND>(p, window);
    struct rt_reduce_look look = {};
#pragma unroll
    for (uint32_t i = 0; i < RT_REDUCE_THREAD_ROWS; i++) {
        const uint32_t row = window + i * RT_REDUCE_THREADS + threadIdx.x;
        const bool empty = plan.length[i] <= 0;
        const int pieces = empty ? 0 : plan.end[i] - plan.slot[i];
        look.row[i] = {plan.slot[i], (uint16_t)row, (uint16_t)pieces};
        look.listed[i] = empty || pieces > 0;
        const uint32_t count = rt_reduce_count<KIND>(look.listed[i], pieces);
        if (rt_lane() == 0)
            counts[i * RT_REDUCE_WARPS + threadIdx.x / RT_WARP_LANES] = count;
    }
    return look;
}

/* Rows of many pieces from the front, the others from the back, both in rising order. */
template <class KIND>
static __device__ __forceinline__ struct rt_reduce_found
rt_reduce_push(const struct rt_reduce_shape &shape, const struct rt_reduce_look &look,
               const uint32_t (&counts)[RT_REDUCE_COUNTS], struct rt_reduce_row *list)
{
    const uint32_t mine = rt_lane() < RT_REDUCE_COUNTS ? counts[rt_lane()] : 0;
    const uint32_t upto = rt_warp_inclusive_sum(mine);
    const uint32_t all = __shfl_sync(RT_FULL_WARP, upto, RT_WARP_LANES - 1);
    const uint32_t rows = rt_reduce_found_of(all, false).many;
    const uint32_t items = rows * shape.query_rows.by << shape.chunks_log2;
    const bool few_of_many = items > KIND::MOST_ROUND * gridDim.x;
    const int limit = few_of_many ? (int)KIND::FEW_OF_MANY : RT_REDUCE_FEW;
    const struct rt_reduce_found found = rt_reduce_found_of(all, few_of_many);
    struct rt_reduce_row *few = list + RT_REDUCE_WINDOW - found.few;
    const uint32_t below = (1u << rt_lane()) - 1;
#pragma unroll
    for (uint32_t i = 0; i < RT_REDUCE_THREAD_ROWS; i++) {
        const struct rt_reduce_found before =
            rt_reduce_found_of(__shfl_sync(RT_FULL_WARP, upto - mine,
                                           i * RT_REDUCE_WARPS + threadIdx.x / RT_WARP_LANES),
                               few_of_many);
        const bool is_many = look.listed[i] && look.row[i].pieces > limit;
        const bool is_few = look.listed[i] && !is_many;
        const uint32_t many_lanes = __ballot_sync(RT_FULL_WARP, is_many);
        const uint32_t few_lanes = __ballot_sync(RT_FULL_WARP, is_few);
        if (is_many)
            list[before.many + __popc(many_lanes & below)] = look.row[i];
        if (is_few)
            few[before.few + __popc(few_lanes & below)] = look.row[i];
    }
    return found;
}

/* True where some block may have written something. */
template <class KIND>
static __device__ __forceinline__ bool rt_reduce_rows(const struct rt_reduce_params &p,
                                                      const struct rt_reduce_shape &shape,
                                                      struct rt_reduce_board &board)
{
    bool worked = false;
    uint32_t turn = 0;
    for (uint32_t window = 0; window < p.rows.count; window += RT_REDUCE_WINDOW, turn ^= 1) {
        const struct rt_reduce_look look = rt_reduce_scan<KIND>(p, window, board.counts[turn]);
        __syncthreads(); /* A */
        const struct rt_reduce_found found =
            rt_reduce_push<KIND>(shape, look, board.counts[turn], board.list);
        if (found.many + found.few == 0)
            continue;
        __syncthreads(); /* B */
        if constexpr (!KIND::BESIDE)
            rt_pdl_wait(); /* the pieces; what a row is was there before attend began */
        const uint32_t place = rt_reduce_many<KIND>(p, shape, found.many, board);
        rt_reduce_few<KIND>(p, shape, board.list + RT_REDUCE_WINDOW - found.few, found.few, place);
        worked = true;
    }
    return worked;
}

template <class KIND>
static __device__ __forceinline__ void rt_reduce_block(const struct rt_reduce_params &p)
{
    struct rt_reduce_board &board =
        *static_cast<struct rt_reduce_board *>(rt_settle_shared(&rt_reduce_memory));
    struct rt_reduce_shape shape = {rt_divisor<uint32_t>(p.rows.q_len * p.heads),
                                    rt_divisor<uint32_t>(p.heads),
                                    p.d_v == 4 * RT_REDUCE_WARP_COLUMNS ? 2u : 1u, 0};
    rt_settle(shape.query_rows.inverse);
    rt_settle(shape.heads.inverse);
    rt_pdl_launch_dependents();
    if (p.rows.ctrl)
        shape.row_base = p.rows.ctrl->row_base; /* now, not when an item waits to be stored */
    const bool worked = rt_reduce_rows<KIND>(p, shape, board);
    /* Block 0 waits and speaks for those that have nothing to do, and leave. */
    if (blockIdx.x == 0)
        rt_pdl_wait();
    if ((worked || blockIdx.x == 0) && p.stamp_last) {
        if constexpr (KIND::BESIDE)
            rt_pdl_wait();
        __syncthreads(); /* every warp of the block is done */
        if (threadIdx.x == 0)
            atomicMax((unsigned long long *)p.stamp_last, rt_globaltimer_ns());
    }
}

extern "C" __global__ void __launch_bounds__(RT_REDUCE_THREADS, RT_REDUCE_BLOCKS_PER_SM)
    rt_reduce(const __grid_constant__ struct rt_reduce_params p)
{
    rt_reduce_block<rt_reduce_alone>(p);
}

extern "C" __global__ void __launch_bounds__(RT_REDUCE_THREADS, RT_REDUCE_BLOCKS_PER_SM)
    rt_reduce_beside(const __grid_constant__ struct rt_reduce_params p)
{
    rt_reduce_block<rt_reduce_beside_attend>(p);
}

extern "C" __global__ void __launch_bounds__(RT_REDUCE_THREADS, RT_REDUCE_BLOCKS_PER_SM)
    rt_reduce_counted(const __grid_constant__ struct rt_reduce_params p)
{
    rt_reduce_block<rt_reduce_counts>(p);
}

extern "C" __global__ void __launch_bounds__(RT_REDUCE_THREADS, RT_REDUCE_BLOCKS_PER_SM)
    rt_reduce_fold(const __grid_constant__ struct rt_reduce_params p)
{
    rt_reduce_block<rt_reduce_folds>(p);
}

extern "C" __global__ void __launch_bounds__(RT_REDUCE_THREADS, RT_REDUCE_BLOCKS_PER_SM)
    rt_reduce_own(const __grid_constant__ struct rt_reduce_params p)
{
    rt_reduce_block<rt_reduce_owns>(p);
}
