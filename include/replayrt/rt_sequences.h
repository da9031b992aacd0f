/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_RT_SEQUENCES_H
#define REPLAYRT_RT_SEQUENCES_H

/*
 * Sequences and their pages: opened, forked, rewound, closed. Part of replayrt/rt.h, whose laws and
 * words hold here.
 */
#include "replayrt/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rt_runtime rt_runtime;
typedef uint64_t rt_seq; /* handle of a sequence; 0 is never valid */

enum rt_page_owner {
    RT_PAGES_BUILTIN = 0, /* the runtime's allocator gives pages as the sequence grows */
    RT_PAGES_CALLER       /* only rt_seq_bind_pages gives pages; they are never freed here */
};

struct rt_seq_params {
    uint32_t struct_size;
    enum rt_page_owner pages;
    /* Tokens whose KV is in place already, written by somebody else (prefill elsewhere). With
     * builtin pages their pages are allocated now, to be filled by the caller: on the runtime's
     * stream, or by any other way once rt_seq_quiet says that no step in flight writes them. */
    uint32_t length;
    /* What tensor `tokens` gets where a step names no token, >= 0; -1: none. */
    int32_t last_token;
};

/*
 * Opens a sequence; params may be null for an empty one with builtin pages. The device learns of it
 * through the next step's record.
 * Returns RT_ERR_INVALID, RT_ERR_SLOTS, RT_ERR_LENGTH, RT_ERR_PAGES, RT_ERR_BUSY (too much pending
 * for the ring), RT_ERR_DRIVER.
 */
RT_API enum rt_status rt_seq_open(rt_runtime *runtime, const struct rt_seq_params *params,
                                  rt_seq *out);

/*
 * Closes it: builtin pages lose a reference, the handle is dead. Steps in flight are unharmed: they
 * go on reading and writing its pages, which the next rt_seq_open may get. Who reuses pages of the
 * caller asks rt_seq_quiet before closing.
 */
RT_API enum rt_status rt_seq_close(rt_runtime *runtime, rt_seq seq);

/*
 * A second sequence with the same past: full pages are shared, a partly filled last page is copied
 * on the device for all layers. Builtin pages only (RT_ERR_UNSUPPORTED otherwise).
 * Returns RT_ERR_SEQUENCE, RT_ERR_SLOTS, RT_ERR_PAGES, RT_ERR_DRIVER, RT_ERR_BUSY (a step in flight
 * decides this sequence's length on the device, or the ring has no record for the copy).
 */
RT_API enum rt_status rt_seq_fork(rt_runtime *runtime, rt_seq seq, rt_seq *out);

/*
 * Back to `length` tokens (<= its length; RT_ERR_LENGTH otherwise): pages behind it are released; a
 * partly kept page that another sequence shares is copied first. A shorter past has no last token:
 * the next step must name one (rt_step: RT_ERR_INVALID), as must that of a fork.
 * Returns RT_ERR_SEQUENCE, RT_ERR_PAGES, RT_ERR_DRIVER, RT_ERR_BUSY (as rt_seq_fork).
 */
RT_API enum rt_status rt_seq_rewind(rt_runtime *runtime, rt_seq seq, uint32_t length);

/* Tokens in its KV cache after all steps so far (device-decided steps: those known complete). */
RT_API enum rt_status rt_seq_length(rt_runtime *runtime, rt_seq seq, uint32_t *out);

/* Its slot, which stays the same until it is closed: where tensors by slot have its line. */
RT_API enum rt_status rt_seq_slot(rt_runtime *runtime, rt_seq seq, uint32_t *out);

/*
 * The ticket after which the pages that the sequence holds now are quiet: no step launched so far
 * reads or writes them any more, not even one of a sequence that held them before. *ticket is 0
 * where that is so already, else one for rt_wait. What is put on the runtime's stream needs no such
 * wait. Pages shared by rt_seq_fork are read by the other sequence's steps, and stay nobody's to
 * write. Returns RT_ERR_SEQUENCE, RT_ERR_INVALID.
 */
RT_API enum rt_status rt_seq_quiet(rt_runtime *runtime, rt_seq seq, uint64_t *ticket);

/*
 * Puts page ids into columns [first, first + count) of the sequence's block table, from the next
 * step on. RT_PAGES_CALLER sequences only. `first` must not leave a gap. Ids must be < pages.
 * The allocator of builtin pages does not know which are bound here. Where both kinds of sequences
 * live in one runtime, bind pages that a builtin sequence holds for the caller: rt_seq_open with a
 * length, then rt_seq_pages.
 * Several sequences may hold the same page as long as none of them writes it: a full page of a
 * common past. A partly filled one is written by the next step, so each needs its own copy of it;
 * two that share it write over each other's tokens. Nothing here checks that.
 * Returns RT_ERR_SEQUENCE, RT_ERR_UNSUPPORTED (builtin pages), RT_ERR_INVALID, RT_ERR_LENGTH
 * (columns behind max_length), RT_ERR_BUSY (too much pending for the ring), RT_ERR_DRIVER.
 */
RT_API enum rt_status rt_seq_bind_pages(rt_runtime *runtime, rt_seq seq, uint32_t first,
                                        const int32_t *pages, uint32_t count);

/* Its pages in order; *count gets how many there are, at most capacity are written. */
RT_API enum rt_status rt_seq_pages(rt_runtime *runtime, rt_seq seq, int32_t *pages,
                                   uint32_t capacity, uint32_t *count);

#ifdef __cplusplus
}
#endif
#endif
