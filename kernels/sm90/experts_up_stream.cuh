/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_EXPERTS_UP_STREAM_CUH
#define RT_KERNELS_SM90_EXPERTS_UP_STREAM_CUH

/*
 * experts_up for Hopper: kernels/abi/experts.h has the formula.
 *
 *   x [tokens, hidden], gate and up [experts, width, hidden] -> h [tokens, chosen + shared, width]
 *
 * Grid: as many blocks as SMs. The rows of all shared experts are one line, those of all experts
 * that have tokens another; each is cut evenly, so that a block has as much to read as any other,
 * whoever was chosen. A block takes its share in passes of up to 4 tiles of one expert, a pass once
 * for every 8 or 16 of its tokens, and k in chunks of 512 numbers, the tiles one behind the other.
 * A tile is 8 rows of gate and the same 8 of up, so that both numbers of an h meet in one warp.
 *
 *   warps 8, 9  shared experts' stages ▸ wait ▸ active experts' stages
 *   warps 0..7  wait ▸ x ▸ stage ▸ stage … ▸ sums ▸ h
 *
 *   shared memory   bytes
 *   desk            1024
 *   table           32 vectors 68   [warp][vector][row of the pass]
 *   ring            stages 17408
 *
 *   barrier   arrives       means
 *   full, empty             of stream.cuh
 *   SUMS      256 threads   each warp's sums are there, and what the slice's vectors are
 *   ADDED     256 threads   the sums before are read
 */
#include "kernels/sm90/experts_stream.cuh"

/* A block's share of a line of rows, pass by pass. */
struct rt_experts_up_line {
    const struct rt_experts_view &work;
    const bool shared;
    const uint32_t width;
    uint32_t next, end;

    __device__ __forceinline__ rt_experts_up_line(const struct rt_experts_up_params &p,
                                                  bool shared_)
        : work(p.work), shared(shared_), width(p.width)
    {
        const uint32_t jobs = shared ? work.shared : rt_expert_active(work);
        next = rt_stream_share(jobs * width, blockIdx.x);
        end = rt_stream_share(jobs * width, blockIdx.x + 1);
    }

    __device__ __forceinline__ bool take(struct rt_experts_pass &pass)
    {
        if (next >= end)
            return false;
        const uint32_t index = next / width;
        pass.job = shared ? rt_expert_job_shared(work, index) : rt_expert_job_routed(work, index);
        pass.row = next - index * width;
        pass.rows = min(min(end - next, width - pass.row),
                        RT_EXPERTS_SM90_UP_TILES * RT_EXPERTS_SM90_UP_ROWS);
        next += pass.rows;
        return true;
    }
};

/* Warps 8 and 9. */
template <int VECTORS> struct rt_experts_up_bringer {
    const struct rt_experts_up_params &p;
    struct rt_stream_bringer stream;

    __device__ __forceinline__ rt_experts_up_bringer(const struct rt_experts_up_sm90_params &p_,
                                                     const struct rt_experts_room &room)
        : p(p_.up), stream(room.ring, p_.ring.early)
    {
    }

    static __device__ __forceinline__ uint32_t rows_of(const struct rt_experts_pass &pass,
                                                       uint32_t tile)
    {
        return min(pass.rows - tile * RT_EXPERTS_SM90_UP_ROWS, RT_EXPERTS_SM90_UP_ROWS);
    }

    __device__ __forceinline__ void
    run_slice(const uint16_t *const (&from)[RT_EXPERTS_SM90_UP_TILES],
              const struct rt_experts_pass &pass)
    {
        for (uint32_t k = 0; k < p.hidden; k += RT_STREAM_CHUNK) {
            const uint32_t bytes = 2 * min(p.hidden - k, RT_STREAM_CHUNK);
#pragma unroll
            for (uint32_t tile = 0; tile < RT_EXPERTS_SM90_UP_TILES; tile++)
                if (tile * RT_EXPERTS_SM90_UP_ROWS < pass.rows)
                    stream.bring(from[tile] + k, 2 * rows_of(pass, tile), bytes);
        }
    }

    __device__ __forceinline__ void run_line(bool shared)
    {
        struct rt_experts_up_line line(p, shared);
        struct rt_experts_pass pass;
        while (line.take(pass)) {
            const uint16_t *from[RT_EXPERTS_SM90_UP_TILES];
#pragma unroll
            for (uint32_t tile = 0; tile < RT_EXPERTS_SM90_UP_TILES; tile++) {
                const uint32_t first = min(tile * RT_EXPERTS_SM90_UP_ROWS, pass.rows - 1);
                const uint32_t n = min(pass.rows - first, RT_EXPERTS_SM90_UP_ROWS);
                const bool is_up = stream.row >= n;
                const uint32_t row = min(is_up ? stream.row - n : stream.row, n - 1);
                from[tile] = rt_expert_row(is_up ? p.up[pass.job.shared] : p.gate[pass.job.shared],
                                           pass.job.expert, pass.row + first + row);
            }
            for (uint32_t first = 0; first < pass.job.count; first += VECTORS)
                run_slice(from, pass);
        }
    }

    __device__ __forceinline__ void run(void)
    {
        run_line(true);
        if (p.work.experts == 0)
            return;
        rt_pdl_wait(); /* for route's groups */
        run_line(false);
    }
};

template <int COLUMNS>
struct rt_experts_up_worker : rt_experts_worker<COLUMNS, (int)RT_EXPERTS_SM90_UP_TILES, true> {
    typedef rt_experts_worker<COLUMNS, (int)RT_EXPERTS_SM90_UP_TILES, true> base;
    using base::count;
    using base::room;
    using base::rows;

    const struct rt_experts_up_params &p;
    uint32_t n; /* slices so far */

    __device__ __forceinline__ rt_experts_up_worker(const struct rt_experts_up_sm90_params &p_,
                                                    const struct rt_experts_room &room_,
                                                    uint32_t warp_)
        : base(room_, RT_EXPERTS_SM90_UP_ROWS, p_.up.hidden, warp_), p(p_.up), n(0)
    {
    }

    __device__ __forceinline__ void find_vectors(const struct rt_expert_job &job, uint32_t first)
    {
        count = min(job.count - first, base::VECTORS);
        if (threadIdx.x < count)
            room.desk.slice[n % 2].pair[threadIdx.x] =
                rt_expert_pair_of(p.work, job, first + threadIdx.x);
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            const uint32_t vector = column * 8 + base::g;
            base::x[column] = nullptr;
            if (vector < count)
                base::x[column] =
                    p.x + rt_expert_pair_of(p.work, job, first + vector).token * p.x_stride +
                    base::mine;
        }
    }

    /* 32 threads take a vector, each a row of the pass. */
    __device__ __forceinline__ void store(const struct rt_experts_pass &pass) const
    {
        const uint32_t row = threadIdx.x % 32;
        const uint32_t place = row / RT_EXPERTS_SM90_UP_ROWS * 16 + row % RT_EXPERTS_SM90_UP_ROWS;
        if (row >= rows)
            return;
        for (uint32_t i = threadIdx.x / 32; i < count; i += RT_PROJECT_SM90_WARPS)
            rt_expert_h(p.h, room.desk.slice[n % 2].pair[i])[pass.row + row] =
                rt_float_bf16(rt_expert_gated(base::total(i, place),
                                              base::total(i, place + RT_EXPERTS_SM90_UP_ROWS)));
    }

    __device__ __forceinline__ void run_line(bool shared)
    {
        struct rt_experts_up_line line(p, shared);
        struct rt_experts_pass pass;
        while (line.take(pass)) {
            rows = pass.rows;
            for (uint32_t first = 0; first < pass.job.count; first += base::VECTORS) {
                find_vectors(pass.job, first);
                base::multiply();
                base::gather(n);
                store(pass);
                n++;
            }
        }
    }

    __device__ __forceinline__ void run(void)
    {
        rt_pdl_wait();
        rt_pdl_launch_dependents(); /* not before: see `early` of experts_down */
        run_line(true);
        run_line(false);
    }
};

template <int COLUMNS>
static __device__ __forceinline__ void
rt_experts_up_stream(const struct rt_experts_up_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const struct rt_experts_room room(p.ring, rt_sm90_shared, 2 * RT_EXPERTS_SM90_UP_ROWS);
    rt_experts_run<rt_experts_up_bringer<8 * COLUMNS>, rt_experts_up_worker<COLUMNS>>(p, room);
}

#endif
