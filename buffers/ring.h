/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BUFFERS_RING_H
#define RT_BUFFERS_RING_H

/*
 * The ring of input records and the completions that come back, in mapped host memory.
 *
 *   step 1 2 3 …  ->  record[step % depth]      written by the host before the launch
 *                     completion[step % depth]  written by step_end, `step` word last
 *
 * A record may be written again once the step `depth` before it is complete: so the host can be at
 * most `depth` steps ahead, and an overwritten record is never one the device still reads.
 */
#include "buffers/arena.h"
#include "common/record.h"

struct rt_ring {
    unsigned char *records;
    const unsigned char *completions;
    const uint64_t *completed; /* written by the device: last completed step */
    uint32_t depth;
    struct rt_record_format format;
    uint64_t next_step; /* number the next record gets; first is 1 */
};

void rt_ring_init(struct rt_ring *r, const struct rt_arena *arena);

/* Last completed step; everything the device wrote before it is visible after this returns. */
uint64_t rt_ring_completed(const struct rt_ring *r);

/* How many records can be written when the caller is done with the completions up to `done`. */
uint32_t rt_ring_room(const struct rt_ring *r, uint64_t done);

/* The record of next_step, to be filled; the caller has checked rt_ring_room. */
struct rt_record *rt_ring_record(const struct rt_ring *r);
struct rt_record_row *rt_ring_rows(const struct rt_ring *r, struct rt_record *record);
int32_t *rt_ring_tokens(const struct rt_ring *r, struct rt_record *record);
unsigned char *rt_ring_ops(const struct rt_ring *r, struct rt_record *record);

/* Asks for the lines of next_step's record that `rows` rows and `tokens` numbers behind them will
 * be written to: the device has read them in their last life. Any counts will do, also ones that do
 * not fit. */
void rt_ring_warm(const struct rt_ring *r, uint32_t rows, uint64_t tokens);

/* The record of a step that the ring still holds (step > next_step - 1 - depth). */
struct rt_record *rt_ring_record_of(const struct rt_ring *r, uint64_t step);
/* Completion of a completed step that the ring still holds. */
const struct rt_completion *rt_ring_completion(const struct rt_ring *r, uint64_t step);
const struct rt_row_outcome *rt_ring_outcomes(const struct rt_completion *c);
/* [rows, query_len] of its step */
const int32_t *rt_ring_outcome_tokens(const struct rt_ring *r, const struct rt_completion *c);

/* The record is launched: the next one may be asked for. Returns its step number. */
uint64_t rt_ring_advance(struct rt_ring *r);

#endif
