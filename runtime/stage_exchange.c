/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/stage_exchange.h"

#include "driver/comm/comm.h"
#include "runtime/ranks_impl.h"

#include <inttypes.h>

bool rt_stage_exchange_is_of_hidden(const struct rt_stage_exchange *x)
{
    return x->from == 0 && x->to == 0;
}

/* ---- what may be asked for ------------------------------------------------------------------- */

static enum rt_status check_kind(const struct rt_stage_exchange *x, uint32_t i,
                                 struct rt_error *err)
{
    RT_REQUIRE(x->kind == RT_EXCHANGE_SUM || x->kind == RT_EXCHANGE_GATHER, err, RT_ERR_INVALID,
               "rt_create: exchanges[%u].kind is %d, none of enum rt_exchange_kind", i,
               (int)x->kind);
    RT_REQUIRE(x->vectors == RT_EXCHANGE_TOKENS || x->vectors == RT_EXCHANGE_RESULTS, err,
               RT_ERR_INVALID,
               "rt_create: exchanges[%u].vectors is %d, none of enum rt_exchange_vectors", i,
               (int)x->vectors);
    RT_REQUIRE(x->resumes <= 1 && x->reserved == 0, err, RT_ERR_INVALID,
               "rt_create: exchanges[%u].resumes is %u, must be 0 or 1, and reserved %u, must be 0",
               i, x->resumes, x->reserved);
    return RT_OK;
}

static enum rt_status check_hidden(const struct rt_create_params *p,
                                   const struct rt_stage_exchange *x, uint32_t i,
                                   struct rt_error *err)
{
    RT_REQUIRE(p->config->layer, err, RT_ERR_INVALID,
               "rt_create: exchanges[%u] names no address and so tensor hidden, which there is not "
               "without layer: true",
               i);
    RT_REQUIRE(x->kind == RT_EXCHANGE_SUM && x->vectors == RT_EXCHANGE_TOKENS && !x->width &&
                   !x->dtype,
               err, RT_ERR_INVALID,
               "rt_create: exchanges[%u] of tensor hidden has kind %d, vectors %d, width %" PRIu64
               " and dtype %d: must be a sum, of tokens, and 0",
               i, (int)x->kind, (int)x->vectors, x->width, (int)x->dtype);
    return RT_OK;
}

static enum rt_status check_addresses(const struct rt_stage_exchange *x, uint32_t i,
                                      struct rt_error *err)
{
    const bool is_float = x->dtype == RT_DTYPE_BF16 || x->dtype == RT_DTYPE_F32;
    const bool is_other = x->dtype == RT_DTYPE_I32 || x->dtype == RT_DTYPE_U8;
    RT_REQUIRE(is_float || (is_other && x->kind == RT_EXCHANGE_GATHER), err, RT_ERR_INVALID,
               "rt_create: exchanges[%u].dtype is %d: sums are of bf16 (%d) or f32 (%d), what is "
               "gathered of any of enum rt_dtype",
               i, (int)x->dtype, RT_DTYPE_BF16, RT_DTYPE_F32);
    RT_REQUIRE(x->width >= 1 && x->width <= UINT32_MAX, err, RT_ERR_INVALID,
               "rt_create: exchanges[%u].width is %" PRIu64 ", must be 1 to %u", i, x->width,
               UINT32_MAX);
    RT_REQUIRE(x->from % 16 == 0 && x->to % 16 == 0 && x->from && x->to, err, RT_ERR_INVALID,
               "rt_create: exchanges[%u] from 0x%" PRIx64 " to 0x%" PRIx64
               ": must both be multiples of 16, or both 0 for tensor hidden",
               i, x->from, x->to);
    RT_REQUIRE(x->kind == RT_EXCHANGE_SUM || x->from != x->to, err, RT_ERR_INVALID,
               "rt_create: exchanges[%u] gathers 0x%" PRIx64 " to where it is", i, x->from);
    return RT_OK;
}

enum rt_status rt_stage_exchanges_take(const struct rt_create_params *p,
                                       struct rt_stage_exchanges *out, struct rt_error *err)
{
    const uint32_t count = p->exchange_count;
    *out = (struct rt_stage_exchanges){.count = 0};
    RT_REQUIRE(count <= RT_MAX_STAGE_EXCHANGES, err, RT_ERR_INVALID,
               "rt_create: %u exchanges behind stages, at most %u", count, RT_MAX_STAGE_EXCHANGES);
    RT_REQUIRE(p->exchanges || !count, err, RT_ERR_INVALID,
               "rt_create: %u exchanges but params->exchanges is null", count);
    for (uint32_t i = 0; i < count; i++) {
        const struct rt_stage_exchange *const x = &p->exchanges[i];
        RT_REQUIRE((uint32_t)x->point < RT_STAGE_POINT_COUNT && p->stages[x->point], err,
                   RT_ERR_INVALID, "rt_create: exchanges[%u].point %d has no stage", i,
                   (int)x->point);
        RT_TRY(check_kind(x, i, err));
        RT_TRY(rt_stage_exchange_is_of_hidden(x) ? check_hidden(p, x, i, err)
                                                 : check_addresses(x, i, err));
        out->items[out->count++] = *x;
    }
    return RT_OK;
}

/* ---- what it is in a graph ------------------------------------------------------------------- */

static uint64_t vectors_of(const struct rt_stage_exchange *x, const struct rt_graph_spec *spec)
{
    return x->vectors == RT_EXCHANGE_TOKENS ? spec->tokens
                                            : (uint64_t)spec->rows * rt_spec_query_len(spec);
}

struct rt_collective rt_stage_exchange_work(const struct rt_stage_exchange *x,
                                            const struct rt_blueprint *b,
                                            const struct rt_arena *arena, struct rt_comm *comm,
                                            const struct rt_graph_spec *spec)
{
    if (rt_stage_exchange_is_of_hidden(x))
        return rt_ranks_sum(&b->config, comm, rt_arena_addr(arena, RT_TENSOR_HIDDEN, 0),
                            spec->tokens);
    return (struct rt_collective){.kind =
                                      x->kind == RT_EXCHANGE_SUM ? RT_ALL_REDUCE : RT_ALL_GATHER,
                                  .dtype = x->dtype,
                                  .from = x->from,
                                  .to = x->to,
                                  .count = vectors_of(x, spec) * x->width,
                                  .ranks = comm->ranks,
                                  .comm = comm};
}

/* ---- where it lies --------------------------------------------------------------------------- */

static enum rt_status place_one(const struct rt_create_params *p, uint32_t i, const char *name,
                                uint64_t address, uint64_t bytes, struct rt_driver *d,
                                struct rt_error *err)
{
    bool inside = false;
    for (uint32_t r = 0; r < p->region_count && !inside; r++)
        inside = address >= p->regions[r].address &&
                 address - p->regions[r].address <= p->regions[r].bytes &&
                 bytes <= p->regions[r].bytes - (address - p->regions[r].address);
    RT_REQUIRE(inside, err, RT_ERR_INVALID,
               "rt_create: exchanges[%u].%s, %" PRIu64 " bytes at 0x%" PRIx64
               " in the largest graph, lies in none of the %u regions",
               i, name, bytes, address, p->region_count);
    RT_REQUIRE(d->caps.kind != RT_DEVICE_KIND_HOST || rt_driver_host_adopt(d, address, bytes) == 0,
               err, RT_ERR_NOMEM, "out of host memory for exchanges[%u].%s", i, name);
    return RT_OK;
}

enum rt_status rt_stage_exchanges_place(const struct rt_stage_exchanges *all,
                                        const struct rt_blueprint *b, uint32_t ranks,
                                        const struct rt_create_params *p, struct rt_driver *d,
                                        struct rt_error *err)
{
    for (uint32_t i = 0; i < all->count; i++) {
        const struct rt_stage_exchange *const x = &all->items[i];
        uint64_t most = 0;
        if (rt_stage_exchange_is_of_hidden(x))
            continue;
        for (uint32_t s = 0; s < b->spec_count; s++) {
            const uint64_t here = vectors_of(x, &b->specs[s]);
            most = here > most ? here : most;
        }
        const uint64_t bytes = most * x->width * rt_dtype_bytes(x->dtype);
        const bool gathers = x->kind == RT_EXCHANGE_GATHER;
        RT_TRY(place_one(p, i, "from", x->from, bytes, d, err));
        RT_TRY(place_one(p, i, "to", x->to, gathers ? ranks * bytes : bytes, d, err));
    }
    return RT_OK;
}
