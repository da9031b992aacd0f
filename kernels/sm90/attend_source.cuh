/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_SOURCE_CUH
#define RT_KERNELS_SM90_ATTEND_SOURCE_CUH

/*
 * Which keys a row attends to, for the sm_90 attend kernels, and what a row is: a batch row with
 * all keys of its pages, or a query token with those of its lists.
 *
 *   params   of the kernel; attend() is the part that both have
 *   LISTED   rows are tokens, one query token each; marks say which keys of a stage there are
 *   BY       how keys come into a stage
 *   F16      values are f16 there (kernels/sm90/attend_units.cuh), else bf16
 *   SCALES   which caches of e4m3 the kernel is for
 *   row_at   where a row begins in a tensor of heads, in elements
 *   in_map   its number in the maps of q
 */
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/quant_sm90.h"
#include "kernels/abi/sparse_sm90.h"

enum rt_sm90_by {
    RT_SM90_BY_BOXES,     /* the copy engine's, which one thread asks for */
    RT_SM90_BY_COPIES,    /* of threads, which run behind their backs */
    RT_SM90_BY_CONVERSION /* through threads' registers */
};

/* A loading warp's keys in a stage's marks, WARP_KEYS of them: `there` has a bit each. */
template <int WARP_KEYS>
static __device__ __forceinline__ void rt_sm90_list(uint8_t (&listed)[8], uint32_t warp,
                                                    uint32_t there)
{
    static_assert(WARP_KEYS == 8 || WARP_KEYS == 16, "whole bytes");
    if constexpr (WARP_KEYS == 16)
        *(uint16_t *)&listed[2 * warp] = (uint16_t)there;
    else
        listed[warp] = (uint8_t)there;
}

struct rt_sm90_row_keys {
    typedef struct rt_attend_sm90_params params;
    static constexpr bool LISTED = false;
    static constexpr enum rt_sm90_by BY = RT_SM90_BY_BOXES;
    static constexpr bool F16 = false;
    static constexpr enum rt_attend_scales SCALES = RT_ATTEND_SCALES_any;
    template <int STAGES> struct marks {
    };

    template <class P>
    static __device__ __forceinline__ const struct rt_attend_params &attend(const P &p)
    {
        return p.attend;
    }

    template <class P> static __device__ __forceinline__ int64_t in_map(const P &p, int row)
    {
        return (p.attend.rows.ctrl ? (int64_t)p.attend.rows.ctrl->row_base : 0) + row;
    }

    template <class P>
    static __device__ __forceinline__ int64_t row_at(const P &p, const struct rt_heads_view &view,
                                                     int row)
    {
        return in_map(p, row) * view.row_stride;
    }
};

struct rt_sm90_listed_keys {
    typedef struct rt_sparse_sm90_params params;
    static constexpr bool LISTED = true;
    static constexpr enum rt_sm90_by BY = RT_SM90_BY_COPIES;
    static constexpr bool F16 = false;
    static constexpr enum rt_attend_scales SCALES = RT_ATTEND_SCALES_any;
    template <int STAGES> struct marks {
        /* Of the stage's 64 keys, a bit each: whether there is one. */
        alignas(8) uint8_t listed[STAGES][8];
    };

    template <class P>
    static __device__ __forceinline__ const struct rt_attend_params &attend(const P &p)
    {
        return p.sparse.attend;
    }

    template <class P> static __device__ __forceinline__ int64_t row_base(const P &p)
    {
        return p.sparse.attend.rows.ctrl ? (int64_t)p.sparse.attend.rows.ctrl->row_base : 0;
    }

    template <class P> static __device__ __forceinline__ int64_t in_map(const P &p, int row)
    {
        return row_base(p) * p.sparse.q_len + row;
    }

    template <class P>
    static __device__ __forceinline__ int64_t row_at(const P &p, const struct rt_heads_view &view,
                                                     int row)
    {
        const int of_row = row / (int)p.sparse.q_len;
        return (row_base(p) + of_row) * view.row_stride +
               (row - of_row * (int)p.sparse.q_len) * view.token_stride;
    }
};

/* Likewise of e4m3. */
template <enum rt_attend_scales SCALES_> struct rt_sm90_quant_row_keys_of : rt_sm90_row_keys {
    typedef struct rt_attend_quant_sm90_params params;
    static constexpr enum rt_sm90_by BY = RT_SM90_BY_CONVERSION;
    static constexpr bool F16 = true;
    static constexpr enum rt_attend_scales SCALES = SCALES_;
};
typedef rt_sm90_quant_row_keys_of<RT_ATTEND_SCALES_any> rt_sm90_quant_row_keys;

struct rt_sm90_quant_listed_keys : rt_sm90_listed_keys {
    typedef struct rt_sparse_quant_sm90_params params;
    static constexpr enum rt_sm90_by BY = RT_SM90_BY_CONVERSION;
    static constexpr bool F16 = true;
};

/* ---- what is the same for all keys of a cache of e4m3, and known before where SCALES says so ----
 */

/* No key has scales of its own. */
template <class KEYS>
static __device__ __forceinline__ bool rt_sm90_by_tensor(const struct rt_quant_view &quant)
{
    return KEYS::SCALES != RT_ATTEND_SCALES_tiles && quant.scale_kind == RT_QUANT_SCALE_TENSOR;
}

/* Values have scales of several tiles. */
template <class KEYS>
static __device__ __forceinline__ bool rt_sm90_has_tiles(const struct rt_quant_view &quant,
                                                         uint32_t d_v)
{
    if constexpr (KEYS::SCALES != RT_ATTEND_SCALES_any)
        return KEYS::SCALES == RT_ATTEND_SCALES_tiles;
    return quant.scale_kind != RT_QUANT_SCALE_TENSOR && quant.tile < d_v;
}

/* What is behind e4m3 in a row of d_qk. */
template <class KEYS>
static __device__ __forceinline__ bool rt_sm90_rest_is_bf16(const struct rt_quant_view &quant,
                                                            uint32_t d_qk)
{
    return KEYS::SCALES == RT_ATTEND_SCALES_tiles || quant.fp8 < d_qk;
}

#endif
