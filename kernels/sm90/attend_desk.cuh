/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_DESK_CUH
#define RT_KERNELS_SM90_ATTEND_DESK_CUH

/*
 * Shared memory of a block of the sm_90 attend kernels, and who tells whom what through it.
 *
 *   stages  STAGES times a block of 64 keys: either half's values, [8 keys][HALF_TILES][key][64
 *           elements], and then what is no value, a tile [key][64 elements]
 *   q       TILES tiles, [query row][64 elements] each
 *   staging partials on their way out, where query rows are few
 *   desk    this struct
 *   ahead   keys as they lie, where they are converted and there is room
 *
 * Of e4m3 keys with what is no value, and fewer than 64 query rows: a stage is 64 rows as they lie
 * and then the block's weights (kernels/sm90/attend_bytes.cuh), and there is neither staging nor
 * ahead, but of two workers scores of a block's half, on their way from worker 1 to worker 0. Of
 * three workers it is either half's values, [8 keys][D_V / 256][key][128 bytes], what is no value,
 * [key][128 bytes], and the weights.
 *
 * All tiles are in the copy engine's 128-byte swizzle. Warp group 0 loads, of 64 query rows over
 * e4m3 two groups do: warp 0 walks and brings keys, of 64 query rows half 0's, and warps 2 and 3
 * half 1's and what is no value; warp 1 brings q; of keys that come otherwise than by boxes all
 * bring some, and warp 1 also q. The last two warp groups, the workers 0 and 1, compute: both add
 * up values, each the columns of one half of d_v; blocks come in pairs, and the scores and the
 * softmax of the first, a, belong to worker 0, those of the second, b, to worker 1. Of three
 * workers each has every third block for itself (kernels/sm90/attend_apart.cuh).
 *
 * SHARED: two blocks, two tiles of the same keys, are a cluster. Each asks for half of the boxes, a
 * piece of either half's values and every second block's what is no value, for both; they follow
 * from the same plan, so that a stage means the same keys in both.
 *
 *   barrier        arrives                                  waits      means
 *   kv_full[s][h]  who asks for boxes, bytes                workers    half h of stage s is there
 *                  listed: the loading threads' copies;
 *                  of half 0 the loading warps, too                    and the stage's marks are
 *                  converted: the loading warps
 *                  bytes: copies and loading warps                     and its marks
 *                  bytes by boxes: loading warps
 *                  twice, and bytes
 *   kv_empty[s][h] warps of worker h                        who loads  no product reads it any more
 *                  shared: of both blocks                              in either block
 *                  of three workers: their block's
 *   kv_early[s][h] in pieces: warps of worker h             who loads  none reads its first keys
 *                  shared: of both blocks, at rank 0's                 in either block
 *   q_full         warp 1 (bytes)                           workers    q of the segment is there;
 *                                                                      not where workers bring it
 *   q_empty        warps of both workers                    warp 1     no score of the segment open
 *   sent_full      bytes of a cluster's blocks              workers    all of a row have sent
 *   seg_full[i]    warp 0                                   others     a segment is there
 *   seg_empty[i]   workers' warps; of boxes: warp 1         warp 0     all have copied it
 */
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/quant_sm90.h"
#include "kernels/device/ptx/cluster.cuh"
#include "kernels/device/ptx/mbarrier.cuh"
#include "kernels/device/ptx/sync.cuh"
#include "kernels/device/ptx/wgmma.cuh"
#include "kernels/sm90/attend_source.cuh"
#include "kernels/sm90/attend_units.cuh"

#define RT_SM90_SEGMENTS 2
#define RT_SM90_WORKERS 2
#define RT_SM90_WORKER_WARPS 4
#define RT_SM90_WORKER_THREADS 128u
#define RT_SM90_INFINITY __builtin_huge_valf()
#define RT_SM90_NAN __builtin_nanf("")
#define RT_SM90_NAN_BF16 0x7fffu
#define RT_SM90_LN_2 0.6931471805599453f
#define RT_SM90_LOG2_E 1.4426950408889634f

/* Named barriers; 0 is __syncthreads. */
enum {
    RT_SM90_BAR_WORKER = 1, /* and 2, of three workers 3: a worker's 128 threads */
    RT_SM90_BAR_A = 3,      /* from worker 0: a's weights, and the maximum up to a */
    RT_SM90_BAR_B = 4,      /* from worker 1: b's weights, and the maximum up to b */
    RT_SM90_BAR_BOTH = 5,   /* all workers, at a segment's end; and when q has become f16 */
    RT_SM90_BAR_SCORES = 6  /* from worker 1: its half of the scores of an a without a b */
};

/* A part's piece of a batch row. */
struct rt_sm90_segment {
    int row;    /* or RT_ATTEND_NONE: no more */
    int key;    /* first key, a multiple of 64 */
    int length; /* of the batch row */
    int blocks;
    int slot; /* of the partials; -1 where the row is not split */
    /* Where a row is cut by its own length, each leaf a segment: RT_SM90_SEGMENT_*. */
    int marks;
};

enum {
    RT_SM90_SEGMENT_Q = 1,      /* q is to be brought: the row is another than before */
    RT_SM90_SEGMENT_LAST = 2,   /* the part's last of the row: q goes */
    RT_SM90_SEGMENT_OPENS = 4,  /* a group's first leaf */
    RT_SM90_SEGMENT_FOLDS = 8,  /* is added to its group, and no piece by itself */
    RT_SM90_SEGMENT_CLOSES = 16 /* the group's last leaf */
};

/* Where a row is cut: for parts to be equally long; by its own length, and leaves are added up into
 * groups, or all are pieces. */
enum rt_sm90_cuts { RT_SM90_EVEN, RT_SM90_FOLDS, RT_SM90_OWN };

/* What a leaf's output and its group's are multiplied by. */
template <int TILE_ROWS, bool FOLDS> struct rt_sm90_fold_desk {
};
template <int TILE_ROWS> struct rt_sm90_fold_desk<TILE_ROWS, true> {
    float inverse[TILE_ROWS], factor[TILE_ROWS], weight[TILE_ROWS];
};

/* Where a block's first keys are given back before its others. */
template <bool IN_PIECES, int STAGES> struct rt_sm90_pieces_desk {
};
template <int STAGES> struct rt_sm90_pieces_desk<true, STAGES> {
    uint64_t kv_early[STAGES][2];
};

/* What each of eight loading warps knows of its segment, who have no registers for it. */
template <bool EIGHT> struct rt_sm90_walk_desk {
};
template <> struct rt_sm90_walk_desk<true> {
    struct {
        uint32_t pages[4]; /* whose keys they are */
        int key, blocks;   /* its first, and how many */
        int settled;       /* keys that are older than the step */
        int next, stop;    /* row to go on with, and the part's end */
        uint32_t number;   /* of the segment */
    } walk[8];
};

/* Scales on their way, as they lie, of two blocks: each loading thread's words. */
template <bool BOXED> struct rt_sm90_scales_desk {
};
template <> struct rt_sm90_scales_desk<true> {
    uint32_t scale[2][2][128];
};

/* Where the blocks of a cluster have a row together (kernels/sm90/attend_whole.cuh). */
template <bool WHOLE, int TILE_ROWS> struct rt_sm90_whole_desk {
};
template <int TILE_ROWS> struct rt_sm90_whole_desk<true, TILE_ROWS> {
    float2 states[RT_SPARSE_WHOLE_BLOCKS][TILE_ROWS]; /* maximum and sum, of every block */
    uint64_t sent_full;
};

template <class KEYS, int STAGES, int TILE_ROWS, int VECTORS, bool OWN_, bool FOLDS_, bool BYTES,
          bool IN_PIECES, int WORKERS, bool WHOLE>
struct alignas(16) rt_sm90_desk : rt_sm90_fold_desk<TILE_ROWS, FOLDS_>,
                                  rt_sm90_pieces_desk<IN_PIECES, STAGES>,
                                  KEYS::template marks<STAGES>,
                                  rt_sm90_units_desk<KEYS::F16, STAGES, TILE_ROWS>,
                                  rt_sm90_bytes_desk<BYTES, STAGES>,
                                  rt_sm90_scales_desk<(WORKERS > RT_SM90_WORKERS)>,
                                  rt_sm90_whole_desk<WHOLE, TILE_ROWS>,
                                  rt_sm90_walk_desk<KEYS::F16 && TILE_ROWS == 64> {
    static constexpr bool OWN = OWN_;
    uint64_t kv_full[STAGES][2], kv_empty[STAGES][2];
    uint64_t q_full, q_empty;
    uint64_t seg_full[RT_SM90_SEGMENTS], seg_empty[RT_SM90_SEGMENTS];
    struct rt_sm90_segment segment[RT_SM90_SEGMENTS];
    /* Of each query row, from the batch row's: where its output and its lse are. */
    int64_t out_at[TILE_ROWS], lse_at[TILE_ROWS];
    float2 state[TILE_ROWS];       /* maximum and sum */
    int lag[TILE_ROWS];            /* keys at the row's end that the query row does not see */
    float top[WORKERS][TILE_ROWS]; /* maximum up to a worker's block; in exponents of 2 */
    float warp_top[WORKERS * RT_SM90_WORKER_WARPS][TILE_ROWS];
    float sum[WORKERS * RT_SM90_WORKER_WARPS][TILE_ROWS];
    /* Eight columns a word, four bits each: from which key on, counted from the row's end, the
     * column is not finite for query rows that see the key; 0: nowhere. See part_drafts. */
    uint32_t spoilt[WORKERS][VECTORS];
};

template <int D_QK_, int D_V_, int TILE_ROWS_, class KEYS, enum rt_sm90_cuts CUTS = RT_SM90_EVEN,
          bool SHARED_ = false, int WORKERS_ = RT_SM90_WORKERS, bool WHOLE_ = false>
struct rt_sm90_shape {
    typedef KEYS keys;
    typedef typename KEYS::params params;
    static constexpr bool LISTED = KEYS::LISTED;
    static constexpr enum rt_sm90_by BY = KEYS::BY;
    static constexpr bool F16 = KEYS::F16;
    static constexpr enum rt_wgmma_type TYPE = F16 ? RT_WGMMA_F16 : RT_WGMMA_BF16;
    static constexpr bool OWN = CUTS != RT_SM90_EVEN; /* by its own length: batch-invariant */
    static constexpr bool FOLDS = CUTS == RT_SM90_FOLDS;
    /* One warp group, or two where they convert for 64 query rows (attend_through.cuh). */
    static constexpr int LOADING_WARPS = F16 && TILE_ROWS_ == 64 ? 8 : 4;
    static constexpr int WORKERS = WORKERS_;
    /* A row is a cluster's (attend_whole.cuh). */
    static constexpr bool WHOLE = WHOLE_;
    static constexpr int ROW_BLOCKS = WHOLE ? RT_SPARSE_WHOLE_BLOCKS : 1;
    /* Each has blocks of its own, and all columns of their values (attend_apart.cuh). */
    static constexpr bool APART = WORKERS > RT_SM90_WORKERS;
    static constexpr int THREADS = 32 * (LOADING_WARPS + WORKERS * RT_SM90_WORKER_WARPS);
    /* From those that load to those that work. */
    static constexpr bool MOVES_REGISTERS =
        APART || TILE_ROWS_ == 64 || ((FOLDS || (KEYS::F16 && D_QK_ > D_V_)) && TILE_ROWS_ == 32);
    static constexpr int D_QK = D_QK_, D_V = D_V_, TILE_ROWS = TILE_ROWS_;
    static constexpr int TILES = RT_ATTEND_SM90_TILES(D_QK);
    /* Boxes are asked for by three warps: either half's, and those of what is no value. */
    static constexpr bool PARTED = BY == RT_SM90_BY_BOXES && TILE_ROWS == 64;
    /* Keys that are given back by themselves. Warps that gather bf16 lose by it. */
    static constexpr int PIECE =
        PARTED || LOADING_WARPS == 8 ? RT_ATTEND_SM90_PIECE(TILE_ROWS, D_QK) : 64;
    static constexpr bool IN_PIECES = PIECE < 64;
    /* By two tiles of a cluster, each of which brings one piece of two. */
    static constexpr bool SHARED = SHARED_;
    static constexpr uint32_t SHARERS = SHARED ? 2 : 1;
    static_assert(!SHARED || PIECE == 32, "a piece each");
    /* Keys of e4m3 as they lie, of which workers make f16 (kernels/sm90/attend_bytes.cuh). */
    static constexpr bool BYTES = F16 && D_QK > D_V &&TILE_ROWS < 64;
    static constexpr int ROW_BYTES = RT_ATTEND_BYTES_SM90_ROW(D_QK, D_V);
    static constexpr int STAGES = APART   ? RT_ATTEND_APART_SM90_STAGES(TILE_ROWS)
                                  : BYTES ? RT_ATTEND_BYTES_SM90_STAGES(TILE_ROWS, D_QK)
                                          : RT_ATTEND_SM90_STAGES(D_QK);
    static constexpr int STAGE_TILES = RT_ATTEND_SM90_STAGE_TILES(D_QK, D_V);
    /* Which boxes bring, in tiles of 128 bytes a key. */
    static constexpr bool BOXED = APART;
    static constexpr int STAGE_BYTES = BOXED   ? RT_ATTEND_APART_SM90_STAGE(TILE_ROWS, D_V)
                                       : BYTES ? RT_ATTEND_BYTES_SM90_STAGE(TILE_ROWS, D_QK, D_V)
                                               : STAGE_TILES * RT_ATTEND_SM90_TILE_BYTES;
    static constexpr int BOX_GROUP_BYTES = 8 * D_V / 2; /* of 8 keys and a half, as bytes */
    static_assert(!BOXED || STAGE_BYTES % RT_WGMMA_GROUP_BYTES == 0, "the swizzle's period");
    static constexpr int V_TILES = D_V / 64;
    static constexpr int HALF_TILES = V_TILES / 2;
    static constexpr int OUT_TILES = APART ? V_TILES : HALF_TILES; /* of a worker's columns */
    static constexpr int HALF_BYTES = HALF_TILES * RT_ATTEND_SM90_TILE_BYTES;
    static constexpr int GROUP_BYTES = HALF_BYTES / 8; /* of 8 keys and a half */
    static constexpr int P_TILE = V_TILES;             /* of a stage, for probabilities */
    static constexpr int Q_TILE_BYTES = 128 * TILE_ROWS;
    static constexpr int LAST_STEPS = (D_QK - 64 * (TILES - 1)) / 16; /* of the last tile */
    static constexpr int AHEAD_BYTES =
        BY == RT_SM90_BY_CONVERSION && !BYTES ? RT_ATTEND_SM90_AHEAD_BYTES(TILE_ROWS, D_V) : 0;
    static constexpr int STAGING_COLUMNS = AHEAD_BYTES > 0
                                               ? 128
                                               : RT_ATTEND_SM90_STAGING_COLUMNS(TILE_ROWS, D_V);
    static constexpr int STAGING_STRIDE = 2 * STAGING_COLUMNS + 4;
    static constexpr int STAGING_BYTES =
        TILE_ROWS < 64 && !BYTES ? 4 * TILE_ROWS * STAGING_STRIDE : 0;
    /* A block of a cluster gets of each all query rows' states, and values of its columns. */
    static constexpr int SENT_COLUMNS = D_V / ROW_BLOCKS;
    static constexpr int SENT_BYTES = ROW_BLOCKS * TILE_ROWS * (8 + 4 * SENT_COLUMNS);
    static_assert(!WHOLE || ROW_BLOCKS * TILE_ROWS * 4 * SENT_COLUMNS <= STAGING_BYTES, "room");
    static constexpr int VECTORS = OUT_TILES * 8; /* of 8 columns, of a worker's */
    typedef rt_sm90_desk<KEYS, STAGES, TILE_ROWS, VECTORS, OWN, FOLDS, BYTES, IN_PIECES, WORKERS,
                         WHOLE>
        desk;
    static constexpr int DESK_BYTES =
        APART   ? RT_ATTEND_APART_SM90_DESK_BYTES(TILE_ROWS, D_QK, D_V)
        : BYTES ? RT_ATTEND_BYTES_SM90_DESK_BYTES(TILE_ROWS, D_QK)
                : RT_ATTEND_SM90_DESK_BYTES(TILE_ROWS) +
                      (BY == RT_SM90_BY_CONVERSION ? RT_ATTEND_SM90_UNITS_BYTES(D_QK) : 0) +
                      (WHOLE ? RT_SPARSE_WHOLE_SM90_DESK_BYTES(TILE_ROWS) : 0);
    static_assert(sizeof(desk) <= DESK_BYTES, "desk's formula");
};

/* The first query row of the tile that a block works on. */
template <class SHAPE> static __device__ __forceinline__ int rt_sm90_first_query(void)
{
    return (int)blockIdx.x / SHAPE::ROW_BLOCKS * SHAPE::TILE_ROWS;
}

/* Where things are. */
template <class SHAPE> struct rt_sm90_room {
    unsigned char *stages, *q, *ahead;
    float *staging;
    float4 *scores; /* of a shared block, its second half's; behind the desk */
    typename SHAPE::desk &desk;

    explicit __device__ __forceinline__ rt_sm90_room(unsigned char *shared)
        : stages(shared), q(shared + SHAPE::STAGES * SHAPE::STAGE_BYTES),
          ahead(q + SHAPE::TILES * SHAPE::Q_TILE_BYTES + SHAPE::STAGING_BYTES + SHAPE::DESK_BYTES),
          staging((float *)(q + SHAPE::TILES * SHAPE::Q_TILE_BYTES)), scores((float4 *)ahead),
          desk(*(typename SHAPE::desk *)(q + SHAPE::TILES * SHAPE::Q_TILE_BYTES +
                                         SHAPE::STAGING_BYTES))
    {
    }

    /* Of the tiles behind the values. */
    __device__ __forceinline__ unsigned char *tile(uint32_t stage, int tile) const
    {
        return stages + stage * SHAPE::STAGE_BYTES + tile * RT_ATTEND_SM90_TILE_BYTES;
    }

    /* A key as it lies: its values, then what is none. */
    __device__ __forceinline__ unsigned char *row(uint32_t stage, int key) const
    {
        return stages + stage * SHAPE::STAGE_BYTES + key * SHAPE::ROW_BYTES;
    }

    /* Of a block, a tile of [query row][key]. */
    __device__ __forceinline__ unsigned char *weights(uint32_t stage) const
    {
        return SHAPE::BOXED   ? boxed_rest(stage, 64)
               : SHAPE::BYTES ? row(stage, 64)
                              : tile(stage, SHAPE::P_TILE);
    }

    /* Where boxes bring bytes: of the tile that has byte `column` of the values the key's row; 16
     * bytes of it are at the place that the swizzle gives them. */
    __device__ __forceinline__ unsigned char *boxed_row(uint32_t stage, uint32_t key,
                                                        uint32_t column) const
    {
        constexpr uint32_t HALF = SHAPE::D_V / 2;
        return stages + stage * SHAPE::STAGE_BYTES + column / HALF * (64 * HALF) +
               key / 8 * SHAPE::BOX_GROUP_BYTES + column % HALF / 128 * RT_WGMMA_GROUP_BYTES +
               key % 8 * 128;
    }

    /* Likewise of what is no value. */
    __device__ __forceinline__ unsigned char *boxed_rest(uint32_t stage, uint32_t key) const
    {
        return stages + stage * SHAPE::STAGE_BYTES + 64 * SHAPE::D_V + key * 128;
    }

    /* A half's values: the first 8 keys'. */
    __device__ __forceinline__ unsigned char *half(uint32_t stage, int half) const
    {
        return stages + stage * SHAPE::STAGE_BYTES + half * SHAPE::HALF_BYTES;
    }

    /* 16 bytes of a key's values in a half, and of what is none. */
    __device__ __forceinline__ unsigned char *vector(uint32_t stage, int half, int key,
                                                     int vector) const
    {
        return this->half(stage, half) + key / 8 * SHAPE::GROUP_BYTES +
               vector / 8 * RT_WGMMA_GROUP_BYTES + key % 8 * 128 + (vector ^ key) % 8 * 16;
    }

    __device__ __forceinline__ unsigned char *rest_vector(uint32_t stage, int key, int vector) const
    {
        return tile(stage, SHAPE::V_TILES) + key * 128 + (vector ^ key) % 8 * 16;
    }

    /* 64 elements of all keys, as a product takes them; `tile` of the half's. */
    __device__ __forceinline__ uint64_t values(uint32_t stage, int half, int tile) const
    {
        return rt_wgmma_spaced_operand(rt_shared_address(this->half(stage, half)) +
                                           tile * RT_WGMMA_GROUP_BYTES,
                                       RT_WGMMA_GROUP_BYTES, SHAPE::GROUP_BYTES);
    }
};

/* By one thread, before a barrier of the block. */
template <class SHAPE>
static __device__ __forceinline__ void rt_sm90_init_barriers(typename SHAPE::desk &desk)
{
    for (int stage = 0; stage < SHAPE::STAGES; stage++)
        for (int half = 0; half < 2; half++) {
            const bool marks = half == 0 || SHAPE::BYTES;
            const uint32_t copies = SHAPE::LOADING_WARPS * (SHAPE::BOXED ? 2 : marks ? 33 : 32);
            const bool with_rest = half == 1 && SHAPE::TILES > SHAPE::V_TILES;
            const uint32_t boxes = SHAPE::PARTED && with_rest ? 2 : 1;
            rt_mbarrier_init(&desk.kv_full[stage][half],
                             SHAPE::BY == RT_SM90_BY_BOXES ? boxes
                             : SHAPE::BY == RT_SM90_BY_COPIES || SHAPE::BYTES
                                 ? copies
                                 : SHAPE::LOADING_WARPS);
            const uint32_t readers = SHAPE::SHARERS * RT_SM90_WORKER_WARPS;
            rt_mbarrier_init(&desk.kv_empty[stage][half], readers);
            if constexpr (SHAPE::IN_PIECES)
                rt_mbarrier_init(&desk.kv_early[stage][half], readers);
        }
    if constexpr (SHAPE::WHOLE) {
        rt_mbarrier_init(&desk.sent_full, 1);
        rt_mbarrier_arrive_expect(&desk.sent_full, SHAPE::SENT_BYTES);
    }
    rt_mbarrier_init(&desk.q_full, 1);
    rt_mbarrier_init(&desk.q_empty, SHAPE::WORKERS * RT_SM90_WORKER_WARPS);
    for (int i = 0; i < RT_SM90_SEGMENTS; i++) {
        rt_mbarrier_init(&desk.seg_full[i], 1);
        rt_mbarrier_init(&desk.seg_empty[i], SHAPE::WORKERS * RT_SM90_WORKER_WARPS +
                                                 (SHAPE::BY == RT_SM90_BY_BOXES ? 1 : 0));
    }
    rt_mbarrier_init_fence();
}

/* Segment number `n`, as it lies there until this warp leaves it; by a whole warp. Shuffled, which
 * tells the compiler that all lanes have the same: it does not overlap products of a warp group in
 * what may be divergent loops. */
template <class DESK>
static __device__ __forceinline__ struct rt_sm90_segment rt_sm90_read_segment(DESK &desk,
                                                                              uint32_t n)
{
    struct rt_sm90_segment segment = desk.segment[n % RT_SM90_SEGMENTS];
    segment.row = __shfl_sync(0xffffffffu, segment.row, 0);
    segment.key = __shfl_sync(0xffffffffu, segment.key, 0);
    segment.length = __shfl_sync(0xffffffffu, segment.length, 0);
    segment.blocks = __shfl_sync(0xffffffffu, segment.blocks, 0);
    segment.slot = __shfl_sync(0xffffffffu, segment.slot, 0);
    if (DESK::OWN)
        segment.marks = __shfl_sync(0xffffffffu, segment.marks, 0);
    return segment;
}

template <class DESK>
static __device__ __forceinline__ void rt_sm90_wait_for_segment(DESK &desk, uint32_t n)
{
    rt_mbarrier_wait(&desk.seg_full[n % RT_SM90_SEGMENTS], n / RT_SM90_SEGMENTS & 1);
}

template <class DESK>
static __device__ __forceinline__ void rt_sm90_leave_segment(DESK &desk, uint32_t n)
{
    __syncwarp(); /* all lanes have read it */
    if (rt_elected())
        rt_mbarrier_arrive(&desk.seg_empty[n % RT_SM90_SEGMENTS]);
}

/* Copied, and left. */
template <class DESK>
static __device__ __forceinline__ struct rt_sm90_segment rt_sm90_take_segment(DESK &desk,
                                                                              uint32_t n)
{
    rt_sm90_wait_for_segment(desk, n);
    const struct rt_sm90_segment segment = rt_sm90_read_segment(desk, n);
    rt_sm90_leave_segment(desk, n);
    return segment;
}

#endif
