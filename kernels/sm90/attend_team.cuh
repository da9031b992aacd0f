/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_TEAM_CUH
#define RT_KERNELS_SM90_ATTEND_TEAM_CUH

/*
 * A team of blocks, a cluster, shares the keys of a segment. At its end every block leaves maximum,
 * sum and unscaled output where its keys were, and then adds up a slice of the columns of all of
 * them, read from the others' shared memory:
 *
 *   block 0   | keys 0 | sums |        | columns 0..63 of blocks 0, 1, …, 7   |
 *   block 1   | keys 1 | sums |  full  | columns 64..127                      |  empty
 *   …                                                                            block may go on
 *
 * A row that other teams have pieces of, too, goes through global memory: each block leaves its
 * slice of its team's piece there and counts itself; the last to come adds up the slices of all
 * pieces, in their order. So the result does not depend on who was last.
 */
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/sm90/attend_work.cuh"

/* What a thread adds up: four columns of one query row. */
struct rt_sm90_sum {
    float4 out;
    float top, sum;
};

/* Of a part whose sums are in units of 2^top; nothing seen: top -inf. */
static __device__ __forceinline__ float rt_sm90_weight(float top, float most)
{
    return top == -RT_SM90_INFINITY ? 0.0f : rt_exp2(top - most);
}

static __device__ __forceinline__ void rt_sm90_add(float4 &to, float weight, const float4 &x)
{
    if (weight == 0.0f) /* what was not seen may be anything */
        return;
    to.x = fmaf(weight, x.x, to.x);
    to.y = fmaf(weight, x.y, to.y);
    to.z = fmaf(weight, x.z, to.z);
    to.w = fmaf(weight, x.w, to.w);
}

template <class SHAPE, int STRIDE> struct rt_sm90_team {
    static constexpr int COLUMNS = SHAPE::D_V / SHAPE::TEAM; /* of a block's slice */
    static constexpr int VECTORS = COLUMNS / 4;
    static constexpr int ITEMS = SHAPE::TILE_ROWS * VECTORS;
    static constexpr int THREADS = RT_SM90_WORKERS * (int)RT_SM90_WORKER_THREADS;

    const struct rt_mla_attend_params &p;
    const rt_sm90_room<SHAPE> &room;
    const struct rt_sm90_segment &segment;
    const uint32_t rank;
    const int thread, first_query, hq;

    __device__ __forceinline__ rt_sm90_team(const struct rt_mla_attend_params &p_,
                                            const rt_sm90_room<SHAPE> &room_,
                                            const struct rt_sm90_segment &segment_)
        : p(p_), room(room_), segment(segment_), rank(rt_cluster_rank()),
          thread((int)threadIdx.x - 128), first_query(rt_sm90_first_query<SHAPE>()),
          hq((int)(p_.q_len * p_.heads))
    {
    }

    static __device__ __forceinline__ void sync(void)
    {
        rt_bar_sync(RT_SM90_BAR_BOTH, THREADS);
    }

    /* Tells every block of the team, this one included. */
    static __device__ __forceinline__ void tell(uint64_t *barrier)
    {
        __syncwarp();
        if (threadIdx.x % 32 < SHAPE::TEAM)
            rt_mbarrier_arrive_at(barrier, threadIdx.x % 32);
    }

    /* The team's sum for four columns of a query row. */
    __device__ __forceinline__ struct rt_sm90_sum collect(int row, int vector) const
    {
        const float *place =
            (const float *)room.stages + row * STRIDE + (int)rank * COLUMNS + vector * 4;
        float2 state[SHAPE::TEAM];
        float4 part[SHAPE::TEAM];
#pragma unroll
        for (int i = 0; i < SHAPE::TEAM; i++) {
            state[i] = rt_cluster_load_2(rt_cluster_address(&room.desk.state[row], i));
            part[i] = rt_cluster_load_4(rt_cluster_address(place, i));
        }
        struct rt_sm90_sum all = {make_float4(0, 0, 0, 0), -RT_SM90_INFINITY, 0.0f};
#pragma unroll
        for (int i = 0; i < SHAPE::TEAM; i++)
            all.top = fmaxf(all.top, state[i].x);
#pragma unroll
        for (int i = 0; i < SHAPE::TEAM; i++) {
            const float weight = rt_sm90_weight(state[i].x, all.top);
            rt_sm90_add(all.out, weight, part[i]);
            /* NaN scores have no maximum, but a sum. */
            all.sum += isnan(state[i].y) ? state[i].y : weight * state[i].y;
        }
        return all;
    }

    static __device__ __forceinline__ float4 scaled(const struct rt_sm90_sum &all)
    {
        const float by = all.sum == 0.0f ? 0.0f : rt_reciprocal(all.sum);
        if (by == 0.0f)
            return make_float4(0, 0, 0, 0);
        return make_float4(all.out.x * by, all.out.y * by, all.out.z * by, all.out.w * by);
    }

    __device__ __forceinline__ void store_row(int row, int vector,
                                              const struct rt_sm90_sum &all) const
    {
        const int64_t data_row = (p.ctrl ? (int64_t)p.ctrl->row_base : 0) + segment.row;
        const float4 x = scaled(all);
        uint16_t *to = p.out + data_row * p.out_row_stride + room.desk.out_at[row] +
                       (int)rank * COLUMNS + vector * 4;
        *(uint2 *)to = make_uint2(rt_pack_bf16x2(x.x, x.y), rt_pack_bf16x2(x.z, x.w));
        if (vector == 0 && rank == 0)
            p.lse[data_row * p.lse_row_stride + room.desk.lse_at[row]] =
                all.sum == 0.0f ? RT_SM90_INFINITY : (rt_log2(all.sum) + all.top) * RT_SM90_LN_2;
    }

    /* Every block has an lse of its own: who reads its slice has waited for nobody else. */
    __device__ __forceinline__ float *lse_of(int slot, int row) const
    {
        return p.partial_lse + ((int64_t)slot * SHAPE::TEAM + rank) * hq + first_query + row;
    }

    __device__ __forceinline__ float *out_of(int slot, int row, int vector) const
    {
        return p.partial_out + ((int64_t)slot * hq + first_query + row) * SHAPE::D_V +
               (int)rank * COLUMNS + vector * 4;
    }

    __device__ __forceinline__ void store_piece(int row, int vector,
                                                const struct rt_sm90_sum &all) const
    {
        *(float4 *)out_of(segment.slot, row, vector) = scaled(all);
        if (vector == 0)
            *lse_of(segment.slot, row) =
                all.sum == 0.0f ? -RT_SM90_INFINITY : rt_log2(all.sum) + all.top;
    }

    /* Whether all other pieces of the row are there; the counter is left as it was found. */
    __device__ __forceinline__ bool count(void) const
    {
        __threadfence();
        sync();
        if (thread == 0) {
            int32_t *arrivals =
                (int32_t *)p.num_splits + rt_arrivals_at(p.rows) +
                ((int64_t)segment.first * (gridDim.x / SHAPE::TEAM) + blockIdx.x / SHAPE::TEAM) *
                    SHAPE::TEAM +
                rank;
            const bool last = atomicAdd(arrivals, 1) == segment.pieces - 1;
            if (last)
                *arrivals = 0;
            room.desk.is_last = last;
            __threadfence();
        }
        sync();
        return room.desk.is_last != 0;
    }

    /*
     * All pieces of four columns of a query row, in their order, eight asked for at once: after
     * each eight the sums are in units of the maximum so far.
     */
    __device__ __forceinline__ struct rt_sm90_sum gather(int row, int vector) const
    {
        constexpr int ATONCE = 8;
        struct rt_sm90_sum all = {make_float4(0, 0, 0, 0), -RT_SM90_INFINITY, 0.0f};
#pragma unroll 1
        for (int first = 0; first < segment.pieces; first += ATONCE) {
            float lse[ATONCE];
            float4 part[ATONCE];
#pragma unroll
            for (int i = 0; i < ATONCE; i++) {
                const int slot = segment.first + min(first + i, segment.pieces - 1);
                lse[i] = __ldcg(lse_of(slot, row));
                part[i] = __ldcg((const float4 *)out_of(slot, row, vector));
            }
            float top = all.top;
#pragma unroll
            for (int i = 0; i < ATONCE; i++)
                top = fmaxf(top, lse[i]);
            const float factor = rt_sm90_weight(all.top, top);
            all.out = make_float4(all.out.x * factor, all.out.y * factor, all.out.z * factor,
                                  all.out.w * factor);
            all.sum *= factor;
            all.top = top;
#pragma unroll
            for (int i = 0; i < ATONCE; i++) {
                if (first + i >= segment.pieces)
                    break;
                const float weight = rt_sm90_weight(lse[i], top);
                rt_sm90_add(all.out, weight, part[i]);
                all.sum += weight;
            }
        }
        return all;
    }

    template <class DO> __device__ __forceinline__ void each(DO act) const
    {
#pragma unroll 1
        for (int item = thread; item < ITEMS; item += THREADS) {
            const int row = item / VECTORS;
            if (first_query + row < hq)
                act(row, item % VECTORS);
        }
    }

    __device__ __forceinline__ void run(void) const
    {
        each([this](int row, int vector) {
            const struct rt_sm90_sum all = collect(row, vector);
            if (segment.slot < 0)
                store_row(row, vector, all);
            else
                store_piece(row, vector, all);
        });
        if (segment.slot >= 0 && count())
            each([this](int row, int vector) { store_row(row, vector, gather(row, vector)); });
    }
};

/* The end of segment `n`, by both workers. */
template <class MATH>
static __device__ __forceinline__ void
rt_sm90_share(MATH &math, const struct rt_sm90_segment &segment, uint32_t n)
{
    using shape = typename MATH::shape;
    typedef rt_sm90_team<shape, MATH::TEAM_STRIDE> team;
    auto &desk = math.room.desk;
    math.leave_state();
    team::sync(); /* no product reads keys any more, in either worker */
    math.leave_out((float *)math.room.stages);
    team::tell(&desk.team_full);
    rt_mbarrier_wait_cluster(&desk.team_full, n & 1);
    team(math.p, math.room, segment).run();
    team::tell(&desk.team_empty);
    rt_mbarrier_wait_cluster(&desk.team_empty, n & 1);
    rt_fence_async(); /* the copy engine writes there next */
    if (rt_elected())
        rt_mbarrier_arrive(&desk.team_done);
}

#endif
