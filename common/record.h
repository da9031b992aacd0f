/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_COMMON_RECORD_H
#define RT_COMMON_RECORD_H

/*
 * The wire format between host and device, read by gcc and by nvcc.
 *
 * A step is one record in a ring of mapped host memory: the host writes it, the first kernel of the
 * graph reads it, the last kernel of the graph writes a completion back. Nothing else crosses.
 *
 *   record   | header 64 B | rows[bucket_max] 16 B each | tokens[bucket_max * q_max] i32 | ops |
 *            of a chunk, tokens: [bucket, query_len], of a row of prompts its last in column 0 |
 *            how many each row of prompts has [prefill_rows] | those of all prompts, one behind
 *            the other [chunk]
 *   completion | header 64 B | results[bucket_max] 8 B each | tokens[bucket_max * q_max] i32 |
 */
#include "common/math.h"

#include <stdint.h>

#ifdef __cplusplus
#define RT_STATIC_ASSERT(cond, text) static_assert(cond, text)
#else
#define RT_STATIC_ASSERT(cond, text) _Static_assert(cond, text)
#endif

/* Header of a record. Written last by the host is nothing: the launch orders it all. */
struct rt_record {
    uint64_t step;      /* 1, 2, …; the device expects ctrl.step + 1 */
    uint32_t live_rows; /* rows[0..live_rows) are live, the rest of the bucket is padding */
    uint32_t row_base;  /* first row of this replay in the row-indexed data tensors */
    uint32_t query_len; /* must equal the graph's */
    uint32_t bucket;    /* must equal the graph's; 0: a control record without rows */
    uint32_t op_count;  /* ops to apply, in order, before the rows are looked at */
    uint32_t op_bytes;  /* bytes of all ops */
    uint32_t prompts;   /* of a chunk: the first rows, which have tokens of prompts */
    uint32_t reserved[7];
};
RT_STATIC_ASSERT(sizeof(struct rt_record) == 64, "record header is 64 bytes");

/* One live row. Steady state needs nothing else: a step crosses at most one page boundary. */
struct rt_record_row {
    uint32_t slot;     /* sequence slot, < slots */
    int16_t accept;    /* of its tokens those that stay; RT_ACCEPT_BY_DEVICE: tensor `accepted` */
    uint16_t tokens;   /* that it has, the first of query_len; 0: all */
    int32_t new_block; /* block-table column that gets new_page before the step; -1: none */
    int32_t new_page;  /* page id, < pages */
};
RT_STATIC_ASSERT(sizeof(struct rt_record_row) == 16, "record row is 16 bytes");
#define RT_ACCEPT_BY_DEVICE (-1)

/* Tokens of a row where the step has query_len. */
static RT_HD inline uint32_t rt_record_tokens(const struct rt_record_row *row, uint32_t query_len)
{
    return row->tokens ? row->tokens : query_len;
}

/* One op: 16 bytes, and behind SET_PAGES its pages (int32, padded to 16 bytes). */
enum rt_record_op_kind {
    RT_OP_SET_SLOT = 1,  /* slot; a: length; b: last token, -1: none, or RT_TOKEN_OF_SLOT(s) */
    RT_OP_SET_PAGES = 2, /* slot; a: first block-table column; b: count; then count page ids */
    RT_OP_COPY_PAGE = 3  /* slot: rows to copy; a: source page; b: destination page; all layers */
};
/* The last token that slot s has on the device when the op is applied. b <= -2: slot -2 - b. */
#define RT_TOKEN_OF_SLOT(s) (-2 - (int32_t)(s))

struct rt_record_op {
    uint32_t kind;
    uint32_t slot;
    int32_t a;
    int32_t b;
};
RT_STATIC_ASSERT(sizeof(struct rt_record_op) == 16, "record op is 16 bytes");

/* Page copies of one control record, kept on the device between step_begin and page_copy. */
#define RT_MAX_PAGE_COPIES 64
struct rt_page_copy {
    int32_t from, to; /* page ids */
    int32_t rows;     /* tokens to copy, <= page_size */
    int32_t reserved;
};

/* What the device found wrong in a record; the row it names is dropped, the others run. */
enum rt_device_error {
    RT_DEV_OK = 0,
    RT_DEV_STEP = 1,      /* value: the step number found */
    RT_DEV_BUCKET = 2,    /* value: the bucket found */
    RT_DEV_QUERY_LEN = 3, /* value: the query length found */
    RT_DEV_ROWS = 4,      /* value: live_rows, or row_base where that is out of range */
    RT_DEV_SLOT = 5,      /* row (op number, where an op is at fault), value: the slot */
    RT_DEV_LENGTH = 6,    /* row, value: the length it would reach */
    RT_DEV_PAGE = 7,      /* row, value: the page id */
    RT_DEV_BLOCK = 8,     /* row, value: the block-table column */
    RT_DEV_ACCEPT = 9,    /* row, value: the accepted count */
    RT_DEV_OP = 10,       /* row: op number, value: its kind */
    RT_DEV_TOKENS = 11    /* row, value: its number of tokens; of a chunk also that of prompts */
};

/* The device's control block: one writer at a time (step_begin, then the stamps, then step_end). */
struct rt_ctrl {
    uint64_t step;      /* last step completed; only step_end writes it, so a step that was cut
                            * short (a failed stage) can be replayed from the same record */
    uint32_t live_rows; /* of the current replay; dropped rows keep their place among them */
    uint32_t row_base;
    uint32_t query_len;
    uint32_t copy_count; /* page copies of the current record */
    uint32_t error;      /* enum rt_device_error, first of this step */
    uint32_t error_row;
    int64_t error_value;
    uint64_t t_begin;        /* globaltimer ns: step_begin's first instruction */
    uint64_t t_attend_first; /* first attend block of layer 0, after its wait */
    uint64_t t_attend_last;  /* last block of the last layer's reduce (or attend), at its end */
    uint64_t reserved[8];
};
RT_STATIC_ASSERT(sizeof(struct rt_ctrl) == 128, "ctrl is 128 bytes");

struct rt_row_outcome {
    int32_t accepted; /* tokens that stayed */
    int32_t sampled;  /* tensor `sampled` of the row, -1 where no stage wrote it */
};

/* Written by step_end, `step` last, after a system-wide fence. */
struct rt_completion {
    uint64_t step; /* the record's step once everything of it is visible to the host */
    uint32_t error;
    uint32_t error_row;
    int64_t error_value;
    uint64_t t_begin, t_attend_first, t_attend_last, t_end; /* globaltimer ns */
    uint32_t live_rows;
    uint32_t reserved;
};
RT_STATIC_ASSERT(sizeof(struct rt_completion) == 64, "completion header is 64 bytes");

#endif
