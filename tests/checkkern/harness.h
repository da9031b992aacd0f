/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_HARNESS_H
#define RT_TESTS_CHECKKERN_HARNESS_H

/*
 * checkkern holds each device kernel against its C reference, through the driver table. A buffer
 * has two sides: `ref`, which the C reference works on, and `device`. Both start the same; after
 * the two have run, they are compared.
 *
 * A driver call that fails ends the program: there is nothing to compare then.
 */
#include "driver/driver.h"
#include "kernels/op.h"
#include "tests/checkkern/random.h"

/* Bytes behind every buffer that nobody may write. */
#define CK_GUARD_BYTES 256u

enum ck_side { CK_REF, CK_DEVICE };

struct ck_buffer {
    const char *name;
    uint64_t bytes; /* without the guard */
    unsigned char *ref;
    rt_addr device;
    unsigned char *mapped; /* the host's view of the device side, for mapped buffers; else null */
};

/* The worst that a tensor of some name came to in a test, and in which case. */
struct ck_record {
    const char *tensor;
    double share, difference, cosine;
    char where[200];
};
#define CK_MAX_RECORDS 4

/* What a test has seen of one backend. */
struct ck_tally {
    const char *backend;
    uint32_t cases;
    uint64_t compared, query_rows; /* held against the truth, of all */
};
#define CK_MAX_TALLIES 4

struct ck {
    struct rt_driver driver;
    struct rt_kernels kernels;
    rt_dstream stream;
    uint64_t seed;
    bool full, quick; /* many more cases; of tests with many, fewer */
    /* What is being checked, for the message of a failure. */
    const char *test;
    char where[200];
    uint32_t cases, failures;
    struct ck_record records[CK_MAX_RECORDS];
    struct ck_tally tallies[CK_MAX_TALLIES];
};

struct ck_test {
    const char *name;
    void (*run)(struct ck *ck);
    void (*bench)(struct ck *ck); /* or null */
};
extern const struct ck_test ck_tests[]; /* ends with a null name */

void ck_schedule_run(struct ck *ck);
void ck_schedule_bench(struct ck *ck);
void ck_schedule_append_run(struct ck *ck);
void ck_all_reduce_run(struct ck *ck);
void ck_append_run(struct ck *ck);
void ck_append_bench(struct ck *ck);
void ck_append_general_run(struct ck *ck);
void ck_append_quant_run(struct ck *ck);
void ck_append_quant_bench(struct ck *ck);
void ck_chunk_rows_run(struct ck *ck);
void ck_context_rows_run(struct ck *ck);
void ck_embed_run(struct ck *ck);
void ck_embed_bench(struct ck *ck);
void ck_input_norm_run(struct ck *ck);
void ck_input_norm_bench(struct ck *ck);
void ck_kv_convert_run(struct ck *ck);
void ck_kv_convert_bench(struct ck *ck);
void ck_kv_gather_run(struct ck *ck);
void ck_kv_gather_bench(struct ck *ck);
void ck_all_reduce_norm_run(struct ck *ck);
void ck_context_merge_run(struct ck *ck);
void ck_merge_run(struct ck *ck);
void ck_merge_bench(struct ck *ck);
void ck_mla_block_run(struct ck *ck);
void ck_mla_block_bench(struct ck *ck);
void ck_moe_block_run(struct ck *ck);
void ck_moe_block_bench(struct ck *ck);
void ck_preattend_run(struct ck *ck);
void ck_preattend_bench(struct ck *ck);
void ck_preattend_quant_run(struct ck *ck);
void ck_preattend_quant_bench(struct ck *ck);
void ck_preattend_sums_run(struct ck *ck);
void ck_preattend_sums_bench(struct ck *ck);
void ck_preattend_absorb_run(struct ck *ck);
void ck_preattend_absorb_bench(struct ck *ck);
void ck_prefill_run(struct ck *ck);
void ck_prefill_bench(struct ck *ck);
void ck_page_copy_run(struct ck *ck);
void ck_step_run(struct ck *ck);
void ck_step_bench(struct ck *ck);
void ck_attend_run(struct ck *ck);
void ck_attend_bench(struct ck *ck);
void ck_attend_quant_run(struct ck *ck);
void ck_attend_quant_bench(struct ck *ck);
void ck_reduce_run(struct ck *ck);
void ck_reduce_bench(struct ck *ck);
void ck_sparse_run(struct ck *ck);
void ck_sparse_bench(struct ck *ck);
void ck_take_run(struct ck *ck);
void ck_sample_run(struct ck *ck);
void ck_sample_bench(struct ck *ck);
void ck_project_run(struct ck *ck);
void ck_project_bench(struct ck *ck);
void ck_gate_run(struct ck *ck);
void ck_gate_bench(struct ck *ck);
void ck_route_run(struct ck *ck);
void ck_route_bench(struct ck *ck);
void ck_experts_run(struct ck *ck);
void ck_experts_bench(struct ck *ck);

/* Ends the program with the error's story. */
void ck_must(struct ck *ck, enum rt_status status, const struct rt_error *err);
#define CK_DRV(ck, op, args)                                                                       \
    do {                                                                                           \
        struct rt_error ck_err_ = {0};                                                             \
        enum rt_status ck_status_ = RT_DRV(&(ck)->driver, &ck_err_, op, args);                     \
        ck_must((ck), ck_status_, &ck_err_);                                                       \
    } while (0)

bool ck_is_cuda(const struct ck *ck);

/* --quick without a GPU: under the emulator or a sanitizer, where a case takes seconds. */
bool ck_is_brief(const struct ck *ck);

/* One case begins: counted, and named in failures. */
void ck_case(struct ck *ck, const char *fmt, ...) RT_PRINTF(2, 3);
/* Counts the case as failed and prints why, with the test, the case and the seed. */
void ck_failed(struct ck *ck, const char *fmt, ...) RT_PRINTF(2, 3);

/* Keeps the worst case of the test by tensor; printed at its end. `share`: of the bound. */
void ck_note_worst(struct ck *ck, const char *tensor, double share, double difference,
                   double cosine);

/* One case more of that backend, of which so many query rows met the truth; printed at the end. */
void ck_count(struct ck *ck, const char *backend, uint64_t compared, uint64_t query_rows);

/* Both sides hold `fill`; at least one byte. Ended by ck_free. */
struct ck_buffer ck_alloc(struct ck *ck, const char *name, uint64_t bytes, unsigned char fill);
/* The device side is undefined until ck_upload: for what is large and filled by the caller. */
struct ck_buffer ck_alloc_later(struct ck *ck, const char *name, uint64_t bytes,
                                unsigned char fill);
/* The device side is mapped host memory. */
struct ck_buffer ck_alloc_mapped(struct ck *ck, const char *name, uint64_t bytes,
                                 unsigned char fill);
void ck_free(struct ck *ck, struct ck_buffer *b);
void *ck_at(const struct ck_buffer *b, enum ck_side side);

/* ref -> device, guard included. */
void ck_upload(struct ck *ck, const struct ck_buffer *b);
/* device -> `to`, [bytes + CK_GUARD_BYTES]. */
void ck_download(struct ck *ck, const struct ck_buffer *b, void *to);
/* Likewise, to be freed. */
void *ck_fetch(struct ck *ck, const struct ck_buffer *b);
/* One operator's launch: of its plain variant, or of the one that is given. */
enum rt_status ck_build(struct ck *ck, enum rt_op_id op, const void *params, size_t param_bytes,
                        struct rt_launch *out, struct rt_error *err);
enum rt_status ck_build_variant(struct ck *ck, const struct rt_variant *variant, const void *params,
                                size_t param_bytes, struct rt_launch *out, struct rt_error *err);
/* Runs one launch to its end; `err` is what building the launch said. */
void ck_launch(struct ck *ck, enum rt_status built, const struct rt_error *err,
               const struct rt_launch *launch);

/* As nodes of a graph, one behind the other, along programmatic edges where a launch waits. */
void ck_launch_chain(struct ck *ck, const struct rt_launch *launches, uint32_t count);

/* The two sides are the same in every byte, guard included. False: printed and counted. */
bool ck_expect_same(struct ck *ck, const struct ck_buffer *b);
bool ck_expect_bytes(struct ck *ck, const char *name, const void *found, const void *expected,
                     uint64_t bytes);

void *ck_new(struct ck *ck, uint64_t bytes); /* zeroed host memory; free() */

/* Device memory becomes random numbers of bf16 below `most`, the same over and over. */
void ck_fill_bf16(struct ck *ck, rt_addr to, uint64_t bytes, double most);

/* Replays of a timed graph, those that warm up included. */
#define CK_REPLAYS 17
/* Median ns per launch of a graph that replays `launches` one after the other. */
double ck_time_ns(struct ck *ck, const struct rt_launch *launches, uint32_t count);

#endif
