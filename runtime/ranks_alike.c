/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a runtime's configuration must have in common with those of the other ranks: each would go
 * on with numbers of its own, which nothing in a sum tells, or come to an exchange of another size.
 */
#include "config/config_keys.h"
#include "runtime/ranks_impl.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The model: the latent is every rank's own copy, made of the same hidden. */
static const enum rt_key_id of_all[] = {
    RT_KEY_RANK,          RT_KEY_ROPE_DIM,       RT_KEY_SOFTMAX_SCALE,   RT_KEY_INPUT_NORM,
    RT_KEY_PRECISION,     RT_KEY_HIDDEN_SIZE,    RT_KEY_Q_LORA_RANK,     RT_KEY_NOPE_DIM,
    RT_KEY_V_DIM,         RT_KEY_NORM_EPS,       RT_KEY_INPUT_NORM_EPS,  RT_KEY_NORM_ONE_PLUS,
    RT_KEY_Q_A_SCALE,     RT_KEY_KV_A_SCALE,     RT_KEY_RESIDUAL_SCALE,  RT_KEY_ROPE_TYPE,
    RT_KEY_ROPE_ORDER,    RT_KEY_ROPE_THETA,     RT_KEY_ROPE_FACTOR,     RT_KEY_ROPE_LENGTH,
    RT_KEY_ROPE_TRUNCATE, RT_KEY_ROPE_BETA_FAST, RT_KEY_ROPE_BETA_SLOW,  RT_KEY_ROPE_ATTENTION,
    RT_KEY_ROPE_SHORT,    RT_KEY_ROPE_LONG,      RT_KEY_ROPE_QUERY_SCALE};
/* And where they share a context: whose a token is, and which heads a rank's partner has. */
static const enum rt_key_id of_context[] = {RT_KEY_HEADS, RT_KEY_PAGE_SIZE, RT_KEY_LAYOUT,
                                            RT_KEY_KV_SCALE};

/* " 32"; what is no number has none. */
static void print_value(const struct rt_key *key, const struct rt_config *c, char text[32])
{
    const unsigned char *const at = (const unsigned char *)c + key->offset;
    double number;
    uint32_t integer;
    text[0] = '\0';
    if (key->holds == RT_HOLDS_NUMBER) {
        memcpy(&number, at, sizeof(number));
        (void)snprintf(text, 32, " %.10g", number);
    } else if (key->bytes == sizeof(integer) && key->holds != RT_HOLDS_WORD) {
        memcpy(&integer, at, sizeof(integer));
        (void)snprintf(text, 32, " %" PRIu32, integer);
    }
}

static enum rt_status compare_key(const struct rt_comm *comm, enum rt_key_id id, uint32_t rank,
                                  const struct rt_config *theirs, const struct rt_config *mine,
                                  struct rt_error *err)
{
    const struct rt_key *const key = rt_key_of(id);
    char their_value[32], my_value[32];
    if (!memcmp((const unsigned char *)theirs + key->offset,
                (const unsigned char *)mine + key->offset, key->bytes))
        return RT_OK;
    print_value(key, theirs, their_value);
    print_value(key, mine, my_value);
    if (!*my_value)
        return rt_fail(err, RT_ERR_RANKS,
                       "rank %" PRIu32 " has another %s than rank %" PRIu32 " (this one)", rank,
                       key->path, comm->rank);
    return rt_fail(err, RT_ERR_RANKS,
                   "rank %" PRIu32 " has %s%s, rank %" PRIu32 " (this one) has%s", rank, key->path,
                   their_value, comm->rank, my_value);
}

static enum rt_status compare_keys(const struct rt_comm *comm, const enum rt_key_id *ids,
                                   size_t count, const struct rt_config *all,
                                   const struct rt_config *mine, struct rt_error *err)
{
    for (uint32_t r = 0; r < comm->ranks; r++)
        for (size_t i = 0; i < count; i++)
            RT_TRY(compare_key(comm, ids[i], r, &all[r], mine, err));
    return RT_OK;
}

enum rt_status rt_ranks_alike(struct rt_runtime *rt, struct rt_error *err)
{
    const struct rt_config *const mine = &rt->blueprint.config;
    struct rt_comm *const comm = rt->ranks ? &rt->ranks->comm : NULL;
    if (!comm || comm->ranks == 1)
        return RT_OK;
    struct rt_config *const all = calloc(comm->ranks, sizeof(*all));
    RT_REQUIRE(all, err, RT_ERR_NOMEM, "out of host memory for the ranks' configurations");
    enum rt_status status = rt_comm_gather(comm, mine, all, sizeof(*mine), err);
    if (status == RT_OK)
        status = compare_keys(comm, of_all, sizeof(of_all) / sizeof(of_all[0]), all, mine, err);
    if (status == RT_OK && mine->context_parallel > 1)
        status = compare_keys(comm, of_context, sizeof(of_context) / sizeof(of_context[0]), all,
                              mine, err);
    free(all);
    return status;
}
