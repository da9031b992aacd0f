/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_ATTEND_QUANT_CUH
#define RT_KERNELS_DEVICE_ATTEND_QUANT_CUH

/*
 * Keys of e4m3 (kernels/abi/quant.h) for the generic attend kernels: a SOURCE as
 * kernels/device/attend_keys.cuh has them, whose keys come into registers as they lie, and go from
 * there to shared memory as bf16.
 *
 * Eight threads have a key, and take its 16-byte vectors in turn: those of sixteen e4m3 first, then
 * those of eight bf16.
 *
 *   vector   0   1  …            F - 1 |  F   …            F = fp8 / 16
 *   thread   0   1  …  7  0  1  …      |  F % 8  …
 */
#include "kernels/device/attend_keys.cuh"
#include "kernels/device/quant_row.cuh"

#define RT_QUANT_THREADS (RT_ATTEND_GENERIC_THREADS / RT_ATTEND_GENERIC_KEYS)

/* A thread's share of a key; where there is no key all 0. */
template <int ROUNDS> struct rt_quant_share {
    uint4 vector[ROUNDS];
    float scale[ROUNDS];
};

template <int ROUNDS>
static __device__ __forceinline__ void
rt_quant_fetch(const struct rt_kv_view &kv, const struct rt_quant_view &q, uint32_t d_qk,
               const struct rt_page_row &at, uint32_t thread, struct rt_quant_share<ROUNDS> &share)
{
    const uint32_t fp8_vectors = q.fp8 / 16, vectors = fp8_vectors + (d_qk - q.fp8) / 8;
    const uint4 *row = row_address(kv, at);
    const unsigned char *scales = at.page + q.scale_offset_bytes + at.row * q.scale_stride_bytes;
    const uint4 *rest = row + q.rest_offset_bytes / sizeof(uint4);
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        const uint32_t v = i * RT_QUANT_THREADS + thread;
        share.vector[i] = make_uint4(0, 0, 0, 0);
        share.scale[i] = 0.0f;
        if (!at.page || v >= vectors)
            continue;
        if (v < fp8_vectors) {
            share.vector[i] = row[v];
            share.scale[i] = rt_quant_scale(q, scales, v * 16 / q.tile);
        } else {
            share.vector[i] = rest[v - fp8_vectors];
        }
    }
}

static __device__ __forceinline__ void rt_quant_put_16(uint16_t *to, const uint4 &v, float scale)
{
    uint4 *out = reinterpret_cast<uint4 *>(to);
    out[0] = rt_e4m3x8_bf16x8(v.x, v.y, scale);
    out[1] = rt_e4m3x8_bf16x8(v.z, v.w, scale);
}

/* The share as elements of the key's row in shared memory, [d_qk]. */
template <int ROUNDS>
static __device__ __forceinline__ void
rt_quant_put(const struct rt_quant_view &q, uint32_t d_qk, uint32_t thread,
             const struct rt_quant_share<ROUNDS> &share, uint16_t *to)
{
    const uint32_t fp8_vectors = q.fp8 / 16, vectors = fp8_vectors + (d_qk - q.fp8) / 8;
#pragma unroll
    for (int i = 0; i < ROUNDS; i++) {
        const uint32_t v = i * RT_QUANT_THREADS + thread;
        if (v < fp8_vectors)
            rt_quant_put_16(to + v * 16, share.vector[i], share.scale[i]);
        else if (v < vectors)
            *reinterpret_cast<uint4 *>(to + q.fp8 + (v - fp8_vectors) * 8) = share.vector[i];
    }
}

/* All keys of a row. */
struct rt_attend_quant_keys : rt_attend_row_keys {
    static constexpr bool CONVERTED = true;
    typedef struct rt_attend_quant_params params;

    static __device__ __forceinline__ const struct rt_attend_params &attend(const params &p)
    {
        return p.attend;
    }

    static __device__ __forceinline__ int find(const params &p, const struct rt_attend_walk &walk,
                                               const struct rt_attend_step &at, int key)
    {
        return rt_attend_row_keys::find(p.attend, walk, at, key);
    }

    template <int ROUNDS>
    static __device__ __forceinline__ bool fetch(const params &p, const struct rt_attend_walk &walk,
                                                 int page, int key, uint32_t thread,
                                                 struct rt_quant_share<ROUNDS> &share)
    {
        const struct rt_page_row at = page_row(p.attend, walk, page, key);
        rt_quant_fetch(p.attend.kv, p.quant, p.attend.d_qk, at, thread, share);
        return at.page != nullptr;
    }

    static __device__ __forceinline__ int64_t data_at(const params &p, int64_t row_base,
                                                      const struct rt_heads_view &view, int row,
                                                      int query)
    {
        return rt_attend_row_keys::data_at(p.attend, row_base, view, row, query);
    }
};

/* Those of a query token's lists. */
struct rt_attend_quant_listed_keys : rt_attend_listed_keys {
    static constexpr bool CONVERTED = true;
    typedef struct rt_sparse_attend_quant_params params;
    struct found {
        struct rt_page_row at;
        bool is_extra;
    };

    static __device__ __forceinline__ const struct rt_attend_params &attend(const params &p)
    {
        return p.sparse.attend;
    }

    static __device__ __forceinline__ struct found find(const params &p,
                                                        const struct rt_attend_walk &walk,
                                                        const struct rt_attend_step &at, int key)
    {
        struct found found = {};
        const struct rt_sparse_place place = locate(p.sparse, walk, at, key, found.is_extra);
        found.at.page = const_cast<unsigned char *>(place.page);
        found.at.row = place.row;
        return found;
    }

    template <int ROUNDS>
    static __device__ __forceinline__ bool fetch(const params &p, const struct rt_attend_walk &,
                                                 const struct found &found, int, uint32_t thread,
                                                 struct rt_quant_share<ROUNDS> &share)
    {
        const struct rt_kv_view &kv = found.is_extra ? p.sparse.extra_kv : p.sparse.attend.kv;
        const struct rt_quant_view &quant = found.is_extra ? p.extra_quant : p.quant;
        rt_quant_fetch(kv, quant, p.sparse.attend.d_qk, found.at, thread, share);
        return found.at.page != nullptr;
    }

    static __device__ __forceinline__ int64_t data_at(const params &p, int64_t row_base,
                                                      const struct rt_heads_view &view, int row,
                                                      int query)
    {
        return rt_attend_listed_keys::data_at(p.sparse, row_base, view, row, query);
    }
};

#endif
