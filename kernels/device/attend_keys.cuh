/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_ATTEND_KEYS_CUH
#define RT_KERNELS_DEVICE_ATTEND_KEYS_CUH

/*
 * Where the generic attend kernels' keys are, and where a row is in the data. Two kinds of SOURCE:
 *
 *   params     of the kernel; attend() is the part that both have
 *   found      what is known of a key early, before its place in shared memory is free: it costs
 *              trips to memory
 *   marks      in shared memory: which keys of a step there are, where that does not follow from
 *              their number
 *   CONVERTED  a key's row is not what is worked on (kernels/device/attend_quant.cuh)
 */
#include "kernels/abi/sparse.h"
#include "kernels/device/attend_walk.cuh"
#include "kernels/device/page_row.cuh"

/* All keys of a row, in its pages one behind the other. */
struct rt_attend_row_keys {
    static constexpr bool CONVERTED = false;
    typedef struct rt_attend_params params;
    typedef int found; /* the key's page; -1: nothing to read */
    struct marks {
    };
    static constexpr unsigned smem_bytes(unsigned of_attend)
    {
        return of_attend;
    }

    static __device__ __forceinline__ const struct rt_attend_params &attend(const params &p)
    {
        return p;
    }

    static __device__ __forceinline__ int find(const params &p, const struct rt_attend_walk &walk,
                                               const struct rt_attend_step &at, int key)
    {
        const uint32_t column = walk.page.quotient((uint32_t)key);
        if (key >= at.end || at.line < 0 || column >= p.kv.max_blocks)
            return -1;
        return p.kv.table[(int64_t)at.line * p.kv.max_blocks + column];
    }

    static __device__ __forceinline__ struct rt_page_row
    page_row(const params &p, const struct rt_attend_walk &walk, int page, int key)
    {
        struct rt_page_row at = {};
        at.row = (uint32_t)key - walk.page.quotient((uint32_t)key) * p.kv.page_size;
        if ((uint32_t)page < p.kv.pages)
            at.page = p.kv.base + page * p.kv.page_stride_bytes;
        return at;
    }

    /* Null: it reads as zeros. */
    static __device__ __forceinline__ const unsigned char *
    place(const params &p, const struct rt_attend_walk &walk, int page, int key)
    {
        return (const unsigned char *)row_address(p.kv, page_row(p, walk, page, key));
    }

    static __device__ __forceinline__ void mark(marks &, int, uint32_t, bool)
    {
    }

    static __device__ __forceinline__ bool is_key(const marks &, int, int)
    {
        return true;
    }

    /* Of a row's query row, in elements. */
    static __device__ __forceinline__ int64_t data_at(const params &p, int64_t row_base,
                                                      const struct rt_heads_view &view, int row,
                                                      int query)
    {
        return (row_base + row) * view.row_stride + query / (int)p.heads * view.token_stride +
               query % (int)p.heads * view.head_stride;
    }
};

/* Those of a query token's lists. */
struct rt_attend_listed_keys {
    static constexpr bool CONVERTED = false;
    typedef struct rt_sparse_attend_params params;
    typedef const unsigned char *found; /* the key itself; null: there is none */
    struct alignas(16) marks {
        uint8_t is_key[RT_ATTEND_GENERIC_BUFFERS][RT_ATTEND_GENERIC_KEYS];
    };
    static constexpr unsigned smem_bytes(unsigned of_attend)
    {
        return of_attend + sizeof(marks);
    }

    static __device__ __forceinline__ const struct rt_attend_params &attend(const params &p)
    {
        return p.attend;
    }

    /* `is_extra`: of the second cache. */
    static __device__ __forceinline__ struct rt_sparse_place
    locate(const params &p, const struct rt_attend_walk &walk, const struct rt_attend_step &at,
           int key, bool &is_extra)
    {
        if (at.row == RT_ATTEND_NONE || key >= at.end)
            return {};
        const uint32_t token = (uint32_t)walk.part.row_base * p.q_len + (uint32_t)at.row;
        const uint32_t row = (uint32_t)at.row / p.q_len;
        const uint32_t of_keys = rt_sparse_count(&p.keys, token);
        is_extra = (uint32_t)key >= of_keys;
        const struct rt_sparse_view &list = is_extra ? p.extra : p.keys;
        const struct rt_kv_view &kv = is_extra ? p.extra_kv : p.attend.kv;
        const uint32_t i = (uint32_t)key - (is_extra ? of_keys : 0);
        const int32_t line = p.slot ? p.slot[row] : (int32_t)row;
        return rt_sparse_locate(&kv, list.by_position, line,
                                list.index[token * list.token_stride + i]);
    }

    static __device__ __forceinline__ const unsigned char *find(const params &p,
                                                                const struct rt_attend_walk &walk,
                                                                const struct rt_attend_step &at,
                                                                int key)
    {
        bool is_extra = false;
        const struct rt_sparse_place place = locate(p, walk, at, key, is_extra);
        const struct rt_kv_view &kv = is_extra ? p.extra_kv : p.attend.kv;
        return place.page ? place.page + place.row * kv.token_stride_bytes : nullptr;
    }

    static __device__ __forceinline__ const unsigned char *
    place(const params &, const struct rt_attend_walk &, const unsigned char *key, int)
    {
        return key;
    }

    static __device__ __forceinline__ void mark(marks &s, int buffer, uint32_t slot, bool is_key)
    {
        s.is_key[buffer][slot] = is_key;
    }

    static __device__ __forceinline__ bool is_key(const marks &s, int buffer, int slot)
    {
        return s.is_key[buffer][slot] != 0;
    }

    static __device__ __forceinline__ int64_t data_at(const params &p, int64_t row_base,
                                                      const struct rt_heads_view &view, int row,
                                                      int query)
    {
        const int of_row = row / (int)p.q_len;
        return (row_base + of_row) * view.row_stride +
               (row - of_row * (int)p.q_len) * view.token_stride + query * view.head_stride;
    }
};

#endif
