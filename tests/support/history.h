/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_HISTORY_H
#define RT_TESTS_SUPPORT_HISTORY_H

/*
 * What a sequence has been fed, told by tags: its token at a position has the numbers of (tag,
 * position), whoever feeds them. So a sequence's past can be fed again to a fresh one, and what the
 * two are given for the same next token must be the same. For runtimes of fixture_config.
 */
#include "runtime/runtime.h"

#define HISTORY_HEADS 3
#define HISTORY_D_QK 288
#define HISTORY_OUT (HISTORY_HEADS * 256)

/* The latent of a token: what its row of the cache is to hold. */
void history_latent(uint32_t tag, uint32_t position, uint16_t *latent);

/* Writes q and latent of a row of the next step. */
void history_feed(rt_runtime *rt, uint32_t row, uint32_t tag, uint32_t position);

/* One step of one sequence. Names a token: the sequence may have been rewound. */
void history_step(rt_runtime *rt, rt_seq seq, uint32_t tag, uint32_t position);

/* Steps for positions [from, to). */
void history_grow(rt_runtime *rt, rt_seq seq, uint32_t tag, uint32_t from, uint32_t to);

/* A row's HISTORY_OUT numbers of the last step. */
void history_out(rt_runtime *rt, uint32_t row, uint16_t *out);

/* The last output of a fresh sequence of tag a up to `fork`, then tag b up to `to`. */
void history_truth(rt_runtime *rt, uint32_t a, uint32_t fork, uint32_t b, uint32_t to,
                   uint16_t *out);

#endif
