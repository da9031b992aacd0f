/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_EXPERTS_UP_STREAM_CUH
#define RT_KERNELS_SM90_EXPERTS_UP_STREAM_CUH

/*
 * experts_up for Hopper: kernels/abi/experts.h has the formula.
 *
 *   x [tokens, hidden], gate and up [experts, width, hidden] -> h [tokens, chosen + shared, width]
 *
 * Grid: as many blocks as SMs. The rows of all shared experts are one line, those of all experts
 * that have tokens another, of each once for every slice of 8 or 16 of its tokens; each line is cut
 * evenly, so that a block has as much to read as any other, whoever was chosen. A block takes its
 * share in passes of up to 4 tiles of one slice, k in chunks of 512 numbers, the tiles one behind
 * the other.
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
#include "kernels/device/scan.cuh"
#include "kernels/sm90/experts_stream.cuh"

/* A slice of one expert's vectors: the first, of so many at most. */
struct rt_experts_up_place {
    uint32_t index, first; /* of the line's experts; of its vectors */
};

/*
 * A block's share of a line, pass by pass. The line has the rows of every expert once for every
 * slice of its vectors, so that shares are as long as each other, whoever was chosen how often.
 */
template <uint32_t VECTORS> struct rt_experts_up_line {
    const struct rt_experts_view &work;
    const bool shared;
    const uint32_t width;
    uint32_t left; /* rows of this block */
    uint32_t row;  /* the next one, in its slice */
    struct rt_experts_up_place at;

    static __device__ __forceinline__ uint32_t slices(uint32_t count)
    {
        return rt_ceil_div_u32(count, VECTORS);
    }

    /* Of the active expert that is this lane's among the 32 from `first` on. */
    __device__ __forceinline__ uint32_t slices_of_lane(uint32_t first, uint32_t active) const
    {
        const uint32_t index = first + threadIdx.x % 32;
        return index < active ? slices((uint32_t)work.groups.active[index].count) : 0;
    }

    __device__ __forceinline__ uint32_t all_slices(uint32_t active) const
    {
        uint32_t all = 0;
#pragma unroll 4
        for (uint32_t first = 0; first < active; first += 32)
            all += __reduce_add_sync(0xffffffffu, slices_of_lane(first, active));
        return all;
    }

    /* The number-th slice of active experts, which there is: by a whole warp. */
    __device__ __forceinline__ struct rt_experts_up_place find(uint32_t number,
                                                               uint32_t active) const
    {
        for (uint32_t first = 0;; first += 32) {
            const uint32_t mine = slices_of_lane(first, active);
            const uint32_t through = rt_warp_inclusive_sum(mine);
            const uint32_t all = __shfl_sync(0xffffffffu, through, 31);
            if (number < all) {
                const uint32_t behind = __ballot_sync(0xffffffffu, number < through);
                const uint32_t lane = (uint32_t)__ffs((int)behind) - 1;
                const uint32_t before = __shfl_sync(0xffffffffu, through - mine, (int)lane);
                return {first + lane, (number - before) * VECTORS};
            }
            number -= all;
        }
    }

    /* Where no expert can have more vectors than a slice has, none is asked how many. */
    __device__ __forceinline__ rt_experts_up_line(const struct rt_experts_view &work_,
                                                  uint32_t width_, bool shared_)
        : work(work_), shared(shared_), width(width_)
    {
        const uint32_t jobs = shared ? work.shared : rt_expert_active(work);
        const uint32_t each = slices(work.tokens); /* of a shared one */
        const bool alike = shared || each == 1;
        const uint32_t line = (alike ? jobs * each : all_slices(jobs)) * width;
        const uint32_t begin = rt_stream_share(line, blockIdx.x);
        left = rt_stream_share(line, blockIdx.x + 1) - begin;
        const uint32_t number = begin / width;
        row = begin - number * width;
        at = {number / each, number % each * VECTORS};
        if (!alike && left > 0)
            at = find(number, jobs);
    }

    __device__ __forceinline__ bool take(struct rt_experts_pass &pass)
    {
        if (left == 0)
            return false;
        pass.job =
            shared ? rt_expert_job_shared(work, at.index) : rt_expert_job_routed(work, at.index);
        pass.first = at.first;
        pass.row = row;
        pass.rows = min(min(left, width - row), RT_EXPERTS_SM90_UP_TILES * RT_EXPERTS_SM90_UP_ROWS);
        left -= pass.rows;
        row += pass.rows;
        if (row < width)
            return true;
        row = 0;
        at.first += VECTORS;
        if (at.first >= pass.job.count)
            at = {at.index + 1, 0};
        return true;
    }
};

/* Warps 8 and 9, of few tokens 8 to 11. */
template <int VECTORS, uint32_t BRINGERS = RT_PROJECT_SM90_BRINGERS> struct rt_experts_up_bringer {
    const struct rt_experts_up_params &p;
    struct rt_stream_bringer<BRINGERS> stream;

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
        struct rt_experts_up_line<VECTORS> line(p.work, p.width, shared);
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
        struct rt_experts_up_line<base::VECTORS> line(p.work, p.width, shared);
        struct rt_experts_pass pass;
        while (line.take(pass)) {
            rows = pass.rows;
            find_vectors(pass.job, pass.first);
            base::multiply();
            base::gather(n);
            store(pass);
            n++;
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
