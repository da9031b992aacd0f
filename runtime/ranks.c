/* SPDX-License-Identifier: Apache-2.0 */
#include "replayrt/ranks.h"

#include "common/math.h"
#include "runtime/one_shot.h"
#include "runtime/ranks_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NS_PER_MS UINT64_C(1000000)
#define DIGEST_PRIME 0x01000193u /* of 32-bit FNV */

_Static_assert(RT_MAX_RANKS == RT_BOARD_MAX_RANKS, "every group has room on a board");
_Static_assert(RT_MAX_CONTEXT_RANKS == RT_MAX_RANKS, "all ranks of a group may share a context");

/* ---- the group ------------------------------------------------------------------------------- */

enum rt_status rt_ranks_create(const struct rt_ranks_params *params, rt_ranks **out,
                               struct rt_error *error)
{
    struct rt_ranks_params mine;
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_ranks_create: out is null");
    *out = NULL;
    RT_TAKE_STRUCT(params, mine, error);
    RT_REQUIRE(params->ranks >= 1 && params->ranks <= RT_MAX_RANKS, error, RT_ERR_INVALID,
               "rt_ranks_create: %" PRIu32 " ranks, must be 1 to %d", params->ranks, RT_MAX_RANKS);
    RT_REQUIRE(params->rank < params->ranks, error, RT_ERR_INVALID,
               "rt_ranks_create: rank %" PRIu32 ", must be 0 to %" PRIu32 ", of %" PRIu32,
               params->rank, params->ranks - 1, params->ranks);
    RT_REQUIRE(params->path, error, RT_ERR_INVALID, "rt_ranks_create: path is null");
    rt_ranks *const r = calloc(1, sizeof(*r));
    RT_REQUIRE(r, error, RT_ERR_NOMEM, "out of host memory for a group of ranks");
    const uint64_t ms = params->timeout_ms ? params->timeout_ms : RT_RANKS_TIMEOUT_MS;
    r->nccl = params->nccl_comm;
    const enum rt_status status =
        rt_comm_meet(params->path, params->rank, params->ranks, ms * NS_PER_MS, &r->comm, error);
    if (status == RT_OK)
        *out = r;
    else
        free(r);
    return status;
}

enum rt_status rt_ranks_destroy(rt_ranks **ranks)
{
    if (!ranks || !*ranks)
        return RT_OK;
    rt_ranks *const r = *ranks;
    const bool entered = r->device.ctx_enter && r->device.ctx_enter(&r->device) == 0;
    const bool lingers = rt_comm_close(&r->comm);
    if (entered)
        (void)r->device.ctx_leave(&r->device);
    if (!lingers) /* or a thread of the library would lose its context */
        rt_driver_close(&r->device);
    free(r);
    *ranks = NULL;
    return lingers ? RT_ERR_RANKS : RT_OK;
}

enum rt_status rt_ranks_get_info(const rt_ranks *ranks, struct rt_ranks_info *out,
                                 struct rt_error *error)
{
    RT_REQUIRE(ranks, error, RT_ERR_INVALID, "rt_ranks_get_info: ranks is null");
    RT_CHECK_STRUCT(out, error);
    const struct rt_ranks_info mine = {.rank = ranks->comm.rank, .ranks = ranks->comm.ranks};
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

/* "1, 2, 4, 8": as many as there is room for. */
static void list_divisors(uint32_t heads, char *text, size_t bytes)
{
    size_t used = 0;
    for (uint32_t i = 1; i <= heads && i <= RT_MAX_RANKS && used < bytes; i++)
        if (heads % i == 0)
            used += (size_t)snprintf(text + used, bytes - used, "%s%" PRIu32, i > 1 ? ", " : "", i);
}

/* Neighbours of whom every group of a context is. */
static enum rt_status check_context(uint32_t count, uint32_t context, struct rt_error *err)
{
    RT_REQUIRE(context > 0 && count % context == 0, err, RT_ERR_INVALID,
               "context_parallel is %" PRIu32 ": must divide the group's ranks, %" PRIu32, context,
               count);
    return RT_OK;
}

enum rt_status rt_ranks_cut_heads(uint32_t count, struct rt_config *config, struct rt_error *err)
{
    char divisors[256] = "";
    const uint32_t heads = config->geometry.heads, context = config->context_parallel;
    RT_TRY(check_context(count, context, err));
    list_divisors(heads, divisors, sizeof(divisors));
    RT_REQUIRE(heads > 0 && heads % count == 0, err, RT_ERR_GEOMETRY,
               "%" PRIu32 " heads cannot be cut evenly over %" PRIu32 " ranks: %s ranks can be",
               heads, count, divisors);
    config->geometry.heads = heads / (count / context);
    return RT_OK;
}

enum rt_status rt_ranks_cut(const rt_ranks *ranks, struct rt_config *config, struct rt_error *error)
{
    RT_REQUIRE(ranks, error, RT_ERR_INVALID, "rt_ranks_cut: ranks is null");
    RT_CHECK_STRUCT(config, error);
    return rt_ranks_cut_heads(ranks->comm.ranks, config, error);
}

enum rt_status rt_ranks_least(rt_ranks *ranks, uint32_t *numbers, uint32_t count,
                              struct rt_error *error)
{
    uint32_t all[RT_MAX_RANKS * RT_MAX_LEAST];
    RT_REQUIRE(ranks, error, RT_ERR_INVALID, "rt_ranks_least: ranks is null");
    RT_REQUIRE(numbers, error, RT_ERR_INVALID, "rt_ranks_least: numbers is null");
    RT_REQUIRE(count >= 1 && count <= RT_MAX_LEAST, error, RT_ERR_INVALID,
               "rt_ranks_least: %" PRIu32 " numbers, must be 1 to %d", count, RT_MAX_LEAST);
    RT_TRY(rt_comm_gather(&ranks->comm, numbers, all, count * (uint32_t)sizeof(*numbers), error));
    for (uint32_t i = 0; i < ranks->comm.ranks * count; i++)
        numbers[i % count] = rt_min_u32(numbers[i % count], all[i]);
    return RT_OK;
}

/* ---- create and destroy ---------------------------------------------------------------------- */

/* The communicator has streams and memory in the device's context, and outlives the runtime: with
 * nobody else there the context would go when the runtime does. */
static enum rt_status hold_device(rt_ranks *ranks, const struct rt_device_caps *caps,
                                  struct rt_error *err)
{
    if (caps->kind == RT_DEVICE_KIND_HOST || ranks->device.impl)
        return RT_OK;
    return rt_driver_open_cuda(caps->ordinal, &ranks->device, err);
}

enum rt_status rt_ranks_take(struct rt_runtime *rt, rt_ranks *ranks, struct rt_error *err)
{
    const struct rt_device_caps *const caps = &rt->driver.caps;
    if (!ranks)
        return RT_OK;
    RT_REQUIRE(!ranks->runtime, err, RT_ERR_INVALID,
               "rt_create: params->ranks has a runtime already, must serve one at a time");
    RT_REQUIRE(!ranks->comm.exchange ||
                   (ranks->kind == caps->kind && ranks->ordinal == caps->ordinal),
               err, RT_ERR_INVALID,
               "rt_create: params->ranks is of another device than %s, which it was opened for",
               caps->name);
    RT_TRY(hold_device(ranks, caps, err));
    /* One rank exchanges nothing, and needs no library for it; the caller's is looked at. */
    if (ranks->comm.ranks > 1 || ranks->nccl)
        RT_TRY(rt_comm_open(&ranks->comm, &rt->driver, ranks->nccl, err));
    if (ranks->comm.ranks > 1 && caps->kind != RT_DEVICE_KIND_HOST)
        RT_TRY(rt_one_shot_map(&ranks->comm, &ranks->device, err));
    ranks->kind = caps->kind;
    ranks->ordinal = caps->ordinal;
    ranks->runtime = rt;
    rt->ranks = ranks;
    return RT_OK;
}

/* Layers, for each is an exchange: with fewer of them one rank's next step would meet another's
 * last layers, and nothing in an exchange tells the two apart. */
static void fields_of(const struct rt_runtime *rt, const struct rt_graph_spec *spec, uint32_t rows,
                      uint32_t fields[RT_BOARD_FIELD_COUNT])
{
    const struct rt_config *const c = &rt->blueprint.config;
    fields[RT_BOARD_BUCKET] = spec->rows;
    fields[RT_BOARD_QUERY_LEN] = rt_spec_query_len(spec);
    fields[RT_BOARD_CHUNK] = rt_spec_is_chunk(spec) ? rt_spec_chunk(spec) : 0;
    fields[RT_BOARD_ROWS] = rows;
    fields[RT_BOARD_LAYERS] = c->layer ? c->geometry.layers : 0;
    fields[RT_BOARD_STAGES] = rt->exchanges.count;
    fields[RT_BOARD_CONTEXT] = c->context_parallel;
    fields[RT_BOARD_SHARED_ROWS] = c->context_parallel > 1 ? rows : 0;
    fields[RT_BOARD_TOKENS] = fields[RT_BOARD_SHARES] = 0;
}

static enum rt_status try_swap(struct rt_runtime *rt, const struct rt_graph_spec *spec,
                               struct rt_error *err)
{
    const struct rt_context_exchange x =
        rt_context_exchange_of(&rt->blueprint, &rt->arena, &rt->ranks->comm, spec->tokens);
    RT_TRY(rt_comm_try(&rt->ranks->comm, &rt->driver, &x.swap, rt->stream, err));
    return rt_sums_choose_context(&rt->sums, &rt->kernels, &x, rt->stream, err);
}

static enum rt_status try_one(struct rt_runtime *rt, const struct rt_collective *x,
                              struct rt_error *err)
{
    RT_TRY(rt_comm_try(&rt->ranks->comm, &rt->driver, x, rt->stream, err));
    return rt_sums_choose(&rt->sums, &rt->kernels, x, rt->stream, err);
}

/* What blocks sum, and where they have an input norm, the next one's behind it. */
static enum rt_status try_blocks(struct rt_runtime *rt, const struct rt_graph_spec *spec,
                                 struct rt_error *err)
{
    const struct rt_config *const c = &rt->blueprint.config;
    const struct rt_collective x = rt_ranks_sum(
        c, &rt->ranks->comm, rt_arena_addr(&rt->arena, RT_TENSOR_HIDDEN, 0), spec->tokens);
    RT_TRY(try_one(rt, &x, err));
    if (!c->input_norm || c->geometry.layers == 1)
        return RT_OK;
    const struct rt_input_norm_params norm =
        rt_input_norm_of(&rt->blueprint, &rt->arena, &rt->weights, 1, spec->tokens);
    return rt_sums_choose_norm(&rt->sums, &rt->kernels, &x, &norm, rt->stream, err);
}

/* Those of hidden are blocks' sums once more. */
static enum rt_status try_stages(struct rt_runtime *rt, const struct rt_graph_spec *spec,
                                 struct rt_error *err)
{
    for (uint32_t i = 0; i < rt->exchanges.count; i++) {
        const struct rt_stage_exchange *const e = &rt->exchanges.items[i];
        const struct rt_collective x =
            rt_stage_exchange_work(e, &rt->blueprint, &rt->arena, &rt->ranks->comm, spec);
        if (rt_stage_exchange_is_of_hidden(e))
            continue;
        RT_TRY(try_one(rt, &x, err));
    }
    return RT_OK;
}

static enum rt_status try_graph(struct rt_runtime *rt, const struct rt_graph_spec *spec,
                                struct rt_error *err)
{
    uint32_t fields[RT_BOARD_FIELD_COUNT];
    fields_of(rt, spec, 0, fields);
    RT_TRY(rt_comm_post(&rt->ranks->comm, fields, err));
    if (rt->blueprint.config.context_parallel > 1)
        RT_TRY(try_swap(rt, spec, err));
    if (rt->blueprint.config.layer)
        RT_TRY(try_blocks(rt, spec, err));
    return try_stages(rt, spec, err);
}

void rt_ranks_register(struct rt_runtime *rt)
{
    const struct rt_peers *const peers = rt->ranks ? &rt->ranks->comm.peers : NULL;
    if (!peers || !peers->mapped)
        return;
    for (uint32_t r = 0; r < rt->ranks->comm.ranks; r++)
        rt->regions[rt->region_count++] = (struct rt_audit_region){
            .base = peers->memory[r], .bytes = peers->bytes, .name = "mailbox of a rank"};
    rt->regions[rt->region_count++] = (struct rt_audit_region){
        .base = peers->stop_addr, .bytes = sizeof(*peers->stop), .name = "stop of the ranks"};
}

enum rt_status rt_ranks_share(struct rt_runtime *rt, struct rt_error *err)
{
    const uint32_t context = rt->blueprint.config.context_parallel;
    RT_TRY(check_context(rt->ranks ? rt->ranks->comm.ranks : 1, context, err));
    rt->blueprint.context_rank = rt->ranks ? rt->ranks->comm.rank % context : 0;
    return RT_OK;
}

enum rt_status rt_ranks_try(struct rt_runtime *rt, struct rt_error *err)
{
    if (!rt->ranks || rt->ranks->comm.ranks == 1 ||
        (!rt->blueprint.config.layer && !rt->exchanges.count))
        return RT_OK;
    for (uint32_t i = 0; i < rt->blueprint.spec_count; i++)
        if (!rt->blueprint.specs[i].most_blocks) /* or its size has been tried */
            RT_TRY(try_graph(rt, &rt->blueprint.specs[i], err));
    return RT_OK;
}

/* While a rank captures, its library may ask others for their memory, which they cannot give while
 * kernels of theirs wait for that rank. */
enum rt_status rt_ranks_ready(struct rt_runtime *rt, struct rt_error *err)
{
    return rt->ranks ? rt_comm_barrier(&rt->ranks->comm, err) : RT_OK;
}

void rt_ranks_give_up(struct rt_runtime *rt, enum rt_status status, const struct rt_error *why)
{
    struct rt_error story;
    (void)rt_fail(&story, status, "rt_create failed: %s", why ? why->message : "nobody asked why");
    if (rt->ranks)
        (void)rt_comm_fail(&rt->ranks->comm, &story);
}

void rt_ranks_release(struct rt_runtime *rt)
{
    struct rt_error nobody;
    if (!rt->ranks)
        return;
    if (rt->stream || rt->owns_stream)
        (void)rt_comm_await(&rt->ranks->comm, &rt->driver, rt->stream, false, &nobody);
    rt->ranks->runtime = NULL;
    rt->ranks = NULL;
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* Of the record that is about to be launched: what each row has of tokens, rows of prompts first,
 * and how many of them stay. Which tokens they are, and of which sequences, is every rank's own. */
static void count_tokens(struct rt_runtime *rt, uint32_t fields[RT_BOARD_FIELD_COUNT])
{
    struct rt_record *const record = rt_ring_record(&rt->ring);
    const struct rt_record_row *const rows = rt_ring_rows(&rt->ring, record);
    const int32_t *const of_prompts =
        rt_ring_tokens(&rt->ring, record) + (size_t)record->bucket * record->query_len;
    uint32_t tokens = 0, digest = 0;
    for (uint32_t i = 0; i < record->live_rows; i++) {
        const uint32_t count = i < record->prompts ? (uint32_t)of_prompts[i]
                                                   : rt_record_tokens(&rows[i], record->query_len);
        tokens += count;
        digest = (digest ^ count) * DIGEST_PRIME;
        digest = (digest ^ (uint16_t)rows[i].accept) * DIGEST_PRIME;
    }
    fields[RT_BOARD_TOKENS] = tokens;
    fields[RT_BOARD_SHARES] = digest;
}

enum rt_status rt_ranks_post(struct rt_runtime *rt, const struct rt_captured *g)
{
    uint32_t fields[RT_BOARD_FIELD_COUNT];
    fields_of(rt, &g->program.spec, rt_ring_record(&rt->ring)->live_rows, fields);
    count_tokens(rt, fields);
    return rt_comm_post(&rt->ranks->comm, fields, &rt->error);
}

enum rt_status rt_ranks_outcome(struct rt_runtime *rt, enum rt_status status)
{
    struct rt_error why = rt->error;
    if (status != RT_OK)
        (void)rt_comm_fail(&rt->ranks->comm, &why);
    return status;
}

enum rt_status rt_ranks_look(struct rt_runtime *rt)
{
    return rt->ranks ? rt_comm_look(&rt->ranks->comm, &rt->error) : RT_OK;
}

enum rt_status rt_ranks_settle(struct rt_runtime *rt)
{
    const bool waits = rt->ranks && rt->driver.caps.kind != RT_DEVICE_KIND_HOST;
    return waits ? rt_comm_await(&rt->ranks->comm, &rt->driver, rt->stream, false, &rt->error)
                 : RT_OK;
}
