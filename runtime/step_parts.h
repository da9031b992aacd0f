/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_STEP_PARTS_H
#define RT_RUNTIME_STEP_PARTS_H

/* What steps that decode and chunks of prompts share: rows that decode, and a launch. */
#include "runtime/slots.h"

uint64_t rt_step_now_ns(void);

/* ---- checks: nothing is changed, but that rows are marked as named in this attempt ----------- */

/* `function`: whose they are, for messages. */
enum rt_status rt_step_check_flags(struct rt_runtime *rt, const char *function, uint32_t flags);
/* RT_ERR_BUSY where there is no record. */
enum rt_status rt_step_check_room(struct rt_runtime *rt);
/* The rows of one attempt, with their tokens and accepted counts; *new_pages grows: of all
 * sequences at full length they may be 2^32 and more. */
enum rt_status rt_step_check_rows(struct rt_runtime *rt, const struct rt_step_params *p,
                                  uint32_t query_len, uint64_t *new_pages);
/* `whose`: what they are for, as a message begins. */
enum rt_status rt_step_check_pages(struct rt_runtime *rt, const char *whose, uint64_t new_pages);

/* ---- writing a record, and taking it back ---------------------------------------------------- */

/* Rows of a step that go into one record: accept and query_lens as rt_step_params has them. */
struct rt_step_rows {
    const rt_seq *seqs;
    const int32_t *accept;
    const uint32_t *query_lens;
    uint32_t count, query_len;
};
struct rt_step_rows rt_step_rows_of(const struct rt_step_params *p, uint32_t first, uint32_t count,
                                    uint32_t query_len);

/* Writes checked rows and advances the host's view of their sequences. True: the device decides how
 * many tokens of some row stay. */
bool rt_step_write_rows(struct rt_runtime *rt, const struct rt_step_rows *r,
                        struct rt_record_row *rows);
/* Undoes that for the rows of a record that could not be launched. */
void rt_step_unwrite_rows(struct rt_runtime *rt, const struct rt_record_row *rows, uint32_t count);
void rt_step_write_tokens(const struct rt_step_params *p, uint32_t first, uint32_t rows,
                          uint32_t query_len, int32_t *out);

enum rt_status rt_step_launch(struct rt_runtime *rt, struct rt_captured *g, bool eager);

/* The rows from `first` on in replays of their own behind that of the call's prompts, which was
 * step `first_step`. Graphs of that query length are there. */
enum rt_status rt_step_replay_rest(struct rt_runtime *rt, const struct rt_step_params *p,
                                   uint32_t first, uint32_t query_len, uint64_t first_step);

/* rt_step with prompts. */
enum rt_status rt_step_mixed(struct rt_runtime *rt, const struct rt_step_params *params,
                             uint64_t *ticket);

#endif
