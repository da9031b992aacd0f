/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_PREFILL_DESK_CUH
#define RT_KERNELS_SM90_PREFILL_DESK_CUH

/*
 * Shared memory of a block of the sm_90 prefill kernels, and who tells whom what through it.
 *
 *   q       QK_TILES tiles of 128 queries, [query][64 elements] each
 *   k       STAGES times QK_TILES tiles of BLOCK keys
 *   v       STAGES times D_V / 64 tiles of BLOCK keys
 *   desk    this struct
 *
 * All tiles are in the copy engine's 128-byte swizzle. Warp group 0 serves: warp 0 loads, warp 1
 * finds out what is next. Warp groups 1 and 2, the workers 0 and 1, have 64 of an item's 128
 * queries each, and go through the same blocks of keys, the last one first.
 *
 *   barrier      arrives                      waits             means
 *   k_full[s]    warp 0, bytes                workers           block s of k is there
 *   k_empty[s]   warps of both workers        warp 0            no score reads it any more
 *   v_full[s]    warp 0, bytes or its zeros   workers           block s of v is there
 *   v_empty[s]   warps of both workers        warp 0            no product reads it any more
 *   v_landed     warp 0, bytes                warp 0            a block that wants zeros is there
 *   q_full       warp 0, bytes                workers           q of the item is there
 *   q_empty      warps of both workers        warp 0            no score of the item is open
 *   item_full    warp 1                       warp 0, workers   the next item is there
 *   item_empty   warp 0, workers' warps       warp 1            all have copied it
 */
#include "kernels/abi/prefill_sm90.h"
#include "kernels/device/ptx/mbarrier.cuh"
#include "kernels/device/ptx/sync.cuh"
#include "kernels/device/scan.cuh"

#define RT_PREFILL_STAGES ((int)RT_PREFILL_SM90_STAGES)
#define RT_PREFILL_QUERIES ((int)RT_PREFILL_SM90_QUERIES)
#define RT_PREFILL_WORKERS 2
#define RT_PREFILL_WORKER_WARPS 4
#define RT_PREFILL_WORKER_THREADS 128u
#define RT_PREFILL_WARPS (RT_PREFILL_WORKERS * RT_PREFILL_WORKER_WARPS)
#define RT_PREFILL_ROW_BYTES 128 /* of a tile */

/* Named barriers; 0 is __syncthreads. */
enum { RT_PREFILL_BAR_TURN = 1 /* and 2: worker 0's, 1's turn to ask for products */ };

/* 128 queries of a row and head, and the keys that the last of them sees. */
struct rt_prefill_item {
    int queries; /* at most 128; 0: no more items */
    int query;   /* the first, of all tokens */
    int head;
    int key; /* the first, of all keys */
    int keys;
    int limit; /* keys that the first query sees, or less than none */
};

struct alignas(16) rt_prefill_desk {
    uint64_t k_full[RT_PREFILL_STAGES], k_empty[RT_PREFILL_STAGES];
    uint64_t v_full[RT_PREFILL_STAGES], v_empty[RT_PREFILL_STAGES], v_landed;
    uint64_t q_full, q_empty, item_full, item_empty;
    struct rt_prefill_item item;
    uint32_t tiles; /* of all rows */
    /* Rows by falling number of keys: which it is, and the tiles of those in front of it. */
    uint32_t order[RT_PREFILL_MOST_ROWS], before[RT_PREFILL_MOST_ROWS];
    uint32_t weight[RT_PREFILL_MOST_ROWS];                     /* of row r: its keys */
    float held[RT_PREFILL_WORKERS][RT_PREFILL_WORKER_THREADS]; /* read by nobody */
};
RT_STATIC_ASSERT(sizeof(struct rt_prefill_desk) <= RT_PREFILL_SM90_DESK_BYTES, "desk's formula");

template <int D_QK_, int D_V_> struct rt_prefill_dims {
    static constexpr int D_QK = D_QK_, D_V = D_V_;
    static constexpr int BLOCK = (int)RT_PREFILL_SM90_BLOCK(D_QK_, D_V_);
    static constexpr int QK_TILES = (int)RT_PREFILL_SM90_TILES(D_QK_), V_TILES = D_V / 64;
    static constexpr int QK_STEPS = D_QK / 16; /* of a score's product, four of them a tile */
    static constexpr int TILE_BYTES = RT_PREFILL_ROW_BYTES * BLOCK;
    static constexpr int Q_TILE_BYTES = RT_PREFILL_ROW_BYTES * RT_PREFILL_QUERIES;
    static constexpr int Q_BYTES = QK_TILES * Q_TILE_BYTES;
    static constexpr int K_BYTES = QK_TILES * TILE_BYTES, V_BYTES = V_TILES * TILE_BYTES;
    static_assert(D_QK % 16 == 0 && D_V % 64 == 0, "geometry");
    static_assert(Q_BYTES + RT_PREFILL_STAGES * (K_BYTES + V_BYTES) +
                          (int)RT_PREFILL_SM90_DESK_BYTES ==
                      (int)RT_PREFILL_SM90_SMEM_BYTES(D_QK_, D_V_),
                  "shared memory formula");
};

/* Where things are. */
template <class SHAPE> struct rt_prefill_room {
    unsigned char *q, *k, *v;
    struct rt_prefill_desk &desk;

    explicit __device__ __forceinline__ rt_prefill_room(unsigned char *shared)
        : q(shared), k(q + SHAPE::Q_BYTES), v(k + RT_PREFILL_STAGES * SHAPE::K_BYTES),
          desk(*(struct rt_prefill_desk *)(v + RT_PREFILL_STAGES * SHAPE::V_BYTES))
    {
    }
};

/* By one thread, before a barrier of the block. */
static __device__ __forceinline__ void rt_prefill_init_barriers(struct rt_prefill_desk &desk)
{
    for (int stage = 0; stage < RT_PREFILL_STAGES; stage++) {
        rt_mbarrier_init(&desk.k_full[stage], 1);
        rt_mbarrier_init(&desk.k_empty[stage], RT_PREFILL_WARPS);
        rt_mbarrier_init(&desk.v_full[stage], 1);
        rt_mbarrier_init(&desk.v_empty[stage], RT_PREFILL_WARPS);
    }
    rt_mbarrier_init(&desk.v_landed, 1);
    rt_mbarrier_init(&desk.q_full, 1);
    rt_mbarrier_init(&desk.q_empty, RT_PREFILL_WARPS);
    rt_mbarrier_init(&desk.item_full, 1);
    rt_mbarrier_init(&desk.item_empty, RT_PREFILL_WARPS + 1);
    rt_mbarrier_init_fence();
}

/* Where in a ring, and in which turn. */
struct rt_prefill_turn {
    uint32_t stage, parity;

    __device__ __forceinline__ void advance(void)
    {
        stage ^= 1;
        parity ^= stage ^ 1;
    }
};
static_assert(RT_PREFILL_STAGES == 2, "stages are told apart by a bit");

/* Item number `n`, copied; by a whole warp. Shuffled, which tells the compiler that all lanes have
 * the same: it does not overlap products of a warp group in what may be divergent loops. */
static __device__ __forceinline__ struct rt_prefill_item
rt_prefill_take_item(struct rt_prefill_desk &desk, uint32_t n)
{
    rt_mbarrier_wait(&desk.item_full, n & 1);
    struct rt_prefill_item item = desk.item;
    item.queries = __shfl_sync(RT_FULL_WARP, item.queries, 0);
    item.query = __shfl_sync(RT_FULL_WARP, item.query, 0);
    item.head = __shfl_sync(RT_FULL_WARP, item.head, 0);
    item.key = __shfl_sync(RT_FULL_WARP, item.key, 0);
    item.keys = __shfl_sync(RT_FULL_WARP, item.keys, 0);
    item.limit = __shfl_sync(RT_FULL_WARP, item.limit, 0);
    __syncwarp(); /* all lanes have read it */
    if (rt_elected())
        rt_mbarrier_arrive(&desk.item_empty);
    return item;
}

#endif
