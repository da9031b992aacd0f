/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_RT_H
#define REPLAYRT_RT_H

/*
 * replayrt: the attention of multi-head latent attention (MLA) models, one CUDA-graph launch per
 * token that is decoded, or per chunk of prompts (rt_prefill, rt_step_params.prompts).
 *
 * Laws of this header
 *  1. Parameter structs need live only until the function returns. Set struct_size to sizeof the
 *     struct; every other field of a zeroed struct is the documented default, and what is called
 *     reserved must be 0. Two exceptions: a struct rt_config starts from rt_config_default, and a
 *     zeroed rt_seq_params.last_token is token 0, not -1 for none. Structs grow at their end: a
 *     struct_size smaller than this library's means the default for what is missing, of a result
 *     that much less is written; a larger one, 65536 at most, needs a tail of zeros. A struct
 *     inside another does not grow.
 *  2. Device memory, streams and callbacks' user pointers given to rt_create are borrowed: they
 *     must outlive the runtime, because the captured graphs hold them.
 *  3. rt_destroy(&x) accepts a null x and writes null.
 *  4. One runtime is used by one thread at a time; different ones are independent. There is no
 *     global state. The exceptions are rt_completed and rt_completed_word: any thread, any time.
 *  5. "must" is checked: a violation returns a code and a sentence with the values in it, and the
 *     state is as before.
 *  6. Nothing here blocks, except where the comment says so.
 *
 * Words
 *  sequence  a request with its own KV cache; lives in a *slot* on the device until closed
 *  row       one sequence's part in one step; query_len tokens wide
 *  bucket    a captured padded batch size
 *  d_qk, d_v kv_lora_rank + qk_rope_head_dim, and kv_lora_rank: the absorbed (MQA) form of MLA
 *  bf16      bfloat16, as uint16_t bits on the host
 */
#include "replayrt/rt_config.h"
#include "replayrt/rt_sequences.h"
#include "replayrt/rt_tensors.h"
#include "replayrt/status.h"
#include "replayrt/version.h"

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rt_weights rt_weights; /* see replayrt/layer.h */
typedef struct rt_ranks rt_ranks;     /* see replayrt/ranks.h */

/* "0.1.0", static storage: the library's version, which may differ from the header's. */
RT_API const char *rt_version(void);

/* ---- stages of the caller -------------------------------------------------------------------- */

/* Every graph has them all: those of steps, and those of chunks of prompts (context->chunk). */
enum rt_stage_point {
    RT_STAGE_STEP_BEGIN = 0,   /* after lengths and positions are known, before layer 0 */
    RT_STAGE_BEFORE_ATTENTION, /* per layer: must leave q and latent of the layer's rows */
    RT_STAGE_AFTER_ATTENTION,  /* per layer: may read out and lse */
    RT_STAGE_STEP_END,         /* after the last layer: may write sampled and accepted */
    /* Per layer, with rt_config.topk alone: behind what leaves q and the layer's new keys in the
     * cache, in front of its attention; may read both, and hidden and normed, and must leave
     * sparse_indices and sparse_counts where no earlier stage has. */
    RT_STAGE_INDEXER,
    RT_STAGE_POINT_COUNT
};

struct rt_stage_context {
    uint32_t struct_size;
    enum rt_stage_point point;
    uint32_t layer;      /* 0 for the two step points */
    uint32_t batch;      /* the graph's padded batch size; of a chunk, prompts' rows included */
    uint32_t query_len;  /* the graph's: columns of a row. A chunk's `tokens` are no rows of them */
    uint32_t host;       /* 1: host device, tensor addresses are host pointers, do the work now */
    void *stream;        /* CUDA: CUstream (= cudaStream_t) to put the work on; null on host */
    rt_runtime *runtime; /* for rt_tensor and rt_completed only */
    uint32_t tokens;     /* of all rows, padded; batch * query_len, but those of a chunk */
    uint32_t chunk;      /* of these, the first ones that are prompts'; 0: a step that decodes */
    uint32_t part;       /* 0; 1, 2, ... behind exchanges that the stage goes on behind */
    uint32_t reserved;
};

/*
 * Puts the caller's work of one stage on context->stream. Returns 0, or anything else to fail.
 * Rows r >= the live count are padding: read `live_rows` on the device. Of this runtime a stage may
 * call rt_tensor and rt_completed only.
 *
 * CUDA: called once per graph at create, with the stream capturing in thread-local mode
 * (CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), and again on every eager step, without capture. It may
 * launch kernels, and fork to streams of its own that it joins again by events, with at most 32
 * ends. It must not synchronise, query, allocate or use the legacy default stream on this thread:
 * the driver fails that and ends the capture (RT_ERR_DRIVER). Other threads are free. What it
 * captures is replayed as it is: addresses and launch sizes are those of create.
 *
 * Host device: called at every step, in the thread that runs the step's work, and does it at once.
 *
 * Anything else that it calls on this runtime is refused: RT_ERR_INVALID, and rt_destroy does
 * nothing but leave its sentence.
 */
typedef int (*rt_stage_fn)(void *user, const struct rt_stage_context *context);

/*
 * A device allocation that the caller's stages use. What the audit rejects, at create and in
 * rt_audit, with RT_ERR_AUDIT and the stage's name:
 *   - a node that is not a kernel: copy, fill, host function, allocation, empty node, child graph
 *   - in a kernel of a stage, an aligned 8-byte word of the parameters that is an address in an
 *     allocation known to the driver (device, managed or pinned memory) but in none of the regions,
 *     the arena, the pool and the mapped ring
 *   - in a kernel of the runtime's own, any pointer that lies in none of these
 * What it cannot see: pointers in device memory, words that only become an address there, and those
 * in the first 64 KiB of each 4 GiB below 2^48, for two small numbers in a word are alike.
 *
 * A stage of rt_create_params.foreign_stages may copy and fill besides (nodes of copies, fills,
 * events, nothing) and none of its pointers is looked at: it is what an NCCL collective or a cuBLAS
 * product captures, see docs/stages.md. Memory that it uses must stay where it is for the runtime's
 * life.
 */
struct rt_memory_region {
    uint64_t address;
    uint64_t bytes;
};

/* ---- create and destroy ---------------------------------------------------------------------- */

enum rt_log_level { RT_LOG_INFO = 0, RT_LOG_WARNING };
typedef void (*rt_log_fn)(void *user, enum rt_log_level level, const char *message);
/* done graphs of total are captured. */
typedef void (*rt_progress_fn)(void *user, uint32_t done, uint32_t total);

#define RT_CREATE_NO_EMPTY_STAGES 1u /* they fail it, RT_ERR_CALLBACK; else create only warns */
/* Stages read `tokens`: who has no last token, as opened or rewound, must name one to be stepped */
#define RT_CREATE_NEEDS_TOKENS 2u

struct rt_create_params {
    uint32_t struct_size;
    uint32_t flags; /* RT_CREATE_* */
    const struct rt_config *config;

    rt_stage_fn stages[RT_STAGE_POINT_COUNT]; /* null: no stage at that point */
    void *stage_user;
    const struct rt_memory_region *regions; /* memory the stages use; may be null */
    uint32_t region_count;
    /* Stages that are foreign, bit RT_STAGE_* each: libraries' own nodes and memory, see
     * struct rt_memory_region. The audit proves nothing of them; create's log and rt_dot name
     * them. */
    uint32_t foreign_stages;

    /* On the host device the next five must be 0: RT_ERR_UNSUPPORTED. */
    /* CUstream that all work goes to, one that may be captured. Null: a stream of the runtime's
     * own, which does not wait for the legacy default stream, nor that for it. */
    void *stream;
    /* The caller's memory instead of the runtime's own: both 256-byte aligned, at least as large as
     * rt_sizes says. 0: allocate. */
    uint64_t arena_address, arena_bytes;
    uint64_t pool_address, pool_bytes;

    rt_log_fn log;           /* messages of create (device chosen, kernels chosen); may be null */
    rt_progress_fn progress; /* may be null */
    void *log_user;
    /* Of the foreign stages, those that may also capture host functions: each stops the device for
     * some ten microseconds of every replay. */
    uint32_t host_function_stages;
    /* Stages whose last kernel may be overlapped by the runtime's next one: each of their kernels
     * waits for all that is in front of it before it is over, as every kernel does whose launch
     * does not ask for the contrary, and as those of rt_ops_overlap do. */
    uint32_t overlapped_stages;
    const rt_weights *weights; /* with rt_config.layer, null without: copied */
    rt_ranks *ranks;           /* replayrt/ranks.h; null: this is the only one. Outlives it. */
    /* With kv_cache.layout fp8_tensor, null without: [layers] what numbers of each layer's cache
     * are multiplied by when they are read, above 0 and finite; null: rt_config.kv_scale. Copied
     * into the graphs. */
    const float *kv_scales;
    /* replayrt/ranks.h: what ranks have for each other behind stages, [exchange_count], copied. */
    const struct rt_stage_exchange *exchanges;
    uint32_t exchange_count, reserved;
    /* A runtime of this device, and of the same rank of as many: what create chooses by measuring
     * is chosen as for that one, where it was, so that both give the same bits (docs/layer.md). All
     * ranks give one, or none does. Not used when create has returned. Null: all is measured. */
    const rt_runtime *like;
};

/*
 * Decides every address, loads every kernel, captures, audits, instantiates and uploads one graph
 * per (bucket, query length), or up to three (small_tiles). Blocks for tens of milliseconds.
 * On success *out is owned by the caller until rt_destroy. On failure *out is null, everything is
 * released, and *error says what happened.
 */
RT_API enum rt_status rt_create(const struct rt_create_params *params, rt_runtime **out,
                                struct rt_error *error);

/* Waits for the steps in flight, then releases everything and writes null. Blocks. */
RT_API void rt_destroy(rt_runtime **runtime);

struct rt_sizes {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t arena_bytes;  /* device memory besides the KV pool */
    uint64_t pool_bytes;   /* KV pool: layers * pages * page_size tokens of the cache's layout */
    uint64_t mapped_bytes; /* pinned host memory, always the runtime's own */
    uint64_t pages;
};
/* What rt_create would allocate on the device that the configuration names. Opens the device. */
RT_API enum rt_status rt_sizes(const struct rt_config *config, struct rt_sizes *out,
                               struct rt_error *error);

/*
 * Makes the device's context current on the calling thread until rt_thread_leave, which restores
 * what was current before; the two nest. Optional: everything works without. But a launch from a
 * thread that has the context current is cheaper, and a decode loop's thread mostly has it anyway,
 * from the CUDA runtime or from its own driver calls. Nothing on the host device.
 */
RT_API enum rt_status rt_thread_enter(rt_runtime *runtime);
RT_API enum rt_status rt_thread_leave(rt_runtime *runtime);

/* The last failure on this runtime: valid until the next call on it; never null. */
RT_API const struct rt_error *rt_last_error(const rt_runtime *runtime);

/* ---- the step -------------------------------------------------------------------------------- */

#define RT_STEP_EAGER 1u /* walk the same stages on the stream instead of replaying the graph */
#define RT_STEP_ANY_LENGTH 2u  /* of several graphs (small_tiles) that for any lengths */
#define RT_STEP_MOST_BLOCKS 4u /* of those for few blocks that serve the step that for the most */

#define RT_ACCEPT_ALL 0       /* all of the row's tokens stay */
#define RT_ACCEPT_DEVICE (-1) /* tensor `accepted`, written by a stage, says how many stay */

/* Tokens of a prompt that go in at once: all that are left of it, or a part. */
struct rt_prompt {
    rt_seq seq;
    const int32_t *tokens; /* [count] >= 0, but the first may be -1: the slot's last token */
    uint32_t count;        /* >= 1 */
    uint32_t reserved;     /* 0 */
};

struct rt_step_params {
    uint32_t struct_size;
    uint32_t flags;     /* RT_STEP_* */
    uint32_t rows;      /* sequences in this step: 1..max_sequences; 0 with prompts or idle_batch */
    uint32_t query_len; /* columns: tokens per row, one of the captured; 0 means 1 */
    const rt_seq *seqs; /* [rows], each at most once */
    /* [rows, query_len] int32 >= -1, tensor `tokens`; null: all -1. Column 0 that is -1 becomes the
     * slot's last token, another the draft for it that the sequence's last step left in `drafts`;
     * where there is none, it stays -1. A sequence rewound to a shorter past must have its token
     * named here, in column 0; its drafts are gone. */
    const int32_t *tokens;
    /* [rows] RT_ACCEPT_ALL, RT_ACCEPT_DEVICE or 1..the row's tokens; null: RT_ACCEPT_ALL */
    const int32_t *accept;
    /* A mixed step: prompts, whose tokens all stay, in front of the rows: one replay of a chunk's
     * graph. With rt_config.layer more rows than the largest of mixed_rows are served, too: the
     * rest in steps' graphs behind it, row_base counting the prompts; else they are refused, as are
     * prompts with more cached tokens together than a chunk expands (docs/prompts.md). */
    const struct rt_prompt *prompts; /* [prompt_count], of sequences that no row names */
    uint32_t prompt_count;
    /* With rows 0: the graph of this captured batch size is replayed without a live row, as ranks
     * do that have nothing to decode while others have. */
    uint32_t idle_batch;
    /* Ragged rows: [rows] how many tokens each has, 1..query_len, its first columns; null: all. A
     * row is served as if it had query_len tokens: what its own get is bit for bit the same. The
     * columns behind them name no token, are not appended, need neither pages nor room below
     * max_length, and what tensors have in them means nothing. */
    const uint32_t *query_lens;
};

/*
 * One step: every row's query_len tokens are appended to its KV cache and attended in every layer.
 * Checks, writes one record, launches one graph: exactly one driver call, no allocation, no lock,
 * no wait. More rows than the largest bucket are served by several replays, one launch each.
 * Results are of the prompts first, where there are some, then of the rows, in the order given.
 * Stream-ordered: inputs (q, latent) must be written on the runtime's stream or be complete before.
 * *ticket (may be null) is for rt_wait and rt_result.
 * Returns RT_ERR_BUSY (ring full, or a length that steps in flight decide: wait for an older step),
 * RT_ERR_INVALID, RT_ERR_ROWS (also: more replays than ring_depth, prompts that no graph holds),
 * RT_ERR_UNSUPPORTED (prompts without chunks), RT_ERR_QUERY_LEN, RT_ERR_SEQUENCE, RT_ERR_DUPLICATE,
 * RT_ERR_LENGTH, RT_ERR_PAGES, RT_ERR_CALLBACK (a stage failed: host device, or an eager step,
 * which then waits for what it had launched), RT_ERR_RANKS (replayrt/ranks.h), RT_ERR_DRIVER (the
 * device may be lost). On any of them nothing has changed, *ticket included, with one exception:
 * where a later one of several replays fails, the rows of those before it have had their step, and
 * *ticket is that of the last of these, so that rt_result counts the rows.
 */
RT_API enum rt_status rt_step(rt_runtime *runtime, const struct rt_step_params *params,
                              uint64_t *ticket);

/*
 * Waits until the step is complete and its outputs are visible, spinning on a word that the device
 * writes. timeout_ns 0 only looks; UINT64_MAX waits for ever. Blocks.
 * Returns RT_ERR_TIMEOUT (see also rt_host_hold), RT_ERR_INVALID (no such ticket), RT_ERR_DRIVER
 * (the device failed; the driver is asked once per millisecond of one wait, so a shorter timeout
 * never learns of it), RT_ERR_CALLBACK (likewise, a stage on the host device), RT_ERR_DEVICE_CHECK
 * (the device refused part of this step's record, or is idle without having completed the step).
 */
RT_API enum rt_status rt_wait(rt_runtime *runtime, uint64_t ticket, uint64_t timeout_ns);

/*
 * For other threads: every ticket up to *ticket is complete; 0: none is. All that those steps wrote
 * is there for who has seen it: it is an acquire load of a word that the device writes last in each
 * step, and control replays count in it too. It never goes back. May be called from any thread, at
 * any time between rt_create's return and rt_destroy's call, also while another thread is inside of
 * a call on the runtime, and from a stage. It does not block, lock or call the driver, and changes
 * nothing: of results, lengths and statistics the runtime's own thread takes notice. It does not
 * tell whether the device refused part of a step, or has failed, where the number stays as it is:
 * rt_wait does, also with timeout 0.
 * Returns RT_ERR_INVALID where one of the two is null; leaves no sentence in rt_last_error.
 */
RT_API enum rt_status rt_completed(const rt_runtime *runtime, uint64_t *ticket);

/*
 * Where that word is, for who polls it without a call: 8-byte aligned, alone in 64 bytes of pinned
 * host memory, the same for the runtime's life; after rt_destroy it must not be touched. To be read
 * only, whole, and with acquire order: atomic_load_explicit of an _Atomic uint64_t in C11,
 * std::atomic_ref or __atomic_load_n, AtomicU64::load. A plain read puts nothing behind it, so it
 * will not do. Of threads and failures the same holds as of rt_completed.
 */
RT_API enum rt_status rt_completed_word(const rt_runtime *runtime, const uint64_t **word);

/* Waits until the runtime's stream is idle: every step and every copy on it is done. Blocks; for
 * leaving the hot path, e.g. before memory that stages use is freed. Returns RT_ERR_DRIVER. */
RT_API enum rt_status rt_synchronize(rt_runtime *runtime);

struct rt_row_result {
    int32_t accepted; /* tokens that stayed */
    int32_t sampled;  /* tensor `sampled` of the row; -1 where no stage wrote it */
};
/* Results of a completed step by row: at most capacity are written, *count gets how many there are.
 * RT_ERR_INVALID before it is complete, and once its record is reused (rt_config.ring_depth). */
RT_API enum rt_status rt_result(rt_runtime *runtime, uint64_t ticket, struct rt_row_result *rows,
                                uint32_t capacity, uint32_t *count);

/* Likewise the step's tokens, [rows, query_len], of which the first `accepted` of a row stayed: as
 * the rows had them on the device, last tokens and drafts that were made there among them; -1 where
 * the device refused the row. In front of them is each prompt's last. capacity and *count are
 * tokens. */
RT_API enum rt_status rt_result_tokens(rt_runtime *runtime, uint64_t ticket, int32_t *tokens,
                                       uint32_t capacity, uint32_t *count);

/*
 * Prompts of any lengths, in as many replays as they need: chunks of rt_config.chunks tokens, each
 * full of what comes next in the order given, up to rt_config.prefill_rows sequences in one. As in
 * rt_step a token is appended and attends to all before it.
 *
 * All is checked before anything is launched; then the pages of each chunk are taken with it.
 * Blocks while more chunks are to be launched than the ring has records for, never longer.
 *
 * *ticket is that of the last chunk. Where a prompt ends, its row has a result (rt_result): that of
 * tickets[i], row rows[i], as long as the ring holds it; a decode step on the slot's last token
 * needs no look at it. Rows of prompts that go on in the next chunk have results too, which mean
 * nothing.
 * Returns RT_ERR_UNSUPPORTED (no chunks configured), and as rt_step, RT_ERR_BUSY only for a length
 * that steps in flight decide, RT_ERR_TIMEOUT where rt_host_hold keeps the ring full. Where a later
 * chunk fails (RT_ERR_DRIVER, RT_ERR_CALLBACK, RT_ERR_TIMEOUT) those before it stay, as
 * rt_seq_length tells, and *ticket is that of the last of these.
 */
struct rt_prefill_params {
    uint32_t struct_size;
    uint32_t flags;                  /* RT_STEP_* */
    const struct rt_prompt *prompts; /* [prompt_count], each sequence once */
    uint32_t prompt_count;           /* 1..max_sequences */
    uint32_t reserved;               /* 0 */
    uint64_t *tickets;               /* [prompt_count] or null, written as prompts end */
    uint32_t *rows;                  /* [prompt_count] or null, likewise */
};
RT_API enum rt_status rt_prefill(rt_runtime *runtime, const struct rt_prefill_params *params,
                                 uint64_t *ticket);

/* ---- knowing what happens -------------------------------------------------------------------- */

struct rt_bucket_stats {
    uint32_t struct_size;
    uint32_t nodes, batch, query_len;
    uint64_t replays;
    uint64_t live_rows;   /* summed over replays */
    uint64_t padded_rows; /* likewise: batch - live */
    uint64_t graph_bytes; /* device memory taken by instantiating and uploading the graph */
    uint64_t capture_ns;  /* build + audit + instantiate + upload */
    /* As rt_plan_graph has them. Graphs of one chunk that differ in context_tokens alone serve
     * longer pasts with the larger. */
    uint32_t chunk, decode_rows, context_tokens, most_blocks;
};

struct rt_stats {
    uint32_t struct_size;
    uint32_t bucket_count;
    uint64_t steps;           /* rt_step calls that succeeded, and chunks of rt_prefill */
    uint64_t replays;         /* records of rows: graph launches, and those walked instead */
    uint64_t eager_steps;     /* of the steps, those walked on the stream */
    uint64_t control_replays; /* launches that only carried forks, rewinds or bulk page changes */
    uint64_t busy;            /* RT_ERR_BUSY returned */
    uint64_t host_ns_last, host_ns_total; /* inside rt_step, launch included */
    /* From the device's own clock, over the completed steps seen so far. A step is an rt_step call
     * that succeeded, of however many replays, or one chunk of rt_prefill, of which a call may have
     * many; a control replay is none. */
    uint64_t gpu_steps;
    uint64_t gpu_ns_last, gpu_ns_total; /* the first replay's start to the last one's end */
    uint64_t gap_steps;
    /* From a step's last attention to the next one's first; not over a step that failed half-way,
     * nor, but for gap_graph_ns, over one without attention of rows: a chunk, blocks as kernels. */
    uint64_t gap_ns_last, gap_ns_min, gap_ns_total;
    /* The last one in three: to step_end's completion, the next graph's start, attention. */
    uint64_t gap_end_ns, gap_graph_ns, gap_begin_ns;
    uint64_t free_pages, open_sequences;
    uint64_t retained_pages; /* that the caller retains, whether or not sequences hold them too */
};
RT_API enum rt_status rt_get_stats(rt_runtime *runtime, struct rt_stats *out);
RT_API enum rt_status rt_get_bucket_stats(rt_runtime *runtime, uint32_t index,
                                          struct rt_bucket_stats *out);

enum rt_pages_limit { RT_LIMIT_CONFIGURED = 0, RT_LIMIT_MEMORY, RT_LIMIT_SEQUENCES };
struct rt_info {
    uint32_t struct_size;
    uint32_t host;           /* 1 on the host device */
    char device[64];         /* the device's own name */
    char device_reason[160]; /* where `auto` chose it: "cuda:N: " and why; of the host, why */
    uint32_t sm_count;
    uint32_t graphs;
    uint64_t pages;
    uint64_t arena_bytes, pool_bytes, mapped_bytes;
    uint64_t graph_bytes, capture_ns; /* summed over all graphs */
    uint64_t tokens; /* pages * page_size * context_parallel: of all ranks that share a context */
    uint64_t full_sequences; /* of max_length tokens that the pages hold at once */
    uint64_t memory_bytes;   /* free before anything was allocated; all of an assumed device */
    enum rt_pages_limit pages_limit; /* what set `pages`: all sequences at full length, or less */
    uint32_t kv_token_bytes;         /* of a token in the cache of one layer, scales included */
    const char *kv_layout;           /* as kv_cache.layout has it, static storage */
};
RT_API enum rt_status rt_get_info(rt_runtime *runtime, struct rt_info *out);

/* Checks again that every pointer baked into every graph lies in a registered allocation. */
RT_API enum rt_status rt_audit(rt_runtime *runtime);

/* A step's graph, of two that for any lengths, as Graphviz DOT; *needed counts the final NUL. */
RT_API enum rt_status rt_dot(rt_runtime *runtime, uint32_t batch, uint32_t query_len, char *text,
                             size_t capacity, size_t *needed);
/* Likewise the graph that rt_get_bucket_stats has at this index: one of a chunk too. */
RT_API enum rt_status rt_graph_dot(rt_runtime *runtime, uint32_t index, char *text, size_t capacity,
                                   size_t *needed);

/* ---- a busy device for tests ----------------------------------------------------------------- */

/*
 * Host device only (RT_ERR_UNSUPPORTED elsewhere): while held, launches and copies wait in order in
 * place of running inside of the call, so that a caller's own run-ahead and its RT_ERR_BUSY can be
 * tested without a GPU. hold 0 runs what waits, and ends it.
 * Meanwhile rt_wait runs out of time, at once where it would be for ever. rt_synchronize,
 * rt_tensor_read, rt_tensor_write and rt_destroy wait for the device, so they run all that waits.
 * An eager step is RT_ERR_UNSUPPORTED. A stage that fails when it is released has stopped the
 * device, as on CUDA: nothing queued runs, and every call that needs it tells of the failure.
 */
RT_API enum rt_status rt_host_hold(rt_runtime *runtime, uint32_t hold);

/* Runs the `count` oldest of what waits, or all where there are fewer: a replay is one, as are a
 * control replay and a copy. *ran (may be null) gets how many there were. */
RT_API enum rt_status rt_host_release(rt_runtime *runtime, uint32_t count, uint32_t *ran);

/* ---- plan: what create would do, without doing it -------------------------------------------- */

typedef struct rt_plan rt_plan;

/* assume: "h200", "h100", "a100" or "host" for a machine elsewhere; null: the configured device. */
RT_API enum rt_status rt_plan_create(const struct rt_config *config, const char *assume,
                                     rt_plan **out, struct rt_error *error);
RT_API void rt_plan_destroy(rt_plan **plan);
/* The last failure of the functions below on this plan: valid until the next one; never null. They
 * return RT_ERR_INVALID where something is null, of another size, or not there. A plan is used by
 * one thread at a time. */
RT_API const struct rt_error *rt_plan_last_error(const rt_plan *plan);

enum rt_plan_region { RT_REGION_ARENA = 0, RT_REGION_MAPPED, RT_REGION_POOL };
struct rt_plan_buffer {
    uint32_t struct_size;
    enum rt_plan_region region;
    const char *name; /* owned by the plan */
    enum rt_dtype dtype;
    uint32_t rank;
    uint64_t shape[4];
    uint64_t offset, bytes;
};
struct rt_plan_graph {
    uint32_t struct_size;
    uint32_t batch, query_len, stages;
    const char *backend; /* owned by the plan, as are the next two */
    const char *attend;  /* entry point of the chosen attend kernel */
    const char *reason;  /* why it was chosen */
    uint32_t parts;      /* parts that the schedule balances work over */
    uint32_t chunk;      /* tokens of prompts; 0: the graph of a step. Of a chunk: */
    uint32_t decode_rows, context_tokens; /* rows of query_len beside it, by `attend`; cached tokens
                                             it can expand, at most */
    const char *form; /* in which form its tokens attend, and why; of a step with layer: whether a
                       * block is one kernel, and why; "" for any other */
    /* Of several graphs of a batch size and query length the one that is replayed has the least of
     * these that is no less than the blocks of 64 keys of the step's rows. 0: any number. */
    uint32_t most_blocks;
    uint32_t reserved;
};
struct rt_plan_stage {
    uint32_t struct_size;
    uint32_t layer;
    const char *label, *entry; /* owned by the plan, as is reason */
    uint32_t grid[3], block[3], smem_bytes;
    uint32_t programmatic; /* 1: the edge into it is programmatic */
    const char *reason;    /* of a block's products: why these multiply; "" for all else */
    /* 0: behind the stage in front of it, and where that is of a branch behind the last stages of
     * all of them. 1, 2, …: of a branch, a chain beside the others between two stages of 0. */
    uint32_t branch, reserved;
    /* Of an exchange (rt_plan_create_ranks) what a rank has for each other: the numbers of a sum,
     * its part of what is gathered, that one's part of what is dealt out. 0 for all else. */
    uint64_t exchange_bytes;
};
RT_API const struct rt_info *rt_plan_info(const rt_plan *plan);
RT_API uint32_t rt_plan_buffer_count(const rt_plan *plan);
RT_API enum rt_status rt_plan_buffer(const rt_plan *plan, uint32_t index,
                                     struct rt_plan_buffer *out);
RT_API uint32_t rt_plan_graph_count(const rt_plan *plan);
RT_API enum rt_status rt_plan_graph(const rt_plan *plan, uint32_t index, struct rt_plan_graph *out);
RT_API enum rt_status rt_plan_stage(const rt_plan *plan, uint32_t graph, uint32_t stage,
                                    struct rt_plan_stage *out);

/* A planned graph as Graphviz DOT, as rt_dot gives it for a captured one. */
RT_API enum rt_status rt_plan_dot(const rt_plan *plan, uint32_t graph, char *text, size_t capacity,
                                  size_t *needed);

#ifdef __cplusplus
}
#endif
#endif
