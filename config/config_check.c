/* SPDX-License-Identifier: Apache-2.0 */
#include "common/math.h"
#include "common/struct_size.h"
#include "config/config.h"
#include "config/geometry.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

void rt_config_default(struct rt_config *config)
{
    if (!config)
        return;
    *config = (struct rt_config){.struct_size = sizeof(*config)};
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++)
        if (rt_key_of((enum rt_key_id)id)->field)
            rt_key_reset((enum rt_key_id)id, config);
}

/* ---- what each field cannot know by itself; all are in range here ---------------------------- */

/* Kernels take it as a float, where 1e300 is infinite and 1e-60 is 0. */
static bool check_scale(double scale, struct rt_key_fault *fault)
{
    char must[64];
    if (scale >= (double)FLT_MIN && scale <= (double)FLT_MAX)
        return true;
    (void)snprintf(must, sizeof(must), "from %.3g to %.3g, as a float", (double)FLT_MIN,
                   (double)FLT_MAX);
    (void)snprintf(fault->value, sizeof(fault->value), "%g", scale);
    return rt_key_blame(fault, RT_KEY_SOFTMAX_SCALE, must);
}

static bool check_geometry(const struct rt_geometry *g, struct rt_key_fault *fault)
{
    if (rt_geometry_is_served(g->kv_lora_rank, g->qk_rope_head_dim))
        return true;
    (void)snprintf(fault->value, sizeof(fault->value),
                   "%u with qk_rope_head_dim %u, d_qk/d_v %llu/%u", g->kv_lora_rank,
                   g->qk_rope_head_dim, (unsigned long long)g->kv_lora_rank + g->qk_rope_head_dim,
                   g->kv_lora_rank);
    return rt_key_blame(fault, RT_KEY_RANK, "so that they give " RT_SERVED_GEOMETRIES);
}

static bool check_lengths(const struct rt_config *c, struct rt_key_fault *fault)
{
    char must[160];
    uint32_t query_len = c->query_lens[c->query_len_count - 1];
    (void)snprintf(fault->value, sizeof(fault->value), "%u", c->max_length);
    if (c->max_length < query_len) {
        (void)snprintf(must, sizeof(must), "at least %u, the longest query length", query_len);
        return rt_key_blame(fault, RT_KEY_MAX_LENGTH, must);
    }
    uint64_t blocks = rt_ceil_div_u32(c->max_length, c->page_size);
    if (blocks * c->max_sequences > INT32_MAX) {
        (void)snprintf(must, sizeof(must),
                       "at most %llu with %u sequences and pages of %u tokens: the page table "
                       "has at most 2147483647 entries",
                       (unsigned long long)(INT32_MAX / c->max_sequences) * c->page_size,
                       c->max_sequences, c->page_size);
        return rt_key_blame(fault, RT_KEY_MAX_LENGTH, must);
    }
    return true;
}

bool rt_config_is_good(const struct rt_config *config, struct rt_key_fault *fault)
{
    for (uint32_t id = 0; id < RT_KEY_COUNT; id++)
        if (rt_key_of((enum rt_key_id)id)->field &&
            !rt_key_check((enum rt_key_id)id, config, fault))
            return false;
    fault->element = -1;
    return check_scale(config->geometry.softmax_scale, fault) &&
           check_geometry(&config->geometry, fault) && check_lengths(config, fault);
}

enum rt_status rt_config_take(const struct rt_config *given, struct rt_config *out,
                              struct rt_error *err)
{
    struct rt_key_fault fault = {.element = -1};
    char element[16] = "";
    RT_TRY(rt_struct_check(given, sizeof(*out), "rt_config_check", "config", err));
    rt_config_default(out);
    memcpy(out, given, rt_min_u32(given->struct_size, sizeof(*out)));
    out->struct_size = sizeof(*out);
    if (rt_config_is_good(out, &fault))
        return RT_OK;
    if (fault.element >= 0)
        (void)snprintf(element, sizeof(element), "[%d]", fault.element);
    return rt_fail(err, fault.status, "%s%s is %s: must be %s", rt_key_of(fault.id)->field, element,
                   fault.value, fault.must);
}

enum rt_status rt_config_check(const struct rt_config *config, struct rt_error *error)
{
    struct rt_config whole;
    return rt_config_take(config, &whole, error);
}
