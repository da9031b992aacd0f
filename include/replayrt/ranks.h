/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REPLAYRT_RANKS_H
#define REPLAYRT_RANKS_H

/*
 * Several ranks of one machine that decode together, each with a device of its own: their blocks
 * have a part of the heads each, and the sum of what they make of them, which is one all-reduce
 * behind o_proj, is in the one graph that a step replays. What stages do may be cut too
 * (struct rt_stage_exchange), as a decoder's MLPs and LM head are.
 *
 *   every rank: rt_ranks_create ── rt_ranks_cut(config) ── rt_create ── rt_step, rt_wait, …
 *                      rt_ranks_destroy ── rt_destroy ────────────────────────┘
 *
 * All ranks make the same calls on their runtimes, in the same order: the same graphs of as many
 * layers, and in each step the same batch size, query length and rows. A rank with nothing to
 * decode goes along with rt_step_params.idle_batch. What they do is held against each other by the
 * number of replays so
 * far, before a replay is launched and while it is waited for, and told by name:
 *
 *   RT_ERR_RANKS  a rank's model or replay is another; a rank has not begun one within timeout_ms,
 *                 or not come to an exchange of it; has left the group, has failed, or its process
 *                 is gone
 *
 * from rt_create, rt_step, rt_prefill, rt_wait and rt_synchronize. No call waits for another rank
 * without a limit. A group that has failed is of no use any more: every later step says so again,
 * and the other ranks learn of it. Any failure of a step that was begun, or of rt_create once it
 * has the group, is one of the group.
 *
 * On the host device ranks are processes or threads and exchange through shared memory, summing in
 * the order of ranks: the same bits everywhere and in every run. On CUDA they exchange by NCCL 2.12
 * or later, which is looked up at run time. A group of one exchanges nothing. The laws of rt.h hold
 * here.
 */
#include "replayrt/rt.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RT_MAX_RANKS 64
#define RT_RANKS_TIMEOUT_MS 30000

struct rt_ranks_params {
    uint32_t struct_size;
    uint32_t rank, ranks; /* this one's number, of how many: 1..RT_MAX_RANKS */
    uint32_t timeout_ms;  /* 0: RT_RANKS_TIMEOUT_MS */
    /* Where they meet: a file of all of them, on a file system in memory (/dev/shm) at best. The
     * first to come makes it; once all have, it has no name any more, and the next group may have
     * the same. What a group has left that never was complete is begun anew; a file of anything
     * else is refused as it is. */
    const char *path;
    /* An ncclComm_t of the caller's for these ranks, of the device that the runtime gets. It stays
     * the caller's, outlives the group, and is aborted where the group fails. Null: one is made. */
    void *nccl_comm;
};

/*
 * Meets the other ranks. Blocks until all are there. The caller owns the group until
 * rt_ranks_destroy; it serves one runtime at a time, and is for that runtime's thread.
 * RT_ERR_INVALID (also: a group of another size, a rank that is there already), RT_ERR_FILE,
 * RT_ERR_RANKS (one does not come within timeout_ms, and which). *out is null then.
 */
RT_API enum rt_status rt_ranks_create(const struct rt_ranks_params *params, rt_ranks **out,
                                      struct rt_error *error);
/*
 * After rt_destroy of what uses it. Writes null. The others see that this rank has left.
 *
 * RT_ERR_RANKS: the group has failed on CUDA while NCCL waited for a rank, and a thread is still in
 * the library, whose calls cannot be taken back. It touches nothing of the caller's or the
 * runtime's; it keeps the device's context, a stream and the memory of one exchange. But exit
 * handlers of NCCL and the driver take from under it what it is using: such a process flushes its
 * files and ends by _exit or quick_exit. All is released but for these all the same.
 */
RT_API enum rt_status rt_ranks_destroy(rt_ranks **ranks);

/* What has started this process as one of several, if anything has. */
struct rt_ranks_launch {
    uint32_t struct_size;
    uint32_t rank, ranks; /* ranks 0: nothing has; all else is 0 then, too */
    uint32_t device;      /* ordinal of its GPU: its rank, or 0 where it sees one GPU alone */
    char path[96];        /* where its ranks meet: rt_ranks_params.path */
    char said[80];        /* for messages: "RANK=0 of WORLD_SIZE=2" */
};
/*
 * As the environment tells: torchrun's RANK, WORLD_SIZE and MASTER_PORT, Open MPI's
 * OMPI_COMM_WORLD_RANK and _SIZE or MPICH's PMI_RANK and PMI_SIZE, in this order. Ranks of mpirun
 * meet by MASTER_PORT where that is set, and else by the process that has started them. A GPU alone
 * is one entry in CUDA_VISIBLE_DEVICES. Meets nobody. The library itself reads no environment:
 * `environment` is getenv, or what stands for it.
 * RT_ERR_INVALID where a variable is no number, or ranks are of more than one machine.
 */
RT_API enum rt_status rt_ranks_launched(char *(*environment)(const char *name),
                                        struct rt_ranks_launch *out, struct rt_error *error);

struct rt_ranks_info {
    uint32_t struct_size;
    uint32_t rank, ranks;
    uint32_t reserved;
};
RT_API enum rt_status rt_ranks_get_info(const rt_ranks *ranks, struct rt_ranks_info *out,
                                        struct rt_error *error);

/*
 * Leaves this rank's part of all heads in a model's configuration: geometry.heads becomes
 * heads / ranks. Head h of the model is head h - rank * (heads / ranks) of the rank's blocks, and
 * so its weights are: of q_proj, q_b_proj (and their biases) and kv_b_proj the rows of its heads,
 * of o_proj their columns; all else whole. A bias of o_proj is added once, by rank 0.
 *
 * With config->context_parallel C above 1, which divides the ranks, every C neighbours have the
 * tokens of a sequence between them, page by page in turn: token t is rank r's where
 * t / page_size % C is r % C. They attend with the heads of all C: geometry.heads becomes
 * C * heads / ranks, from head r / C * geometry.heads on, and so do the rows of q_proj, q_b_proj
 * and kv_b_proj. The columns of o_proj are of heads / ranks heads as before. All C ranks make the
 * same calls on the same sequences, whose lengths and positions are those of all tokens; none of
 * them is idle while another is not.
 * RT_ERR_INVALID where C does not divide the ranks; RT_ERR_GEOMETRY names the numbers of ranks that
 * divide the heads.
 */
RT_API enum rt_status rt_ranks_cut(const rt_ranks *ranks, struct rt_config *config,
                                   struct rt_error *error);

/*
 * numbers [count], 1..RT_MAX_LEAST of them: each becomes, on all ranks, the least that any has.
 * For what ranks must decide alike and may each find otherwise, such as how many tokens a kernel
 * serves on their device. All ranks make this call at the same point, not while a step is in
 * flight; with and without a runtime. Blocks until all do, at most for timeout_ms.
 * RT_ERR_INVALID; RT_ERR_RANKS, and *numbers is as it was.
 */
#define RT_MAX_LEAST 16
RT_API enum rt_status rt_ranks_least(rt_ranks *ranks, uint32_t *numbers, uint32_t count,
                                     struct rt_error *error);

/* ---- exchanges behind stages ----------------------------------------------------------------- */

#define RT_MAX_STAGE_EXCHANGES 8

enum rt_exchange_kind {
    RT_EXCHANGE_SUM = 0, /* to = the sum of all ranks' from; may be in place */
    RT_EXCHANGE_GATHER   /* to [ranks, vectors, width] = all ranks' from, in the order of ranks */
};

/* How many vectors a graph has. */
enum rt_exchange_vectors {
    RT_EXCHANGE_TOKENS = 0, /* rt_stage_context.tokens */
    RT_EXCHANGE_RESULTS     /* batch * query_len */
};

/*
 * One exchange of all ranks directly behind a stage of the caller's, in every graph and, of a point
 * of layers, in every layer: a node of its own, done as the sum behind o_proj is. Several of one
 * point follow each other as they are listed. With `resumes` the stage is called once more behind
 * it, context->part being one higher, and the next of the list follow that part.
 *
 *   after_attention  MLP over a part of its width ── sum of hidden
 *   step_end         norm, a part of the vocabulary ── gather ── part 1: choose the next token
 *
 * Memory is the caller's: [vectors, width], packed, on 16 bytes, in its regions, and large enough
 * for the largest graph, whose first vectors a smaller one has. rt_create makes every exchange
 * once, with whatever numbers are there. Without ranks, and in a group of one, nothing is
 * exchanged: parts are called all the same, and what was to be gathered lies where it was. It lies
 * inside of arrays, where it cannot grow.
 */
struct rt_stage_exchange {
    enum rt_stage_point point;
    enum rt_exchange_kind kind;
    enum rt_exchange_vectors vectors;
    enum rt_dtype dtype; /* bf16 or f32; of what is gathered, any */
    uint64_t width;      /* numbers of a vector */
    /* Both 0: tensor `hidden` of all tokens, summed in place; vectors, dtype and width are 0 then.
     * What is gathered lies apart from where it goes to. */
    uint64_t from, to;
    uint32_t resumes; /* 1: the stage has another part behind it */
    uint32_t reserved;
};

/* ---- plan ------------------------------------------------------------------------------------ */

struct rt_plan_ranks {
    uint32_t struct_size;
    uint32_t ranks; /* 1..RT_MAX_RANKS */
    /* As in rt_create_params; nothing is done at their addresses. The plan has a stage of the
     * caller's at each of their points. Read during the call alone. */
    const struct rt_stage_exchange *exchanges; /* [exchange_count]; may be null where that is 0 */
    uint32_t exchange_count;                   /* at most RT_MAX_STAGE_EXCHANGES */
    uint32_t reserved;                         /* 0 */
};

/*
 * rt_plan_create of the first of several ranks. config is the whole model's: its heads are divided
 * as rt_ranks_cut does. Exchanges of ranks are stages (rt_plan_stage), whose exchange_bytes say
 * what each moves; which way it goes, rt_create measures. No group is met. RT_ERR_INVALID and
 * RT_ERR_GEOMETRY as of rt_ranks_cut and, of the exchanges, rt_create.
 */
RT_API enum rt_status rt_plan_create_ranks(const struct rt_config *config,
                                           const struct rt_plan_ranks *ranks, const char *assume,
                                           rt_plan **out, struct rt_error *error);

#ifdef __cplusplus
}
#endif
#endif
