/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_GENERIC_MLA_ATTEND_CUH
#define RT_KERNELS_GENERIC_MLA_ATTEND_CUH

/*
 * attend, for any GPU from sm_80 on. docs/mla_attend_generic.md draws it and says why it is so.
 *
 *   out = softmax(scale * q k^T, masked) v      v = the first D_V elements of k
 *
 * Which keys those are, SOURCE knows: a row's, or listed ones (kernels/device/attend_keys.cuh).
 * Where they are not bf16 as they lie, they are a step in registers, and kv(i + 1) is put into its
 * buffer between D and A, in front of the loads of kv(i + 2).
 *
 * Block (x, y): query rows [x * TILE_ROWS, ...) of every batch row of part y; eight warps. The
 * part's batch rows are walked as one stream of steps of 32 keys, so that the next batch row's keys
 * arrive while the last of this one are worked on.
 *
 *   step i   wait kv(i), q   A   scores   B   softmax   C   out += p v   D   load kv(i + 2)
 *                                         '- load q of the next batch row, at a row's last step
 *
 *   barrier    makes visible                                   and frees
 *   A          kv(i) and q, copied by every thread             -
 *   B          scores of all warps                             q, where the batch row ends
 *   C          probabilities, rescale factors                  -
 *   D          -                                               buffer i % 2, scores, probabilities
 *
 *   work of a warp    scores: a 16-row tile times 8 or 16 keys, over all or half of D_QK
 *                     softmax: TILE_ROWS / 8 rows
 *                     out: all rows, D_V / 8 columns, in TILE_ROWS * D_V / 256 registers per thread
 */
#include "kernels/abi/attend.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/device/attend_keys.cuh"
#include "kernels/device/attend_quant.cuh"
#include "kernels/device/ptx/convert.cuh"
#include "kernels/device/ptx/cp_async.cuh"
#include "kernels/device/ptx/ldmatrix.cuh"
#include "kernels/device/ptx/mma.cuh"
#include "kernels/device/ptx/opaque.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/settle.cuh"
#include "kernels/device/ptx/timer.cuh"
#include "kernels/generic/attend_leaf.cuh"
#include "kernels/generic/attend_words.cuh"

#define RT_ATTEND_LOG2_E 1.4426950408889634f
#define RT_ATTEND_LN_2 0.6931471805599453f
#define RT_ATTEND_INFINITY __builtin_huge_valf()

template <int D_QK, int D_V, int TILE_ROWS, class SOURCE, bool FOLD = false>
struct rt_attend_block {
    static constexpr int THREADS = RT_ATTEND_GENERIC_THREADS;
    static constexpr int WARPS = RT_ATTEND_GENERIC_WARPS;
    static constexpr int KEYS = RT_ATTEND_GENERIC_KEYS;
    static constexpr int STRIDE = RT_ATTEND_GENERIC_STRIDE(D_QK);
    static constexpr int SCORE_STRIDE = RT_ATTEND_GENERIC_SCORE_STRIDE;
    static constexpr int ROW_TILES = TILE_ROWS / 16;
    static constexpr int CHUNKS = D_QK / 8; /* of 16 bytes, in a row of q or kv */
    /* Eight threads copy one row, in 128-byte runs. */
    static constexpr int COPY_THREADS = THREADS / KEYS;
    static constexpr int COPIES = (CHUNKS + COPY_THREADS - 1) / COPY_THREADS;
    /* Scores: ROW_TILES x KEY_GROUPS x SPLITS = 8 warps; SPLITS of them share the sum over D_QK. */
    static constexpr int SPLITS = RT_ATTEND_GENERIC_SCORE_COPIES(TILE_ROWS);
    static constexpr int KEY_GROUPS = WARPS / ROW_TILES / SPLITS;
    static constexpr int KEY_TILES = KEYS / 8 / KEY_GROUPS;
    static constexpr int DEPTH_STEPS = D_QK / 16 / SPLITS;
    /* Softmax: ROW_THREADS neighbours share a query row. */
    static constexpr int ROW_THREADS = THREADS / TILE_ROWS;
    static constexpr int ROW_KEYS = KEYS / ROW_THREADS;
    /* Output: a warp owns OUT_COLUMNS columns of all rows. */
    static constexpr int OUT_COLUMNS = D_V / WARPS;
    static constexpr int OUT_TILES = OUT_COLUMNS / 8;

    static_assert(TILE_ROWS == 16 || TILE_ROWS == 32 || TILE_ROWS == 64, "tile rows");
    static_assert(D_QK % (16 * SPLITS) == 0 && D_V % (16 * WARPS) == 0, "geometry");
    static_assert(KEYS * 2 == RT_BLOCK_TOKENS, "a schedule block is a whole number of steps");
    static_assert(KEY_TILES == 1 || KEY_TILES == 2, "key tiles of a warp");
    static_assert(STRIDE * 2 % 32 == 16, "eight rows of one column lie in eight bank groups");

    typedef typename SOURCE::params params;

    struct alignas(16) smem : SOURCE::marks, rt_attend_fold_desk<TILE_ROWS, FOLD> {
        uint16_t q[TILE_ROWS][STRIDE];
        uint16_t kv[RT_ATTEND_GENERIC_BUFFERS][KEYS][STRIDE];
        /* A row of probabilities lies on the same row's first scores: one warp turns them over. */
        union {
            float score[SPLITS][TILE_ROWS][SCORE_STRIDE];
            uint16_t probability[TILE_ROWS][2 * SCORE_STRIDE];
        };
        float factor[TILE_ROWS];  /* what the step multiplies the row's output by */
        float inverse[TILE_ROWS]; /* of the row's sum, at its last step */
        int limit[TILE_ROWS];     /* keys below it are seen by the row */
        struct rt_attend_walk walk;
    };
    static_assert(sizeof(smem) - (FOLD ? sizeof(rt_attend_fold_desk<TILE_ROWS, FOLD>) : 0) ==
                      SOURCE::smem_bytes(RT_ATTEND_GENERIC_SMEM_BYTES(TILE_ROWS, D_QK)),
                  "shared memory formula");

    const params &all;
    const struct rt_attend_params &p;
    smem &s;
    uint32_t thread, warp, lane;
    /* Of a source that converts: this thread's share of the keys on their way. */
    static constexpr int SHARES = SOURCE::CONVERTED ? (D_V / 16 + 15) / COPY_THREADS : 1;
    struct rt_quant_share<SHARES> share;
    /* Softmax of this thread's query row: the maximum is the row's, the sum is of its own keys. */
    float row_max, row_sum;
    float out[ROW_TILES][OUT_TILES][4];
    /* Batch-invariant: a group's leaves up to now, and of a thread's query row their sum. */
    float folded[FOLD ? ROW_TILES : 1][OUT_TILES][4];
    struct rt_fold fold;

    __device__ __forceinline__ rt_attend_block(const params &given, smem &shared)
        : all(given), p(SOURCE::attend(given)), s(shared), thread(threadIdx.x),
          warp(threadIdx.x / 32), lane(threadIdx.x % 32)
    {
    }

    /* Of the block. What has been derived from the thread's index so far, addresses above all, is
     * not worth its registers beyond it. */
    __device__ __forceinline__ void barrier(void)
    {
        __syncthreads();
        thread = rt_opaque(thread);
        warp = thread / 32;
        lane = thread % 32;
    }

    /* Of a batch row. */
    __device__ __forceinline__ int query_rows(void) const
    {
        return (int)(p.rows.q_len * p.heads);
    }

    /* Of the tile. */
    __device__ __forceinline__ int first_query(void) const
    {
        return (int)blockIdx.x * TILE_ROWS;
    }

    __device__ __forceinline__ const struct rt_attend_step &step(int i) const
    {
        return s.walk.step[i % RT_ATTEND_GENERIC_STEPS];
    }

    /* ---- loads ---- */

    /* The key that this thread copies. Asked for well before use. */
    __device__ __forceinline__ typename SOURCE::found
    find_key(const struct rt_attend_step &at) const
    {
        return SOURCE::find(all, s.walk, at, at.key + (int)(thread / COPY_THREADS));
    }

    /* Rows without a key become zeros: what is left there may be NaN, and 0 * NaN is NaN. */
    __device__ __forceinline__ void load_kv(int buffer, const struct rt_attend_step &at,
                                            typename SOURCE::found found)
    {
        if (at.row == RT_ATTEND_NONE)
            return;
        const uint32_t slot = thread / COPY_THREADS;
        bool there;
        if constexpr (SOURCE::CONVERTED) {
            there =
                SOURCE::fetch(all, s.walk, found, at.key + (int)slot, thread % COPY_THREADS, share);
        } else {
            const unsigned char *key = SOURCE::place(all, s.walk, found, at.key + (int)slot);
            const uint16_t *from = (const uint16_t *)(key ? key : p.kv.base);
            there = key != nullptr;
            copy_row(s.kv[buffer][slot], from, from + D_V, there);
        }
        if (thread % COPY_THREADS == 0)
            SOURCE::mark(s, buffer, slot, there);
    }

    /* What has been loaded last is there, of a step that there is, once all threads were here. */
    __device__ __forceinline__ void put_kv(int buffer, const struct rt_attend_step &at)
    {
        if constexpr (SOURCE::CONVERTED) {
            if (at.row != RT_ATTEND_NONE)
                rt_quant_put(all.quant, D_QK, thread % COPY_THREADS, share,
                             s.kv[buffer][thread / COPY_THREADS]);
        }
    }

    __device__ __forceinline__ void load_q(int row)
    {
        for (uint32_t tile_row = thread / COPY_THREADS; tile_row < TILE_ROWS; tile_row += KEYS) {
            const int query = first_query() + (int)tile_row;
            const bool valid = query < query_rows();
            const uint16_t *from = (const uint16_t *)p.q.base, *rope = from;
            if (valid)
                from = find_q(p.q, row, query);
            if (D_QK > D_V && valid)
                rope = p.q_rope.base ? find_q(p.q_rope, row, query) : from + D_V;
            copy_row(s.q[tile_row], from, rope, valid);
        }
    }

    __device__ __forceinline__ const uint16_t *find_q(const struct rt_heads_view &view, int row,
                                                      int query) const
    {
        return (const uint16_t *)view.base +
               SOURCE::data_at(all, s.walk.part.row_base, view, row, query);
    }

    /* D_V elements from one place, what is behind them from another. */
    __device__ __forceinline__ void copy_row(uint16_t *to, const uint16_t *from,
                                             const uint16_t *rope, bool valid) const
    {
        static_assert(D_V / 8 % COPY_THREADS == 0, "a round is of one place");
#pragma unroll
        for (int i = 0; i < COPIES; i++) {
            const uint32_t chunk = i * COPY_THREADS + thread % COPY_THREADS;
            const uint16_t *at =
                i * COPY_THREADS * 8 < D_V ? from + chunk * 8 : rope + (chunk * 8 - D_V);
            if (CHUNKS % COPY_THREADS == 0 || chunk < CHUNKS)
                rt_cp_async_16(to + chunk * 8, at, valid);
        }
    }

    /* ---- one step ---- */

    /* This warp's piece of q k^T. Two accumulators keep two chains of products in flight: two tiles
     * of keys where the warp has them, else the even and the odd steps of the sum. */
    __device__ __forceinline__ void scores(int buffer)
    {
        const uint32_t row = warp % ROW_TILES * 16;
        const uint32_t key = warp / ROW_TILES % KEY_GROUPS * (KEY_TILES * 8);
        const uint32_t split = warp / (ROW_TILES * KEY_GROUPS);
        const uint16_t *a_row = &s.q[row + lane % 16][split * DEPTH_STEPS * 16 + lane / 16 * 8];
        const uint32_t b_key = key + lane % 8 + (KEY_TILES == 2 ? lane / 16 * 8 : 0);
        const uint16_t *b_row = &s.kv[buffer][b_key][split * DEPTH_STEPS * 16 + lane / 8 % 2 * 8];
        float sum[2][4] = {};
#pragma unroll
        for (int i = 0; i < DEPTH_STEPS; i++) {
            uint32_t a[4];
            rt_ldmatrix_x4(a, a_row + i * 16);
            if constexpr (KEY_TILES == 2) {
                uint32_t b[4];
                rt_ldmatrix_x4(b, b_row + i * 16);
                rt_mma_bf16_16x8x16(sum[0], a, b[0], b[1]);
                rt_mma_bf16_16x8x16(sum[1], a, b[2], b[3]);
            } else {
                uint32_t b[2];
                rt_ldmatrix_x2(b, b_row + i * 16);
                rt_mma_bf16_16x8x16(sum[i % 2], a, b[0], b[1]);
            }
        }
        if constexpr (KEY_TILES == 1) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                sum[0][i] += sum[1][i];
        }
        float *to = &s.score[split][row + lane / 4][key + lane % 4 * 2];
#pragma unroll
        for (int tile = 0; tile < KEY_TILES; tile++) {
            *(float2 *)(to + tile * 8) = make_float2(sum[tile][0], sum[tile][1]);
            *(float2 *)(to + 8 * SCORE_STRIDE + tile * 8) = make_float2(sum[tile][2], sum[tile][3]);
        }
    }

    /* Scores -> probabilities relative to the running maximum, in the log2 domain. A row that has
     * seen no key yet has maximum -inf; 0 takes its place in the exponents, so that they are
     * 2^-inf = 0 and not NaN. fmaxf drops NaN, the exponents keep it: it stays in its own row. */
    __device__ __forceinline__ void softmax(int buffer, const struct rt_attend_step &at, bool last)
    {
        const int row = (int)(thread / ROW_THREADS);
        const int first_key = (int)(thread % ROW_THREADS * ROW_KEYS);
        const int query = first_query() + row;
        const int limit = s.limit[row];
        const float scale_log2 = p.scale * RT_ATTEND_LOG2_E;
        float x[ROW_KEYS];
        float top = row_max;
#pragma unroll
        for (int i = 0; i < ROW_KEYS; i += 2) {
            float2 pair = *(const float2 *)&s.score[0][row][first_key + i];
            if constexpr (SPLITS == 2) {
                const float2 other = *(const float2 *)&s.score[1][row][first_key + i];
                pair = make_float2(pair.x + other.x, pair.y + other.y);
            }
            const int key = at.key + first_key + i;
            const bool is_key[2] = {SOURCE::is_key(s, buffer, first_key + i),
                                    SOURCE::is_key(s, buffer, first_key + i + 1)};
            x[i] = key < limit && is_key[0] ? pair.x * scale_log2 : -RT_ATTEND_INFINITY;
            x[i + 1] = key + 1 < limit && is_key[1] ? pair.y * scale_log2 : -RT_ATTEND_INFINITY;
            top = fmaxf(top, fmaxf(x[i], x[i + 1]));
        }
#pragma unroll
        for (int distance = ROW_THREADS / 2; distance > 0; distance /= 2)
            top = fmaxf(top, __shfl_xor_sync(RT_ATTEND_FULL_WARP, top, distance));
        const float base = top == -RT_ATTEND_INFINITY ? 0.0f : top;
        const float factor = exp2f(row_max - base);
        row_max = top;
        row_sum *= factor;
        /* All lanes have read their scores before any row is overwritten. */
        __syncwarp();
#pragma unroll
        for (int i = 0; i < ROW_KEYS; i += 2) {
            const float low = exp2f(x[i] - base);
            const float high = exp2f(x[i + 1] - base);
            row_sum += low + high;
            *(uint32_t *)&s.probability[row][first_key + i] = rt_pack_bf16x2(low, high);
        }
        if (thread % ROW_THREADS == 0)
            s.factor[row] = factor;
        if (last)
            finish_row(at, row, query);
    }

    __device__ __forceinline__ rt_attend_piece piece_of(const struct rt_attend_step &at) const
    {
        const int32_t *splits = p.schedule.num_splits + at.row;
        return FOLD ? rt_attend_piece_of(p.schedule.invariant, at.length, at.key, splits[0],
                                         splits[1])
                    : rt_attend_piece{split_slot(at.row), true, true, true};
    }

    /* The sum's inverse for the output, and the log of it all for the caller or for reduce. */
    __device__ __forceinline__ void finish_row(const struct rt_attend_step &at, int row, int query)
    {
        float sum = row_sum;
#pragma unroll
        for (int distance = ROW_THREADS / 2; distance > 0; distance /= 2)
            sum += __shfl_xor_sync(RT_ATTEND_FULL_WARP, sum, distance);
        if (thread % ROW_THREADS != 0)
            return;
        const bool empty = sum == 0.0f, there = query < query_rows();
        const int head = query % (int)p.heads;
        const struct rt_attend_piece piece = piece_of(at);
        const float lse_log2 = log2f(sum) + row_max;
        float of_piece = empty ? -RT_ATTEND_INFINITY : lse_log2;
        float of_row =
            empty ? RT_ATTEND_INFINITY : lse_log2 * (p.lse_base2 ? 1.0f : RT_ATTEND_LN_2);
        if (p.sink && piece.is_leaf && piece.slot < 0 && there) /* of pieces it is reduce's */
            sum += exp2f(p.sink[head] * RT_ATTEND_LOG2_E - row_max);
        s.inverse[row] = empty ? 0.0f : 1.0f / sum;
        if constexpr (FOLD)
            if (!piece.is_leaf) {
                const struct rt_fold whole =
                    rt_attend_fold_leaf(s, fold, piece, row, of_piece, p.sink, head);
                of_piece = rt_fold_lse(fold);
                of_row = rt_fold_row_lse(whole, p.lse_base2);
            }
        if (!there || !(piece.is_leaf || piece.closes))
            return;
        if (piece.slot >= 0)
            p.partials.lse[(int64_t)piece.slot * query_rows() + query] = of_piece;
        else
            ((float *)
                 p.lse.base)[SOURCE::data_at(all, s.walk.part.row_base, p.lse, at.row, query)] =
                of_row;
    }

    /* The leaf's output, behind its last step. The group's is in `out` where it ends. */
    __device__ __forceinline__ void fold_out(const struct rt_attend_piece &piece)
    {
        if (piece.is_leaf)
            return;
#pragma unroll
        for (int half = 0; half < 2 * ROW_TILES; half++) {
            const int row = half * 8 + (int)(lane / 4);
            const struct rt_fold_step step = s.leaf_step[row];
            const float inverse = s.inverse[row];
#pragma unroll
            for (int i = 0; i < 2 * OUT_TILES; i++) {
                float *x = &out[half / 2][i / 2][half % 2 * 2 + i % 2];
                float *sum = &folded[half / 2][i / 2][half % 2 * 2 + i % 2];
                *sum = rt_fold_number(piece.opens ? 0.0f : *sum, step, rt_fold_scaled(*x, inverse));
                if (piece.closes)
                    *x = rt_attend_fold_end(s, row, *sum, piece.slot);
            }
        }
    }

    /* Partial slot of this part's piece of the batch row; -1 where the row is not split. */
    __device__ __forceinline__ int split_slot(int row) const
    {
        const int slot = p.schedule.num_splits[row];
        if (p.schedule.num_splits[row + 1] <= slot)
            return -1;
        return slot + (row == s.walk.part.begin_row ? s.walk.part.begin_split : 0);
    }

    /*
     * out = factor * out + p v, for this warp's columns. Keys that only the later tokens of the
     * tile see must not touch the earlier ones, and p = 0 is not enough where v is not finite. So
     * the matrix product sees zeros for every key from the first token's limit on (`shared_end`),
     * and those keys, fewer than q_len in a whole batch row, are added one by one to the rows that
     * see them.
     */
    __device__ __forceinline__ void add_values(int buffer, const struct rt_attend_step &at)
    {
        const uint32_t column = warp * OUT_COLUMNS;
        const int shared_end = rt_attend_key_limit(p, at.length, s.walk.part.first_token);
        rescale();
#pragma unroll
        for (int depth = 0; depth < KEYS; depth += 16) {
            uint32_t a[ROW_TILES][4];
#pragma unroll
            for (int tile = 0; tile < ROW_TILES; tile++)
                rt_ldmatrix_x4(a[tile],
                               &s.probability[tile * 16 + lane % 16][depth + lane / 16 * 8]);
            const int key = at.key + depth + (int)(lane % 4 * 2);
            const uint32_t mask[2] = {seen_mask(key, shared_end), seen_mask(key + 8, shared_end)};
#pragma unroll
            for (int n = 0; n < OUT_TILES; n += 2) {
                uint32_t b[4];
                rt_ldmatrix_x4_trans(
                    b, &s.kv[buffer][depth + lane % 16][column + n * 8 + lane / 16 * 8]);
#pragma unroll
                for (int tile = 0; tile < ROW_TILES; tile++) {
                    rt_mma_bf16_16x8x16(out[tile][n], a[tile], b[0] & mask[0], b[1] & mask[1]);
                    rt_mma_bf16_16x8x16(out[tile][n + 1], a[tile], b[2] & mask[0], b[3] & mask[1]);
                }
            }
        }
        const int end = min(at.end, at.key + KEYS);
        for (int key = max(at.key, shared_end); key < end; key++)
            add_one_key(buffer, key - at.key, key);
    }

    /* Bits of a pair of keys that are below `end`. */
    static __device__ __forceinline__ uint32_t seen_mask(int key, int end)
    {
        return (key < end ? 0x0000ffffu : 0u) | (key + 1 < end ? 0xffff0000u : 0u);
    }

    /* Most steps leave every maximum where it was: then there is nothing to multiply. */
    __device__ __forceinline__ void rescale(void)
    {
#pragma unroll
        for (int tile = 0; tile < ROW_TILES; tile++) {
            const float upper = s.factor[tile * 16 + lane / 4];
            const float lower = s.factor[tile * 16 + lane / 4 + 8];
            if (!__any_sync(RT_ATTEND_FULL_WARP, upper != 1.0f || lower != 1.0f))
                continue;
#pragma unroll
            for (int n = 0; n < OUT_TILES; n++) {
                out[tile][n][0] *= upper;
                out[tile][n][1] *= upper;
                out[tile][n][2] *= lower;
                out[tile][n][3] *= lower;
            }
        }
    }

    __device__ __forceinline__ void add_one_key(int buffer, int slot, int key)
    {
        const uint16_t *value = &s.kv[buffer][slot][warp * OUT_COLUMNS + lane % 4 * 2];
#pragma unroll
        for (int half = 0; half < 2 * ROW_TILES; half++) {
            const uint32_t row = half * 8 + lane / 4;
            if (key >= s.limit[row])
                continue;
            const float weight = __uint_as_float((uint32_t)s.probability[row][slot] << 16);
#pragma unroll
            for (int n = 0; n < OUT_TILES; n++) {
                const uint32_t pair = *(const uint32_t *)(value + n * 8);
                float *to = &out[half / 2][n][half % 2 * 2];
                to[0] = fmaf(weight, __uint_as_float(pair << 16), to[0]);
                to[1] = fmaf(weight, __uint_as_float(pair & 0xffff0000u), to[1]);
            }
        }
    }

    /* ---- the end of a batch row ---- */

    /* is_done: out is to be stored as it is, else multiplied by the row's inverse. */
    __device__ __forceinline__ void store_out(int row, int slot, bool is_done) const
    {
        const uint32_t column = warp * OUT_COLUMNS + lane % 4 * 2;
#pragma unroll
        for (int half = 0; half < 2 * ROW_TILES; half++) {
            const int tile_row = half * 8 + (int)(lane / 4);
            const int query = first_query() + tile_row;
            const bool there = query < query_rows();
            const float inverse = is_done ? 1.0f : s.inverse[tile_row];
            const float(*from)[4] = out[half / 2];
            const int at = half % 2 * 2;
            if (slot >= 0) {
                store_piece(slot, query, there, from, at, inverse);
                continue;
            }
            if (!there)
                continue;
            uint16_t *to = (uint16_t *)p.out.base +
                           SOURCE::data_at(all, s.walk.part.row_base, p.out, row, query) + column;
#pragma unroll
            for (int n = 0; n < OUT_TILES; n++)
                *(uint32_t *)(to + n * 8) =
                    rt_pack_bf16x2(rt_attend_scaled(from[n][at], inverse),
                                   rt_attend_scaled(from[n][at + 1], inverse));
        }
    }

    __device__ __forceinline__ void store_piece(int slot, int query, bool there,
                                                const float (*from)[4], int at, float inverse) const
    {
        if constexpr (FOLD) {
            float *to = p.partials.out + ((int64_t)slot * query_rows() + query) * D_V +
                        warp * OUT_COLUMNS + lane % 4 * 2;
            if (there)
#pragma unroll
                for (int n = 0; n < OUT_TILES; n++)
                    *(float2 *)(to + n * 8) =
                        make_float2(rt_attend_scaled(from[n][at], inverse),
                                    rt_attend_scaled(from[n][at + 1], inverse));
        } else {
            rt_attend_store_words<OUT_TILES>(
                rt_piece_row(p.partials, slot, query_rows(), query, D_V) + warp * OUT_COLUMNS +
                    lane % 4 * 8,
                rt_piece_rest(query_rows(), D_V), there, from, at, inverse);
        }
    }

    /* Nothing summed up yet, and what each query row sees of the batch row that comes. */
    __device__ __forceinline__ void begin_row(const struct rt_attend_step &at)
    {
        if (thread < TILE_ROWS) {
            const int query = first_query() + (int)thread;
            const int token = query / (int)p.heads;
            s.limit[thread] = query < query_rows() ? rt_attend_key_limit(p, at.length, token) : 0;
        }
        row_max = -RT_ATTEND_INFINITY;
        row_sum = 0.0f;
#pragma unroll
        for (int tile = 0; tile < ROW_TILES; tile++)
#pragma unroll
            for (int n = 0; n < OUT_TILES; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    out[tile][n][i] = 0.0f;
    }

    /* The last step of a batch row's piece, or of a leaf of it, is done. */
    __device__ __forceinline__ void end_piece(const struct rt_attend_step &at)
    {
        const struct rt_attend_piece piece = piece_of(at);
        if constexpr (FOLD)
            fold_out(piece);
        if (piece.is_leaf || piece.closes)
            store_out(at.row, piece.slot, FOLD && !piece.is_leaf);
    }

    /* ---- the timeline ---- */

    __device__ __forceinline__ void run(void)
    {
        const int last_query = /* tiles fold all leaves, also those of which they see no key */
            FOLD ? query_rows() - 1 : min(first_query() + TILE_ROWS, query_rows()) - 1;
        if (warp == 0)
            rt_attend_begin_walk<FOLD>(p, s.walk, first_query(), last_query, (int)lane);
        barrier(); /* the walk's first steps */
        if (step(0).row == RT_ATTEND_NONE)
            return;
        load_q(step(0).row);
        load_kv(0, step(0), find_key(step(0)));
        put_kv(0, step(0));
        rt_cp_async_commit();
        load_kv(1, step(1), find_key(step(1)));
        rt_cp_async_commit();
        begin_row(step(0));
        for (int i = 0; step(i).row != RT_ATTEND_NONE; i++) {
            /* All but the newest group: kv of this step, and q that was asked for before it. */
            rt_cp_async_wait<1>();
            barrier(); /* A */
            if (warp == 0)
                rt_attend_continue_walk<FOLD>(p, s.walk, i, (int)lane);
            scores(i % 2);
            barrier(); /* B */
            const bool row_ends = step(i + 1).row != step(i).row;
            const bool last = row_ends || (FOLD && step(i + 1).end != step(i).end);
            if (row_ends && step(i + 1).row != RT_ATTEND_NONE)
                load_q(step(i + 1).row);
            rt_cp_async_commit();
            const typename SOURCE::found found = find_key(step(i + 2));
            softmax(i % 2, step(i), last);
            barrier(); /* C */
            add_values(i % 2, step(i));
            barrier(); /* D */
            put_kv((i + 1) % 2, step(i + 1));
            load_kv(i % 2, step(i + 2), found);
            rt_cp_async_commit();
            if (last) {
                end_piece(step(i));
                begin_row(step(i + 1));
            }
        }
    }
};

#endif
