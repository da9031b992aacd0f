/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PROJECT_ALONG_CUH
#define RT_KERNELS_SM90_PROJECT_ALONG_CUH

/*
 * project for Hopper, weights that lie along k, up to 8 or 16 vectors: kernels/abi/project.h has
 * the formula.
 *
 * Grid: as many blocks as SMs, or as shall share them. All rows of the batch are one line, cut
 * evenly; a block takes its share in passes of up to TILES tiles of tile_rows rows of one z, and
 * each pass in chunks of 512 numbers of k, the tiles of a chunk one behind the other:
 *
 *          k 0        512       1024
 *   tile 0 │ stage 0 │ stage 3 │ …        a stage: a tile's rows, each a copy of 1 KB
 *   tile 1 │ stage 1 │ stage 4 │
 *   tile 2 │ stage 2 │ stage 5 │          so x is read once a pass, each number by one warp
 *
 *   warps 8, 9  (norm) ▸ stage ▸ stage ▸ stage …          weights are nobody's output
 *   warps 0..7  wait for the kernel before ▸ x ▸ (squares) ▸ stage ▸ stage … ▸ sums
 *
 * Of a chunk's 512 numbers warp w has 32 w .. and 256 + 32 w ..: a lane 8 numbers of two rows and
 * of one vector, for two products. x is asked for four chunks ahead, into registers. With a norm
 * each warp first adds up the squares of what it has of each vector, reading x twice where it is
 * longer than what registers hold.
 *
 *   shared memory   bytes
 *   desk            1024
 *   sums            32 m sums_stride   [warp][vector][row of the pass]
 *   norm            2 k where there is one
 *   ring            stages tile_rows 1088
 *
 *   barrier    arrives              waits       means
 *   full[s]    warps 8, 9, bytes    warps 0..7  stage s is there
 *   empty[s]   warps 0..7           warps 8, 9  nobody reads it any more
 *   norm_full  warp 8, bytes        warps 0..7  the norm's weight is there
 *   SQUARES    256 threads                      each warp's squares are there
 *   SUMS       256 threads                      each warp's sums are there; nobody reads squares
 *   ADDED      256 threads                      sums of the pass before are read
 *
 * The ring first fills while the kernel before runs, which wants the memory for itself: no more
 * than `early` stages are on their way then.
 */
#include "kernels/device/ptx/exp2.cuh"
#include "kernels/device/ptx/opaque.cuh"
#include "kernels/sm90/project_desk.cuh"

/* Named barriers; 0 is __syncthreads. */
enum { RT_PROJECT_BAR_SQUARES = 1, RT_PROJECT_BAR_SUMS = 2, RT_PROJECT_BAR_ADDED = 3 };

struct alignas(16) rt_project_desk {
    uint64_t full[RT_PROJECT_SM90_MOST_STAGES], empty[RT_PROJECT_SM90_MOST_STAGES];
    uint64_t norm_full, reserved;
    float4 squares[RT_PROJECT_SM90_MOST_VECTORS][RT_PROJECT_SM90_WARPS / 4];
};
static_assert(sizeof(struct rt_project_desk) <= RT_PROJECT_SM90_DESK_BYTES, "desk's formula");

struct rt_project_room {
    struct rt_project_desk &desk;
    float *sums;
    unsigned char *norm;
    const struct rt_stream_ring ring;

    __device__ __forceinline__ rt_project_room(const struct rt_project_sm90_params &p,
                                               unsigned char *shared)
        : desk(*(struct rt_project_desk *)shared),
          sums((float *)(shared + RT_PROJECT_SM90_DESK_BYTES)),
          norm(shared + p.norm_at), ring{desk.full,
                                         desk.empty,
                                         shared + p.ring_at,
                                         p.stages,
                                         p.tile_rows * RT_STREAM_ROW_BYTES,
                                         RT_STREAM_ROW_BYTES}
    {
    }
};

/* Some rows of one z. */
struct rt_project_pass {
    uint32_t z, row, rows;
};

/* A block's share of all rows, pass by pass. */
template <int TILES> struct rt_project_passes {
    const uint32_t of_z, most;
    uint32_t next, end;

    explicit __device__ __forceinline__ rt_project_passes(const struct rt_project_sm90_params &p)
        : of_z(p.project.w[0].rows + p.project.w[1].rows), most(TILES * p.tile_rows),
          next(rt_stream_share(p.project.batch * of_z, blockIdx.x)),
          end(rt_stream_share(p.project.batch * of_z, blockIdx.x + 1))
    {
    }

    __device__ __forceinline__ bool take(struct rt_project_pass &pass)
    {
        if (next >= end)
            return false;
        pass.z = next / of_z;
        pass.row = next - pass.z * of_z;
        pass.rows = min(min(end - next, of_z - pass.row), most);
        next += pass.rows;
        return true;
    }
};

/* Warps 8 and 9. */
template <int TILES> struct rt_project_bringer {
    const struct rt_project_sm90_params &p;
    const struct rt_project_room &room;
    struct rt_stream_bringer<> stream;

    __device__ __forceinline__ rt_project_bringer(const struct rt_project_sm90_params &p_,
                                                  const struct rt_project_room &room_)
        : p(p_), room(room_), stream(room_.ring, p_.early)
    {
    }

    __device__ __forceinline__ void bring_norm(void) const
    {
        const struct rt_norm_view &norm = p.project.norm;
        if (!norm.weight || stream.which > 0 || !rt_elected())
            return;
        rt_mbarrier_arrive_expect(&room.desk.norm_full, 2 * norm.width);
        rt_bulk_load(room.norm, norm.weight, 2 * norm.width, &room.desk.norm_full, stream.policy);
    }

    __device__ __forceinline__ void bring(const uint16_t *from, uint32_t rows, uint32_t bytes)
    {
        stream.bring(from, rows, bytes);
        if (stream.asked == p.stages)
            rt_project_trigger(p, RT_PROJECT_TRIGGER_ASKED);
    }

    __device__ __forceinline__ void run_pass(const struct rt_project_pass &pass)
    {
        const uint16_t *from[TILES];
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            const uint32_t row = min(tile * p.tile_rows + stream.row, pass.rows - 1);
            const struct rt_project_weight_row at(p.project, pass.row + row);
            from[tile] =
                at.weight.base + pass.z * at.weight.batch_stride + at.j * at.weight.row_stride;
        }
        for (uint32_t k = 0; k < p.project.k; k += RT_STREAM_CHUNK) {
            const uint32_t bytes = 2 * min(p.project.k - k, RT_STREAM_CHUNK);
#pragma unroll
            for (int tile = 0; tile < TILES; tile++)
                if (tile * p.tile_rows < pass.rows)
                    bring(from[tile] + k, min(pass.rows - tile * p.tile_rows, p.tile_rows), bytes);
        }
    }

    __device__ __forceinline__ void run(void)
    {
        rt_project_passes<TILES> passes(p);
        struct rt_project_pass pass;
        if (passes.next < passes.end)
            bring_norm(); /* else nobody would wait for it */
        while (passes.take(pass))
            run_pass(pass);
        if (stream.asked < p.stages)
            rt_project_trigger(p, RT_PROJECT_TRIGGER_ASKED);
    }
};

/* Warps 0..7, for 8 * COLUMNS vectors. */
template <int COLUMNS, int TILES> struct rt_project_worker {
    static constexpr int WINDOW = COLUMNS == 1 ? 4 : 2; /* chunks of x in registers */
    typedef uint4 chunk[RT_STREAM_PIECES][COLUMNS];

    const struct rt_project_sm90_params &p;
    const struct rt_project_room &room;
    const uint32_t warp, g, t;
    const uint32_t mine; /* this lane's first number of a chunk */
    struct rt_stream_turn turn;
    struct rt_project_pass pass;
    const uint16_t *x;      /* this lane's first vector, from its first number on */
    float inverse[COLUMNS]; /* norms of its vectors */
    float sum[TILES][COLUMNS][4];

    __device__ __forceinline__ rt_project_worker(const struct rt_project_sm90_params &p_,
                                                 const struct rt_project_room &room_,
                                                 uint32_t warp_)
        : p(p_), room(room_), warp(warp_), g(threadIdx.x % 32 / 4), t(threadIdx.x % 4),
          mine(32 * warp + 8 * t), turn{0, 0}
    {
    }

    /* Where this lane's piece of a chunk begins. */
    static __device__ __forceinline__ uint32_t piece_at(uint32_t first, int piece)
    {
        return first * RT_STREAM_CHUNK + piece * RT_STREAM_STEP;
    }

    __device__ __forceinline__ bool is_there(uint32_t at) const
    {
        return mine + at < p.project.k;
    }

    __device__ __forceinline__ void find_x(void)
    {
        const struct rt_matrix_view &v = p.project.x;
        x = (const uint16_t *)v.base + pass.z * v.batch_stride + g * v.row_stride + mine;
    }

    /* Zeros behind the last number and for vectors that are not there. */
    __device__ __forceinline__ void load_x(uint32_t index, chunk &to) const
    {
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            const bool is_vector = column * 8 + g < p.project.m;
            const uint16_t *from = x + column * 8 * p.project.x.row_stride;
#pragma unroll
            for (int piece = 0; piece < RT_STREAM_PIECES; piece++) {
                const uint32_t at = piece_at(index, piece);
                to[piece][column] = is_vector && is_there(at) ? *(const uint4 *)(from + at)
                                                              : make_uint4(0, 0, 0, 0);
            }
        }
    }

    static __device__ __forceinline__ float add_squares(float squares, uint32_t pair)
    {
        squares = fmaf(rt_bf16_low(pair), rt_bf16_low(pair), squares);
        return fmaf(rt_bf16_high(pair), rt_bf16_high(pair), squares);
    }

    static __device__ __forceinline__ void add_squares(float (&squares)[COLUMNS], const chunk &of)
    {
#pragma unroll
        for (int piece = 0; piece < RT_STREAM_PIECES; piece++)
#pragma unroll
            for (int column = 0; column < COLUMNS; column++) {
                const uint4 &v = of[piece][column];
                squares[column] = add_squares(squares[column], v.x);
                squares[column] = add_squares(squares[column], v.y);
                squares[column] = add_squares(squares[column], v.z);
                squares[column] = add_squares(squares[column], v.w);
            }
    }

    /* Of all chunks; the first are in registers. */
    __device__ __forceinline__ void find_norms(const chunk (&window)[WINDOW], uint32_t chunks)
    {
        float squares[COLUMNS] = {};
#pragma unroll
        for (int i = 0; i < WINDOW; i++)
            add_squares(squares, window[i]);
        for (uint32_t i = WINDOW; i < chunks; i++) {
            chunk more;
            load_x(i, more);
            add_squares(squares, more);
        }
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            squares[column] += __shfl_xor_sync(RT_PROJECT_FULL_WARP, squares[column], 1);
            squares[column] += __shfl_xor_sync(RT_PROJECT_FULL_WARP, squares[column], 2);
            if (t == 0)
                ((float *)room.desk.squares[column * 8 + g])[warp] = squares[column];
        }
        rt_bar_sync(RT_PROJECT_BAR_SQUARES, RT_STREAM_WORKERS);
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
            const float4 a = room.desk.squares[column * 8 + g][0];
            const float4 b = room.desk.squares[column * 8 + g][1];
            const float all = (a.x + a.y + a.z + a.w) + (b.x + b.y + b.z + b.w);
            inverse[column] = rt_inverse_root(all / (float)p.project.k + p.project.norm.eps);
        }
        rt_mbarrier_wait(&room.desk.norm_full, 0);
    }

    __device__ __forceinline__ uint32_t scaled(uint32_t pair, uint32_t weight, float by) const
    {
        const struct rt_norm_view &norm = p.project.norm;
        return rt_pack_bf16x2(
            rt_bf16_low(pair) * by * ((rt_bf16_low(weight) + norm.offset) * norm.scale),
            rt_bf16_high(pair) * by * ((rt_bf16_high(weight) + norm.offset) * norm.scale));
    }

    /* x' of x. */
    __device__ __forceinline__ void scale_x(uint32_t index, chunk &of) const
    {
#pragma unroll
        for (int piece = 0; piece < RT_STREAM_PIECES; piece++) {
            const uint32_t at = piece_at(index, piece);
            if (!is_there(at))
                continue;
            const uint4 w = *(const uint4 *)(room.norm + 2 * (mine + at));
#pragma unroll
            for (int column = 0; column < COLUMNS; column++) {
                uint4 &v = of[piece][column];
                v.x = scaled(v.x, w.x, inverse[column]);
                v.y = scaled(v.y, w.y, inverse[column]);
                v.z = scaled(v.z, w.z, inverse[column]);
                v.w = scaled(v.w, w.w, inverse[column]);
            }
        }
    }

    __device__ __forceinline__ void run_chunk(uint32_t index, const chunk &v)
    {
#pragma unroll
        for (int tile = 0; tile < TILES; tile++) {
            if (tile * p.tile_rows >= pass.rows)
                break;
            const uint32_t rows = min(pass.rows - tile * p.tile_rows, p.tile_rows);
            uint4 w[RT_STREAM_PIECES][2];
            rt_stream_take(room.ring, turn,
                           {g * RT_STREAM_ROW_BYTES + 2 * mine, 8 * RT_STREAM_ROW_BYTES, g < rows,
                            g + 8 < rows, false},
                           mine + piece_at(index, 0), p.project.k, w);
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
                rt_stream_add(sum[tile][column], w, v[0][column], v[1][column]);
        }
    }

    __device__ __forceinline__ void run_chunks(chunk (&window)[WINDOW], uint32_t chunks)
    {
        for (uint32_t first = 0; first < chunks; first += WINDOW) {
#pragma unroll
            for (int i = 0; i < WINDOW; i++) {
                const uint32_t index = first + i;
                if (index >= chunks)
                    break;
                if (p.project.norm.weight)
                    scale_x(index, window[i]);
                run_chunk(index, window[i]);
                if (index + WINDOW < chunks)
                    load_x(index + WINDOW, window[i]);
            }
        }
    }

    /* Of a pass, 64 threads a vector: a thread has a row of a tile of 16, or none. */
    __device__ __forceinline__ bool find_row(uint32_t thread, uint32_t &row) const
    {
        const uint32_t of_tile = thread % RT_PROJECT_SM90_TILE_ROWS;
        row = thread % 64 / RT_PROJECT_SM90_TILE_ROWS * p.tile_rows + of_tile;
        return of_tile < p.tile_rows && row < pass.rows;
    }

    __device__ __forceinline__ float bias(void) const
    {
        uint32_t row;
        return find_row(threadIdx.x, row) ? rt_project_weight_row(p.project, pass.row + row).bias()
                                          : 0.0f;
    }

    /* Opaque: no address of what is behind the products is kept in a register through them. */
    __device__ __forceinline__ void finish_pass(uint32_t n, float bias)
    {
        const uint32_t thread = rt_opaque(threadIdx.x);
        uint32_t row;
        if (n > 0)
            rt_bar_sync(RT_PROJECT_BAR_ADDED, RT_STREAM_WORKERS);
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
            if (tile * p.tile_rows < pass.rows)
                rt_stream_put_sums<COLUMNS>(room.sums, p.project.m, p.sums_stride, thread, tile,
                                            sum[tile]);
        rt_bar_sync(RT_PROJECT_BAR_SUMS, RT_STREAM_WORKERS);
        if (find_row(thread, row))
            rt_project_add_sums(p, room.sums, thread, thread % 64, pass.z, pass.row + row, bias);
    }

    __device__ __forceinline__ void run_pass(uint32_t n)
    {
        const uint32_t chunks = rt_ceil_div_u32(p.project.k, RT_STREAM_CHUNK);
        const float first = bias(); /* of a row's sum: constant, as weights are */
        find_x();
#pragma unroll
        for (int tile = 0; tile < TILES; tile++)
#pragma unroll
            for (int column = 0; column < COLUMNS; column++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    sum[tile][column][e] = 0;
        if (n == 0) {
            rt_pdl_wait();
            rt_project_trigger(p, RT_PROJECT_TRIGGER_WAITED);
        }
        chunk window[WINDOW];
#pragma unroll
        for (int i = 0; i < WINDOW; i++)
            load_x(i, window[i]);
        if (p.project.norm.weight)
            find_norms(window, chunks);
        run_chunks(window, chunks);
        finish_pass(n, first);
    }

    __device__ __forceinline__ void run(void)
    {
        rt_project_passes<TILES> passes(p);
        uint32_t n = 0;
        while (passes.take(pass))
            run_pass(n++);
        if (n == 0)
            rt_pdl_wait(); /* a block without work: the grid must not end before this one */
    }
};

static __device__ __forceinline__ void rt_project_init(const struct rt_project_room &room)
{
    rt_stream_init(room.ring);
    rt_mbarrier_init(&room.desk.norm_full, 1);
    rt_mbarrier_init_fence();
}

template <int COLUMNS, int TILES>
static __device__ __forceinline__ void rt_project_along(const struct rt_project_sm90_params &p)
{
    extern __shared__ __align__(1024) unsigned char rt_sm90_shared[];
    const struct rt_project_room room(p, rt_sm90_shared);
    rt_project_trigger(p, RT_PROJECT_TRIGGER_FIRST);
    if (threadIdx.x == 0)
        rt_project_init(room);
    __syncthreads();
    /* A shuffle tells the compiler that a warp takes one branch. */
    const uint32_t warp = __shfl_sync(RT_PROJECT_FULL_WARP, threadIdx.x / 32, 0);
    if (warp >= RT_PROJECT_SM90_WARPS)
        rt_project_bringer<TILES>(p, room).run();
    else
        rt_project_worker<COLUMNS, TILES>(p, room, warp).run();
}

#endif
