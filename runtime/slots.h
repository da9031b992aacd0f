/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_SLOTS_H
#define RT_RUNTIME_SLOTS_H

/*
 * How a sequence comes into a slot and goes from it, in steps that opening, forking, rewinding and
 * opening on shared pages have in common.
 */
#include "runtime/runtime.h"

/* The slot that opens next, closed as yet; null: all are open. */
struct rt_slot *rt_next_slot(const struct rt_runtime *rt);

/* Makes the next slot a sequence, with the pages in its line, and with a last token or without.
 * Behind it nothing may fail. */
void rt_slot_open(struct rt_runtime *rt, struct rt_slot *slot, bool builtin_pages, uint32_t length,
                  bool has_token);

/* RT_ERR_BUSY where steps in flight decide the sequence's length. `what` cannot be done then. */
enum rt_status rt_slot_decided(struct rt_runtime *rt, const struct rt_slot *slot, const char *what);

/* `count` free pages, which there must be, behind those in the slot's line. */
void rt_slot_take_pages(struct rt_runtime *rt, struct rt_slot *slot, uint32_t count);

/* The line of a slot without pages becomes these, each with a reference more; RT_ERR_PAGES where a
 * page has as many as it can: then none has got one. They must be in use. */
enum rt_status rt_slot_share_pages(struct rt_runtime *rt, struct rt_slot *slot,
                                   const int32_t *pages, uint32_t count);

/* A reference less for each page of the line, which is empty then. */
void rt_slot_drop_pages(struct rt_runtime *rt, struct rt_slot *slot);

/* The next record tells the device what the slot begins with: its length, its last token as
 * RT_OP_SET_SLOT has it, and its line. On failure nothing is pending. */
enum rt_status rt_slot_tell(struct rt_runtime *rt, const struct rt_slot *slot, uint32_t length,
                            int32_t last_token);

/* The same at once, in a control replay that also copies the tokens behind the last full page from
 * page `copied` into the line's last one; where there are none, `copied` is not looked at. */
enum rt_status rt_slot_tell_at_once(struct rt_runtime *rt, const struct rt_slot *slot,
                                    uint32_t length, int32_t last_token, int32_t copied);

/* rt_seq_open with shared pages, behind the checks that all opening has in common. */
enum rt_status rt_slot_open_shared(struct rt_runtime *rt, struct rt_slot *slot,
                                   const struct rt_seq_params *params);

/* ---- pending ops ---- */

void rt_put_op(struct rt_runtime *rt, enum rt_record_op_kind kind, uint32_t slot, int32_t a,
               int32_t b);
void rt_put_set_pages(struct rt_runtime *rt, uint32_t slot, uint32_t first, const int32_t *pages,
                      uint32_t count);
uint32_t rt_set_pages_bytes(uint32_t count);

/* Launches all that is pending at once. On failure what was put since `bytes` and `count` were
 * read is forgotten, and the rest stays pending. */
enum rt_status rt_flush_or_forget(struct rt_runtime *rt, uint32_t bytes, uint32_t count);

/* The control replay that was launched last reads `page` to copy it: rt_seq_quiet must know. */
void rt_note_copy(struct rt_runtime *rt, int32_t page);

/* A sequence is about to give up `page`: where others hold it, steps in flight read what is theirs
 * alone from now on, as rt_seq_quiet must know. */
void rt_note_left(struct rt_runtime *rt, int32_t page);

#endif
