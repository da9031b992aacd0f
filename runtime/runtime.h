/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_RUNTIME_H
#define RT_RUNTIME_RUNTIME_H

/* The runtime's inside: the only room that knows the others. */
#include "buffers/arena.h"
#include "buffers/pages.h"
#include "buffers/ring.h"
#include "common/struct_size.h"
#include "config/config.h"
#include "driver/driver.h"
#include "graphs/audit.h"
#include "graphs/build.h"
#include "replayrt/rt.h"
#include "runtime/products.h"
#include "runtime/recipe.h"
#include "runtime/weights.h"

/* No length is this one. */
#define RT_NEVER_NAMELESS UINT32_MAX

/*
 * A sequence's host half: what rt_step reads and writes for every row, half a cache line of it.
 * `length` runs ahead of the device; it is known once no step in flight decides.
 */
struct rt_slot {
    rt_seq handle;      /* the valid handle; 0 while the slot is closed */
    uint64_t named_in;  /* the last step attempt that named it: finds duplicates without clearing */
    uint32_t length;    /* tokens, all of device-decided steps still in flight among them */
    uint32_t undecided; /* those of device-decided steps still in flight: 0..undecided stay */
    uint32_t capacity;  /* tokens that the bound pages hold, at most max_length */
    uint32_t nameless;  /* length at which no last token is known; RT_NEVER_NAMELESS: at none */
};
_Static_assert(sizeof(struct rt_slot) == 32, "two slots a cache line: a batch of 512 in 16 KiB");

/* The rest of a slot, by the same index. */
struct rt_slot_rest {
    uint32_t page_count;  /* columns of the table line that hold a page */
    uint32_t generation;  /* of the next handle; starts at 1 */
    uint32_t taken_back;  /* tokens that the device has taken back of the length */
    uint64_t opened_step; /* steps before this number are an earlier sequence's */
    uint64_t touched_by;  /* the last record that touches a page it holds, but with no row of it */
    bool builtin_pages;
};

/* One captured graph and its program. */
struct rt_captured {
    struct rt_program program;
    struct rt_graph graph;
    struct rt_stage_binding *bindings;
    struct rt_captured *small; /* of its size, for the next fewer blocks of keys; null: none */
    /* Words that blocks of one kernel hand each other: all 0xff between two steps. */
    rt_addr exchange;
    uint64_t exchange_bytes; /* 0: it has none */
    bool is_half_written;    /* a step has failed, and then the filling */
    uint64_t replays, live_rows, padded_rows;
};

/* What the host remembers of a step whose record the ring still holds. */
struct rt_flight {
    uint64_t step;
    uint64_t ticket_first; /* first step of the rt_step call it belongs to, or its one chunk */
    uint64_t call_first;   /* of the call: refusals from there on are told with the ticket */
    uint32_t rows;
    uint32_t query_len;  /* columns of a row */
    uint32_t prompts;    /* the first rows, of which one column alone has a token */
    bool device_decides; /* some row is RT_ACCEPT_DEVICE */
    bool ends_call;      /* the last replay of its rt_step call: with it the step is complete */
    bool copies;         /* a control replay that reads copied_page to copy it */
    int32_t copied_page;
};

struct rt_runtime {
    struct rt_driver driver;
    struct rt_arena arena;
    struct rt_ring ring;
    struct rt_kernels kernels;
    struct rt_pages pages;
    struct rt_spec_index spec_index;

    rt_dstream stream;
    bool owns_stream;
    bool held;         /* rt_host_hold */
    bool needs_tokens; /* RT_CREATE_NEEDS_TOKENS */
    uint64_t asked_ns; /* the driver, by rt_wait, whether the device is alive */

    struct rt_captured *captured; /* by spec, as in the blueprint */
    uint32_t captured_count;
    struct rt_captured control;

    rt_ranks *ranks;     /* null: this is the only one */
    struct rt_sums sums; /* over them */
    struct rt_stage_exchanges exchanges;

    struct rt_weights weights;   /* of blocks; zeroed without */
    struct rt_products products; /* that the library does */
    struct rt_audit_region *regions;
    uint32_t region_count;

    struct rt_slot *slots; /* [max_sequences], as is slot_rests */
    struct rt_slot_rest *slot_rests;
    uint32_t *free_slots; /* FIFO ring: a slot rests as long as possible before it is reused */
    uint32_t free_slot_head, free_slot_count;
    int32_t *table; /* host mirror of the block table: [max_sequences, max_blocks] */

    unsigned char *ops; /* pending ops for the next record */
    uint32_t ops_bytes, ops_count;

    struct rt_flight *flights;  /* [ring_depth], by step % depth */
    uint64_t harvested;         /* steps whose completion has been looked at */
    uint64_t shared_left;       /* the last step when a sequence gave up a page of others too */
    uint64_t attempts;          /* numbers rt_step calls, for rt_slot.named_in */
    struct rt_completion first; /* first replay of the step whose replays are being seen */
    struct rt_completion last;  /* last replay of the step before it; step 0: none, or half a one */
    uint64_t refused_step;      /* last step the device refused part of; 0: none */
    struct rt_completion refusal;

    /* The stage of the caller's that runs just now, or null: it may call almost nothing. */
    const struct rt_stage_context *in_stage;

    struct rt_stats stats;
    float kv_scales[RT_MAX_LAYERS]; /* of fp8_tensor; else 0 */
    char device_reason[160];
    struct rt_error error;
    /* Last: hundreds of kilobytes, of which the hot path reads the configuration alone. */
    struct rt_blueprint blueprint;
};

/* Opens every public function but rt_tensor, rt_last_error, rt_completed and rt_completed_word: a
 * runtime, and no stage of its. */
#define RT_ENTER(rt)                                                                               \
    do {                                                                                           \
        RT_REQUIRE((rt), NULL, RT_ERR_INVALID, "%s: runtime is null", __func__);                   \
        if (RT_UNLIKELY((rt)->in_stage))                                                           \
            return rt_refuse_in_stage((rt), __func__);                                             \
    } while (0)
enum rt_status rt_refuse_in_stage(struct rt_runtime *rt, const char *function) RT_COLD;

/* Where a replay on the host device failed in a stage: puts graph and stage before the story in
 * rt->error. Returns `status`. */
enum rt_status rt_name_failed_stage(struct rt_runtime *rt, enum rt_status status) RT_COLD;

static inline enum rt_status rt_stage_outcome(struct rt_runtime *rt, enum rt_status status)
{
    return RT_LIKELY(status == RT_OK) ? RT_OK : rt_name_failed_stage(rt, status);
}

/* Looks at completions that have arrived: lengths the device decided, clocks, refusals. */
void rt_harvest(struct rt_runtime *rt);

/* Waits for ever until the step is complete, and looks at its completion. */
enum rt_status rt_wait_step(struct rt_runtime *rt, uint64_t step);

/* The open slot of a handle, or null. */
static inline struct rt_slot *rt_slot_find(const struct rt_runtime *rt, rt_seq seq)
{
    uint32_t index = (uint32_t)seq;
    if (RT_UNLIKELY(index >= rt->blueprint.config.max_sequences || !seq ||
                    rt->slots[index].handle != seq))
        return NULL;
    return &rt->slots[index];
}

/* The first `count` columns of the slot's table line hold a page. */
void rt_slot_set_page_count(const struct rt_runtime *rt, struct rt_slot *slot, uint32_t count);

/* The open slot of a handle; RT_ERR_SEQUENCE otherwise. */
enum rt_status rt_slot_of(struct rt_runtime *rt, rt_seq seq, struct rt_slot **out);

static inline uint32_t rt_slot_index(const struct rt_runtime *rt, const struct rt_slot *slot)
{
    return (uint32_t)(slot - rt->slots);
}

static inline struct rt_slot_rest *rt_slot_rest(const struct rt_runtime *rt,
                                                const struct rt_slot *slot)
{
    return &rt->slot_rests[rt_slot_index(rt, slot)];
}

static inline int32_t *rt_slot_line(const struct rt_runtime *rt, const struct rt_slot *slot)
{
    return rt->table + (size_t)rt_slot_index(rt, slot) * rt->blueprint.placement.max_blocks;
}

/* Tokens that a page id stands for. */
static inline uint32_t rt_page_tokens(const struct rt_runtime *rt)
{
    return rt_blueprint_page_tokens(&rt->blueprint);
}

/* Of the tokens in front of `tokens`, how many this rank has: the same within a page id's. */
static inline uint32_t rt_own_tokens(const struct rt_runtime *rt, uint32_t tokens)
{
    const struct rt_config *const c = &rt->blueprint.config;
    return (uint32_t)rt_context_length((int32_t)tokens, c->page_size, c->context_parallel,
                                       rt->blueprint.context_rank);
}

/* Launches a control record with the pending ops; RT_ERR_BUSY, or the driver's failure: unchanged.
 */
enum rt_status rt_flush_ops(struct rt_runtime *rt);

/* Moves the pending ops into a record that is about to be launched. */
void rt_take_ops(struct rt_runtime *rt, struct rt_record *record);

/* Room for `bytes` more pending ops, by flushing if need be. */
enum rt_status rt_reserve_ops(struct rt_runtime *rt, uint32_t bytes);

#endif
