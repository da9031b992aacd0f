/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_SOURCE_CUH
#define RT_KERNELS_SM90_ATTEND_SOURCE_CUH

/*
 * Which keys a row attends to, for the sm_90 attend kernels, and what a row is: a batch row with
 * all keys of its pages, or a query token with those of its lists.
 *
 *   params   of the kernel; attend() is the part that both have
 *   LISTED   rows are tokens, one query token each; marks say which keys of a stage there are
 *   row_at   where a row begins in a tensor of heads, in elements
 *   in_map   its number in the maps of q
 */
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/sparse_sm90.h"

struct rt_sm90_row_keys {
    typedef struct rt_attend_sm90_params params;
    static constexpr bool LISTED = false;
    template <int STAGES> struct marks {
    };

    static __device__ __forceinline__ const struct rt_attend_params &attend(const params &p)
    {
        return p.attend;
    }

    static __device__ __forceinline__ int64_t in_map(const params &p, int row)
    {
        return (p.attend.rows.ctrl ? (int64_t)p.attend.rows.ctrl->row_base : 0) + row;
    }

    static __device__ __forceinline__ int64_t row_at(const params &p,
                                                     const struct rt_heads_view &view, int row)
    {
        return in_map(p, row) * view.row_stride;
    }
};

struct rt_sm90_listed_keys {
    typedef struct rt_sparse_sm90_params params;
    static constexpr bool LISTED = true;
    template <int STAGES> struct marks {
        /* Of the stage's 64 keys, a bit each and 16 a gathering warp: whether there is one. */
        alignas(8) uint16_t listed[STAGES][4];
    };

    static __device__ __forceinline__ const struct rt_attend_params &attend(const params &p)
    {
        return p.sparse.attend;
    }

    static __device__ __forceinline__ int64_t row_base(const params &p)
    {
        return p.sparse.attend.rows.ctrl ? (int64_t)p.sparse.attend.rows.ctrl->row_base : 0;
    }

    static __device__ __forceinline__ int64_t in_map(const params &p, int row)
    {
        return row_base(p) * p.sparse.q_len + row;
    }

    static __device__ __forceinline__ int64_t row_at(const params &p,
                                                     const struct rt_heads_view &view, int row)
    {
        const int of_row = row / (int)p.sparse.q_len;
        return (row_base(p) + of_row) * view.row_stride +
               (row - of_row * (int)p.sparse.q_len) * view.token_stride;
    }
};

#endif
