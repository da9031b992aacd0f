/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_LISTS_CUH
#define RT_KERNELS_SM90_ATTEND_LISTS_CUH

/* The lists of sparse attention, as the sm_90 kernels' loading warps read them. */
#include "kernels/device/attend_walk.cuh"
#include "kernels/sm90/attend_source.cuh"

/* One token's lists, entry `key` of them, and where that leads. */
struct rt_sm90_lists {
    const struct rt_sparse_attend_params &p;
    uint32_t token;   /* counted from the lists' beginning */
    uint32_t of_keys; /* entries of the first list, where there is a second */
    int line, end;

    explicit __device__ __forceinline__ rt_sm90_lists(const struct rt_sparse_attend_params &p_)
        : p(p_), token(0), of_keys(UINT32_MAX), line(-1), end(0)
    {
    }

    __device__ __forceinline__ void begin(int64_t row_base, const struct rt_attend_step &at)
    {
        const int row = at.row / (int)p.q_len;
        token = (uint32_t)row_base * p.q_len + (uint32_t)at.row;
        line = p.slot ? p.slot[row] : row;
        end = at.end;
        if (p.extra.index)
            of_keys = rt_sparse_count(&p.keys, token);
    }

    /* What begin has found, in another place than registers. */
    __device__ __forceinline__ void keep(uint32_t (&words)[4]) const
    {
        words[0] = token;
        words[1] = of_keys;
        words[2] = (uint32_t)line;
        words[3] = (uint32_t)end;
    }

    __device__ __forceinline__ void recall(const uint32_t (&words)[4])
    {
        token = words[0];
        of_keys = words[1];
        line = (int)words[2];
        end = (int)words[3];
    }

    __device__ __forceinline__ bool is_extra(int key) const
    {
        return (uint32_t)key >= of_keys;
    }

    __device__ __forceinline__ int32_t ask(int key) const
    {
        if (key >= end)
            return -1;
        return is_extra(key) ? p.extra.index[token * p.extra.token_stride + key - of_keys]
                             : p.keys.index[token * p.keys.token_stride + key];
    }

    __device__ __forceinline__ uint32_t follow(int key, int32_t entry) const
    {
        return is_extra(key) ? rt_sparse_page(&p.extra_kv, p.extra.by_position, line, entry)
                             : rt_sparse_page(&p.attend.kv, p.keys.by_position, line, entry);
    }

    __device__ __forceinline__ const unsigned char *place(int key, int32_t entry,
                                                          uint32_t page) const
    {
        return is_extra(key) ? rt_sparse_in_page(&p.extra_kv, page, entry)
                             : rt_sparse_in_page(&p.attend.kv, page, entry);
    }
};

#endif
