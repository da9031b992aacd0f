/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_GPU_SUITE_H
#define RT_TESTS_GPU_SUITE_H

/*
 * gpu-tests: one program that proves a build on a machine where only a driver exists. No test
 * framework: each test prints what it saw and says passed, failed or skipped.
 */
#include "replayrt/rt.h"

#include <stdbool.h>

struct gpu_suite {
    const char *device; /* "cuda:0" */
    bool quick;         /* fewer steps, for runs under compute-sanitizer */
    /* every_call_fails_once: of every `parts` calls the one that is `part`, from 0 on. */
    unsigned part, parts;
};

enum gpu_outcome { GPU_PASSED, GPU_FAILED, GPU_SKIPPED };

/* Prints one indented line; returns GPU_FAILED, so that it can stand after return. */
enum gpu_outcome gpu_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A small configuration on the suite's device: 16 heads of 576/512, 2 layers, buckets 1 4 16, query
 * lengths 1 2, page 64, 24 sequences. */
void gpu_config(const struct gpu_suite *suite, struct rt_config *config);

enum gpu_outcome gpu_replay(const struct gpu_suite *suite);
enum gpu_outcome gpu_one_launch(const struct gpu_suite *suite);
enum gpu_outcome gpu_every_call_fails_once(const struct gpu_suite *suite);
enum gpu_outcome gpu_nothing_leaks(const struct gpu_suite *suite);
enum gpu_outcome gpu_two_runtimes(const struct gpu_suite *suite);
enum gpu_outcome gpu_run_ahead(const struct gpu_suite *suite);
enum gpu_outcome gpu_other_thread(const struct gpu_suite *suite);
enum gpu_outcome gpu_audit(const struct gpu_suite *suite);
enum gpu_outcome gpu_host_agrees(const struct gpu_suite *suite);
enum gpu_outcome gpu_invariant(const struct gpu_suite *suite);
enum gpu_outcome gpu_operators(const struct gpu_suite *suite);
enum gpu_outcome gpu_stages(const struct gpu_suite *suite);
enum gpu_outcome gpu_chunks(const struct gpu_suite *suite);
enum gpu_outcome gpu_products(const struct gpu_suite *suite);
enum gpu_outcome gpu_block_ops(const struct gpu_suite *suite);
enum gpu_outcome gpu_model_ops(const struct gpu_suite *suite);
enum gpu_outcome gpu_measure(const struct gpu_suite *suite);

#endif
