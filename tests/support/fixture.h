/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_FIXTURE_H
#define RT_TESTS_SUPPORT_FIXTURE_H

/* A small runtime on the host device (or the device that RT_TEST_DEVICE names), for tests that look
 * inside it. */
#include "runtime/runtime.h"

/* 3 heads of 288/256, 2 layers, buckets 1 2 4, query lengths 1 3, page 16, 6 sequences of 80
 * tokens, 24 pages, ring of 3. Small enough that every edge is a few steps away. */
void fixture_config(struct rt_config *config);

/* Creates or fails the test, printing the error. `config` null: fixture_config's. */
rt_runtime *fixture_create(const struct rt_config *config);

/* Of fixture_config on the host device, with one stage, which may read and write tensors there. */
rt_runtime *fixture_create_stage(enum rt_stage_point point, rt_stage_fn stage, void *user);

/* Where a tensor begins, on the host device; null: it has none of that name. */
void *fixture_address(rt_runtime *rt, const char *name, uint32_t layer);

/* Opens an empty sequence with builtin pages, or fails the test. */
rt_seq fixture_open(rt_runtime *rt);

/* One step of these sequences with query length q; the status as it is. */
enum rt_status fixture_step(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint32_t q,
                            uint64_t *ticket);

/* fixture_step, then rt_wait; fails the test unless both are RT_OK. */
void fixture_step_ok(rt_runtime *rt, const rt_seq *seqs, uint32_t rows, uint32_t q);

/* Random bf16 in [-1, 1] for all of q and latent, NaN in unused pool pages' stead: fills kv too. */
void fixture_randomise(rt_runtime *rt, uint64_t seed);

/* xorshift64*: the tests' only source of chance. Never 0. */
uint64_t fixture_random(uint64_t *state);

/*
 * Everything observable of a runtime: sequence lengths, page tables, free pages in the order in
 * which they will be taken, references, pending ops, ring position. Two equal snapshots: nothing
 * has changed.
 */
struct fixture_snapshot {
    uint64_t next_step, harvested;
    uint64_t free_pages, open_sequences;
    uint32_t ops_bytes, ops_count;
    uint64_t table_hash, slots_hash, pages_hash;
};
void fixture_snapshot(rt_runtime *rt, struct fixture_snapshot *out);

#endif
