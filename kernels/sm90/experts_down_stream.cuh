/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_EXPERTS_DOWN_STREAM_CUH
#define RT_KERNELS_SM90_EXPERTS_DOWN_STREAM_CUH

/*
 * experts_down for Hopper: kernels/abi/experts.h has the formula.
 *
 *   h [tokens, chosen + shared, width], down [experts, hidden, width] -> out [tokens, hidden]
 *
 * Grid: as many blocks as SMs. The rows of out are cut evenly. A block goes with its rows, up to
 * TILES tiles of tile_rows at a time, through all experts that have tokens, the shared ones first,
 * each once for every 8 or 16 of its tokens; so it has all that a number of out is the sum of, and
 * nobody else writes it. The stream of weights does not stop between experts.
 *
 *   warps 8, 9  shared experts' stages ▸ (wait) ▸ active experts' stages
 *   warps 0..7  wait ▸ h ▸ stage ▸ stage … ▸ sums += weight * total ▸ h ▸ … ▸ out
 *
 *   shared memory   bytes
 *   desk            1024
 *   table           32 vectors (16 TILES + 4)   [warp][vector][row]
 *   sums            64 TILES tokens             [token][row], at sums_at
 *   ring            stages tile_rows 1088
 *
 *   barrier   arrives       means
 *   full, empty             of stream.cuh
 *   SUMS      256 threads   each warp's sums are there, and what the slice's vectors are
 *   ADDED     256 threads   the table is read, and `sums` are what they are with that slice
 */
#include "kernels/sm90/experts_stream.cuh"

/* Warps 8 and 9, of few tokens 8 to 11. */
template <int VECTORS, int TILES, uint32_t BRINGERS = RT_PROJECT_SM90_BRINGERS>
struct rt_experts_down_bringer {
    const struct rt_experts_down_params &p;
    const uint32_t tile_rows;
    struct rt_stream_bringer<BRINGERS> stream;
    bool may_look; /* at what route has written */

    __device__ __forceinline__ rt_experts_down_bringer(const struct rt_experts_down_sm90_params &p_,
                                                       const struct rt_experts_room &room)
        : p(p_.down), tile_rows(p_.ring.tile_rows), stream(room.ring, p_.ring.early),
          may_look(p_.down.early != 0 || p_.down.work.experts == 0)
    {
    }

    __device__ __forceinline__ void run_job(const struct rt_expert_job &job, uint32_t row,
                                            uint32_t rows)
    {
        const uint16_t *from[TILES];
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            from[tile] = rt_expert_row(p.down[job.shared], job.expert,
                                       row + min(tile * tile_rows + stream.row, rows - 1));
        for (uint32_t first = 0; first < job.count; first += VECTORS)
            for (uint32_t k = 0; k < p.width; k += RT_STREAM_CHUNK) {
                const uint32_t bytes = 2 * min(p.width - k, RT_STREAM_CHUNK);
#pragma unroll
                for (int tile = 0; tile < TILES; tile++)
                    if (tile * tile_rows < rows)
                        stream.bring(from[tile] + k, min(rows - tile * tile_rows, tile_rows),
                                     bytes);
            }
    }

    __device__ __forceinline__ void run(void)
    {
        const uint32_t end = rt_stream_share(p.hidden, blockIdx.x + 1);
        for (uint32_t row = rt_stream_share(p.hidden, blockIdx.x); row < end;
             row += TILES * tile_rows) {
            const uint32_t rows = min(end - row, TILES * tile_rows);
            for (uint32_t e = 0; e < p.work.shared; e++)
                run_job(rt_expert_job_shared(p.work, e), row, rows);
            if (!may_look)
                rt_pdl_wait();
            may_look = true;
            const uint32_t active = rt_expert_active(p.work);
            for (uint32_t i = 0; i < active; i++)
                run_job(rt_expert_job_routed(p.work, i), row, rows);
        }
    }
};

template <int COLUMNS, int TILES>
struct rt_experts_down_worker : rt_experts_worker<COLUMNS, TILES, false> {
    typedef rt_experts_worker<COLUMNS, TILES, false> base;
    using base::count;
    using base::room;
    using base::rows;
    static constexpr uint32_t PLACES = 16 * TILES; /* of rows */

    const struct rt_experts_down_params &p;
    uint32_t n; /* slices so far */

    __device__ __forceinline__ rt_experts_down_worker(const struct rt_experts_down_sm90_params &p_,
                                                      const struct rt_experts_room &room_,
                                                      uint32_t warp_)
        : base(room_, p_.ring.tile_rows, p_.down.width, warp_), p(p_.down), n(0)
    {
    }

    __device__ __forceinline__ void find_vectors(const struct rt_expert_job &job, uint32_t first)
    {
        struct rt_experts_slice &slice = room.desk.slice[n % 2];
        count = min(job.count - first, base::VECTORS);
        if (threadIdx.x < count) {
            const struct rt_expert_pair pair = rt_expert_pair_of(p.work, job, first + threadIdx.x);
            slice.pair[threadIdx.x] = pair;
            slice.weight[threadIdx.x] =
                job.shared ? 1.0f : p.weights[pair.token * p.work.chosen + pair.place];
        }
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            const uint32_t vector = column * 8 + base::g;
            base::x[column] = nullptr;
            if (vector < count)
                base::x[column] =
                    rt_expert_h(p.h, rt_expert_pair_of(p.work, job, first + vector)) + base::mine;
        }
    }

    /* The row in the pass that stands at this place of a vector's sums, if there is one. */
    __device__ __forceinline__ bool find_row(uint32_t place, uint32_t &row) const
    {
        row = place / 16 * base::tile_rows + place % 16;
        return place % 16 < base::tile_rows && row < rows;
    }

    /* PLACES threads take a vector. */
    __device__ __forceinline__ void add(void) const
    {
        const struct rt_experts_slice &slice = room.desk.slice[n % 2];
        const uint32_t place = threadIdx.x % PLACES;
        uint32_t row;
        if (!find_row(place, row))
            return;
        for (uint32_t i = threadIdx.x / PLACES; i < count; i += RT_STREAM_WORKERS / PLACES) {
            float &sum = room.sums[slice.pair[i].token * PLACES + place];
            sum = fmaf(slice.weight[i], base::total(i, place), sum);
        }
    }

    __device__ __forceinline__ void run_job(const struct rt_expert_job &job)
    {
        for (uint32_t first = 0; first < job.count; first += base::VECTORS) {
            find_vectors(job, first);
            base::multiply();
            base::gather(n);
            add();
            n++;
        }
    }

    /* A thread's places of `sums` are the same every time. */
    __device__ __forceinline__ void clear(void) const
    {
        for (uint32_t i = threadIdx.x; i < p.work.tokens * PLACES; i += RT_STREAM_WORKERS)
            room.sums[i] = 0.0f;
    }

    __device__ __forceinline__ void store(uint32_t first_row) const
    {
        rt_bar_sync(RT_EXPERTS_BAR_ADDED, RT_STREAM_WORKERS);
        for (uint32_t i = threadIdx.x; i < p.work.tokens * PLACES; i += RT_STREAM_WORKERS) {
            const uint32_t token = i / PLACES;
            uint32_t row;
            if (find_row(i % PLACES, row))
                p.out[token * p.out_stride + first_row + row] = rt_float_bf16(
                    rt_row_is_live(&p.rows, token / p.rows.q_len) ? room.sums[i] : 0.0f);
        }
    }

    __device__ __forceinline__ void run(void)
    {
        const uint32_t end = rt_stream_share(p.hidden, blockIdx.x + 1);
        rt_pdl_wait();
        const uint32_t active = rt_expert_active(p.work);
        for (uint32_t row = rt_stream_share(p.hidden, blockIdx.x); row < end;
             row += TILES * base::tile_rows) {
            rows = min(end - row, TILES * base::tile_rows);
            clear();
            for (uint32_t e = 0; e < p.work.shared; e++)
                run_job(rt_expert_job_shared(p.work, e));
            for (uint32_t i = 0; i < active; i++)
                run_job(rt_expert_job_routed(p.work, i));
            store(row);
        }
    }
};

template <int COLUMNS, int TILES>
static __device__ __forceinline__ void
rt_experts_down_stream(const struct rt_experts_down_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const struct rt_experts_room room(p.ring, rt_sm90_shared, p.ring.tile_rows);
    rt_pdl_launch_dependents(); /* the next kernel may bring its weights */
    rt_experts_run<rt_experts_down_bringer<8 * COLUMNS, TILES>,
                   rt_experts_down_worker<COLUMNS, TILES>>(p, room);
}

#endif
