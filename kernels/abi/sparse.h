/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_ABI_SPARSE_H
#define RT_KERNELS_ABI_SPARSE_H

#include "kernels/abi/attend.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/counted.h"
#include "kernels/abi/schedule.h"

/*
 * Sparse attention: a query token attends to the keys that a list names, and to no other. Every
 * query token is a row of its own for schedule, attend and reduce, token t of row r being r * q_len
 * + t. Where a step's rows begin at row_base, lists and counts do, too.
 *
 * A list's first `count` entries hold, as many as there are of them at most; without counts all do.
 * An entry is a position of the row's pages, or a slot: page * page_size + the token's place in it.
 * One that is negative or leads nowhere (no column of the table, no page of the pool, a row whose
 * slot is negative) is no key. A key is as many keys as there are entries of it.
 */
struct rt_sparse_view {
    const int32_t *index; /* [(row_base + rows) * q_len, topk]; or null: no list, and no counts */
    const int32_t *count; /* [tokens of index / count_tokens]; or null: topk */
    int64_t token_stride; /* of index, in elements */
    uint32_t topk;
    uint32_t count_tokens; /* that have a count together: 1 or q_len */
    uint32_t by_position;  /* 1: entries are positions; 0: slots */
    uint32_t reserved;
};
#define RT_SPARSE_ADDRESSES(type, member)                                                          \
    (RT_ADDRESS(type, member.index) | RT_ADDRESS(type, member.count))

/*
 * sparse_schedule: one block. length[token] = entries that hold of its list of keys and of that of
 * extra; 0 where row_length of its row is 0 or less. Then schedule of those lengths.
 */
struct rt_sparse_schedule_params {
    struct rt_schedule_params schedule; /* rows: count tokens, length as below, ctrl of the step */
    struct rt_sparse_view keys, extra;
    int32_t *length;           /* [tokens], written; schedule.rows.length */
    const int32_t *row_length; /* [rows]; or null: none is padding */
    uint32_t q_len;            /* tokens of a row */
    uint32_t reserved;
};
#define RT_SPARSE_SCHEDULE_PARAMS_ADDRESSES(type, at)                                              \
    (RT_SCHEDULE_PARAMS_ADDRESSES(type, at schedule.) | RT_SPARSE_ADDRESSES(type, at keys) |       \
     RT_SPARSE_ADDRESSES(type, at extra) | RT_ADDRESS(type, at length) |                           \
     RT_ADDRESS(type, at row_length))
RT_STATIC_ASSERT(sizeof(struct rt_sparse_schedule_params) == 176, "sparse_schedule ABI");

/*
 * sparse_attend: attend, of tokens as rows, over the entries of the list of keys, in attend.kv, and
 * behind them those of extra, in extra_kv. Everything else is as attend has it: pieces, sinks,
 * -inf, and out 0 with lse +inf where there is no key. NaN or an infinity in a key reaches the
 * query tokens whose lists have it, and no other. Where counted.min_blocks is not 0 it makes the
 * plan itself, and looks at no length, part or split; that is for sm_90 kernels alone.
 */
struct rt_sparse_attend_params {
    struct rt_attend_params attend; /* rows: tokens, q_len 1, no slot; causal 0 */
    struct rt_sparse_view keys, extra;
    struct rt_kv_view extra_kv;
    const int32_t *slot; /* [rows] lines of both block tables; or null: row r has line r */
    uint32_t q_len;      /* tokens of a row */
    uint32_t reserved;
    struct rt_counted_view counted; /* of the same lists */
    uint64_t *stamp_last;           /* where nothing is reduced, as reduce has it; else null */
};
#define RT_SPARSE_ATTEND_PARAMS_ADDRESSES(type, at)                                                \
    (RT_ATTEND_PARAMS_ADDRESSES(type, at attend.) | RT_SPARSE_ADDRESSES(type, at keys) |           \
     RT_SPARSE_ADDRESSES(type, at extra) | RT_KV_ADDRESSES(type, at extra_kv) |                    \
     RT_ADDRESS(type, at slot) | RT_COUNTED_ADDRESSES(type, at counted) |                          \
     RT_ADDRESS(type, at stamp_last))
RT_STATIC_ASSERT(sizeof(struct rt_sparse_attend_params) == 512, "sparse_attend ABI");

static RT_HD inline uint32_t rt_sparse_count(const struct rt_sparse_view *view, uint32_t token)
{
    return view->index ? rt_list_count(view->count, view->count_tokens, view->topk, token) : 0;
}

/* An entry's page, which may be none of the pool's. `line` of the block table, negative: none. */
static RT_HD inline uint32_t rt_sparse_page(const struct rt_kv_view *kv, uint32_t by_position,
                                            int32_t line, int32_t entry)
{
    const uint32_t column = (uint32_t)entry / kv->page_size;
    if (entry < 0)
        return UINT32_MAX;
    if (!by_position)
        return column;
    if (line < 0 || column >= kv->max_blocks)
        return UINT32_MAX;
    return (uint32_t)kv->table[(int64_t)line * kv->max_blocks + column];
}

/* An entry's key: its page, null where it is none, and its row there. */
struct rt_sparse_place {
    const unsigned char *page;
    uint32_t row;
};

static RT_HD inline struct rt_sparse_place
rt_sparse_locate(const struct rt_kv_view *kv, uint32_t by_position, int32_t line, int32_t entry)
{
    const uint32_t page = rt_sparse_page(kv, by_position, line, entry);
    struct rt_sparse_place at = {NULL, (uint32_t)entry % kv->page_size};
    if (page < kv->pages)
        at.page = kv->base + page * kv->page_stride_bytes;
    return at;
}

/* Where the key of a page's entry lies; null: it is none. */
static RT_HD inline const unsigned char *rt_sparse_in_page(const struct rt_kv_view *kv,
                                                           uint32_t page, int32_t entry)
{
    if (page >= kv->pages)
        return NULL;
    return kv->base + page * kv->page_stride_bytes +
           (uint32_t)entry % kv->page_size * kv->token_stride_bytes;
}

/* Both in one. */
static RT_HD inline const unsigned char *
rt_sparse_find(const struct rt_kv_view *kv, uint32_t by_position, int32_t line, int32_t entry)
{
    return rt_sparse_in_page(kv, rt_sparse_page(kv, by_position, line, entry), entry);
}

/* Dynamic shared memory of the generic kernels: as attend's, and which keys of a step there are. */
#define RT_SPARSE_GENERIC_SMEM_BYTES(tile_rows, d_qk)                                              \
    (RT_ATTEND_GENERIC_SMEM_BYTES(tile_rows, d_qk) +                                               \
     RT_ATTEND_GENERIC_BUFFERS * RT_ATTEND_GENERIC_KEYS)

#endif
