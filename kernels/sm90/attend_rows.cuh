/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_ROWS_CUH
#define RT_KERNELS_SM90_ATTEND_ROWS_CUH

/* The walk of the sm_90 attend kernels' loading warps: a part's rows, and its segments' places. */
#include "kernels/device/attend_walk.cuh"
#include "kernels/device/counted_plan.cuh"
#include "kernels/sm90/attend_desk.cuh"

/*
 * What the walk wants to know of rows. Of 32 or fewer a lane each asks for one, at the same
 * time as for the tile record: the first keys then are two trips to memory away.
 */
struct rt_sm90_rows {
    const struct rt_attend_params &p;
    const bool few;
    int length, line, splits, next_splits;

    explicit __device__ __forceinline__ rt_sm90_rows(const struct rt_attend_params &p_)
        : p(p_), few(p_.rows.count <= 32), length(0), line(-1), splits(0), next_splits(0)
    {
    }

    __device__ __forceinline__ void load(int row)
    {
        const bool there = row < (int)p.rows.count;
        length = there ? p.rows.length[row] : 0;
        line = there && p.rows.slot ? p.rows.slot[row] : row;
        splits = there ? p.schedule.num_splits[row] : 0;
        next_splits = there ? p.schedule.num_splits[row + 1] : 0;
    }

    __device__ __forceinline__ void begin(void)
    {
        if (few)
            load((int)(threadIdx.x % 32));
    }

    /* The part, of the plan that memory has. */
    __device__ __forceinline__ struct rt_attend_part begin_part(void)
    {
        begin();
        return rt_attend_read_part(p, 0, (int)(p.rows.q_len * p.heads) - 1);
    }

    /* Of a plan that this warp has made. */
    __device__ __forceinline__ struct rt_attend_part take(const struct rt_counted_plan &plan)
    {
        length = (int)plan.length;
        line = (int)(threadIdx.x % 32);
        const struct rt_part of = plan.record(blockIdx.y);
        const int stop = of.end_row + (of.end_block > 0 ? 1 : 0);
        return {of.begin_row,
                of.begin_block * RT_BLOCK_TOKENS,
                of.end_row,
                of.end_block * RT_BLOCK_TOKENS,
                min(stop, (int)p.rows.count),
                of.begin_split,
                0,
                (int)p.rows.q_len - 1,
                (int64_t)plan.row_base};
    }

    /* All lanes get what there is to know of the row. */
    __device__ __forceinline__ void look(int row)
    {
        if (!few) {
            load(row);
            return;
        }
        const struct rt_sm90_rows mine = *this;
        length = __shfl_sync(RT_ATTEND_FULL_WARP, mine.length, row);
        line = __shfl_sync(RT_ATTEND_FULL_WARP, mine.line, row);
        splits = __shfl_sync(RT_ATTEND_FULL_WARP, mine.splits, row);
        next_splits = __shfl_sync(RT_ATTEND_FULL_WARP, mine.next_splits, row);
    }

    /* The next row with keys from `row` on. */
    __device__ __forceinline__ struct rt_attend_step find(const struct rt_attend_part &part,
                                                          int row) const
    {
        const int lane = (int)(threadIdx.x % 32);
        if (!few)
            return rt_attend_find_row(p, part, row, lane);
        const unsigned found =
            __ballot_sync(RT_ATTEND_FULL_WARP, length > 0 && lane >= row && lane < part.stop_row);
        if (found == 0)
            return {RT_ATTEND_NONE, 0, 0, 0, -1};
        struct rt_sm90_rows at = *this;
        const int next = __ffs((int)found) - 1;
        at.look(next);
        return rt_attend_begin_row(p, part, next, at.length, at.line);
    }
};

/* Blocks of a segment; none where a caller has shortened the row since its schedule. */
static __device__ __forceinline__ int rt_sm90_blocks(const struct rt_attend_step &at)
{
    return at.row == RT_ATTEND_NONE ? 0 : max((at.end - at.key + 63) / 64, 0);
}

/* Segment number `n`, for the others. `rows` has looked at its row. By one warp of the block. */
template <class DESK>
static __device__ __forceinline__ void
rt_sm90_publish(DESK &desk, uint32_t n, const struct rt_attend_part &part,
                const struct rt_attend_step &at, const struct rt_sm90_rows &rows)
{
    const uint32_t i = n % RT_SM90_SEGMENTS;
    const int first = rows.splits, pieces = rows.next_splits - first;
    const int split = at.row == part.begin_row ? part.begin_split : 0;
    rt_mbarrier_wait(&desk.seg_empty[i], (n / RT_SM90_SEGMENTS & 1) ^ 1);
    if (rt_elected()) {
        desk.segment[i] = {
            at.row, at.key, at.length, rt_sm90_blocks(at), pieces > 0 ? first + split : -1, 0};
        rt_mbarrier_arrive(&desk.seg_full[i]);
    }
    __syncwarp();
}

#endif
