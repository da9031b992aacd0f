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
    /* What tensor `tokens` gets where a step names no token, >= 0; -1: none, so that with
     * RT_CREATE_NEEDS_TOKENS, as decoders have it, the first step must name one. */
    int32_t last_token;
    /* Builtin pages that have the KV of those tokens, in order: ceil(length / page_size) of them
     * (with rt_config.context_parallel: of as many times page_size, here and everywhere),
     * each in use, held by a sequence or retained. Null: none. That their tokens are this
     * sequence's is the caller's to know. Full pages are shared, of a partly filled last one the
     * tokens are copied on the device into a page of its own, for all layers. */
    const int32_t *shared_pages;
    uint32_t shared_count;
    uint32_t reserved; /* 0 */
};

/*
 * Opens a sequence; params may be null for an empty one with builtin pages. The device learns of it
 * through the next step's record; at once where a shared page is copied.
 * Returns RT_ERR_INVALID, RT_ERR_SLOTS, RT_ERR_LENGTH, RT_ERR_PAGES (none is free, or a shared page
 * has 65535 references), RT_ERR_BUSY (too much pending for the ring, or no record for the copy),
 * RT_ERR_UNSUPPORTED (shared pages with RT_PAGES_CALLER), RT_ERR_DRIVER.
 */
RT_API enum rt_status rt_seq_open(rt_runtime *runtime, const struct rt_seq_params *params,
                                  rt_seq *out);

/*
 * Closes it: builtin pages lose a reference, the handle is dead. Steps in flight are unharmed: they
 * go on reading and writing its pages, which the next rt_seq_open may get, unless they are retained
 * or another sequence has them. Who reuses pages of the caller asks rt_seq_quiet before closing.
 */
RT_API enum rt_status rt_seq_close(rt_runtime *runtime, rt_seq seq);

/*
 * A second sequence with the same past: full pages are shared, a partly filled last page is copied
 * on the device for all layers. Builtin pages only: RT_ERR_UNSUPPORTED otherwise, there
 * is rt_seq_fork_onto.
 * Returns RT_ERR_SEQUENCE, RT_ERR_SLOTS, RT_ERR_PAGES, RT_ERR_DRIVER, RT_ERR_BUSY (a step in flight
 * decides this sequence's length on the device, or the ring has no record for the copy).
 */
RT_API enum rt_status rt_seq_fork(rt_runtime *runtime, rt_seq seq, rt_seq *out);

/*
 * The same of a sequence with the caller's pages, which the new one has too: full pages are shared
 * by their ids, a partly filled last one is copied to `last_page`. That must be a page id, and none
 * that the sequence is bound to; where length is a multiple of page_size it must be -1. What behind
 * its last token is bound to the old one is not to the new one.
 * Returns as rt_seq_fork, and RT_ERR_UNSUPPORTED (builtin pages), RT_ERR_INVALID (last_page),
 * RT_ERR_PAGES (fewer pages are bound than its tokens need).
 */
RT_API enum rt_status rt_seq_fork_onto(rt_runtime *runtime, rt_seq seq, int32_t last_page,
                                       rt_seq *out);

/*
 * Back to `length` tokens (<= its length; RT_ERR_LENGTH otherwise): pages behind it are released; a
 * partly kept builtin page that is retained, or that another sequence shares, is copied first if it
 * loses tokens by that. A shorter past has no last token:
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
 * wait. Pages that another sequence shares are read by its steps, and stay nobody's to write.
 * Returns RT_ERR_SEQUENCE, RT_ERR_INVALID.
 */
RT_API enum rt_status rt_seq_quiet(rt_runtime *runtime, rt_seq seq, uint64_t *ticket);

/*
 * Puts page ids into columns [first, first + count) of the sequence's block table, from the next
 * step on. RT_PAGES_CALLER sequences only. `first` must not leave a gap. Ids must be < pages.
 * The allocator of builtin pages does not know which are bound here. Where both kinds of sequences
 * live in one runtime, bind pages that the caller has of it: rt_seq_open with a length, then
 * rt_seq_pages; they stay the caller's while that sequence is open, or while they are retained.
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

/*
 * A sequence's tokens as bytes, for another process, a host's memory or a file: its header, with
 * layout, geometry, page size, rope order and KV scales, and its pages of all layers. What follows
 * from other tokens is not in it. docs/kv_formats.md has every byte.
 *
 * *needed gets how many bytes there are; with `to` null that is all. Waits for the steps in flight,
 * whose stream the copies are on; the device's memory stays as it is.
 * Returns RT_ERR_SEQUENCE, RT_ERR_INVALID (capacity), RT_ERR_PAGES (fewer pages are bound than its
 * tokens need), RT_ERR_BUSY (as rt_seq_fork; or rt_host_hold), RT_ERR_UNSUPPORTED (with
 * context_parallel a rank has a part of the tokens), RT_ERR_DRIVER.
 */
RT_API enum rt_status rt_seq_export(rt_runtime *runtime, rt_seq seq, void *to, uint64_t capacity,
                                    uint64_t *needed);

/*
 * Opens a sequence of builtin pages with tokens that rt_seq_export gave, of this runtime or of one
 * that is alike; last_token is as rt_seq_params has it. `from` is not needed afterwards. Whose
 * pages come in another layout or page size is rt_kv_convert's to take (replayrt/kv_ops.h).
 * Returns RT_ERR_INVALID (the bytes are no sequence, or were changed), RT_ERR_UNSUPPORTED (layout,
 * d_qk, d_v, layers, page size, rope order or a KV scale is not this runtime's: both are told), and
 * as rt_seq_open. Nothing changes then. Waits for the copies.
 */
RT_API enum rt_status rt_seq_import(rt_runtime *runtime, const void *from, uint64_t bytes,
                                    int32_t last_token, rt_seq *out);

/*
 * Pages that outlive their sequence, for the common beginnings of many (docs/prefix_cache.md). Each
 * must be in use: held by a sequence of builtin pages (rt_seq_pages), or retained. A retained page
 * stays when its sequences close or rewind, until it is released as often as it was retained; a
 * page that stands in the call twice is retained twice. All or nothing; the device is not told.
 *
 * What stays is what is there: all tokens of a full page, and of the page that a sequence still
 * fills those that rt_seq_length counts. The sequence goes on in the same page, behind them; a
 * rewind to fewer tokens in it gives the sequence a copy, and leaves the page as it is.
 * Returns RT_ERR_INVALID (no such page, or one that is not in use), RT_ERR_PAGES (a page has 65535
 * references, sequences' and the caller's together).
 */
RT_API enum rt_status rt_pages_retain(rt_runtime *runtime, const int32_t *pages, uint32_t count);

/*
 * Releases what was retained, likewise all or nothing. References of sequences are none that can be
 * released: RT_ERR_INVALID where a page was not retained that often. A page whose last reference
 * goes is free at once, and steps in flight that still read or write it are unharmed, as in
 * rt_seq_close: who gets it next writes it behind them on the stream, or asks rt_seq_quiet.
 */
RT_API enum rt_status rt_pages_release(rt_runtime *runtime, const int32_t *pages, uint32_t count);

#ifdef __cplusplus
}
#endif
#endif
