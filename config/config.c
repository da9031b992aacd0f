/* SPDX-License-Identifier: Apache-2.0 */
#include "config/config.h"

#include "common/math.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_BUCKETS 7

void rt_config_default(struct rt_config *config)
{
    if (!config)
        return;
    *config = (struct rt_config){
        .struct_size = sizeof(*config),
        .device = "auto",
        .batch_sizes = {1, 2, 4, 8, 16, 32, 64},
        .batch_size_count = DEFAULT_BUCKETS,
        .query_lens = {1},
        .query_len_count = 1,
        .ring_depth = 8,
        .max_sequences = 64,
        .max_length = 8192,
        .kv_layout = RT_KV_BF16,
        .page_size = 64,
        .memory_fraction = 0.85,
        .backend = RT_BACKEND_AUTO,
        .tensors = RT_TENSORS_SHARED,
    };
}

/* ---- faults: each check returns true where it has found one ---------------------------------- */

static bool fault_words(struct rt_config_fault *fault, enum rt_config_key key, int32_t element,
                        const char *must)
{
    bool is_geometry = key >= RT_KEY_GEOMETRY && key <= RT_KEY_SOFTMAX_SCALE;
    fault->status = is_geometry ? RT_ERR_GEOMETRY : RT_ERR_CONFIG;
    fault->key = key;
    fault->element = element;
    (void)snprintf(fault->must, sizeof(fault->must), "%s",
                   must ? must : rt_config_key_words(key)->must);
    return true;
}

static bool fault_integer(struct rt_config_fault *fault, enum rt_config_key key, uint64_t value)
{
    (void)snprintf(fault->value, sizeof(fault->value), "%llu", (unsigned long long)value);
    return fault_words(fault, key, -1, NULL);
}

static bool check_range(struct rt_config_fault *fault, enum rt_config_key key, uint64_t value,
                        uint64_t least, uint64_t most)
{
    return (value < least || value > most) && fault_integer(fault, key, value);
}

static bool check_number(struct rt_config_fault *fault, enum rt_config_key key, double value,
                         double most)
{
    if (value > 0.0 && value <= most)
        return false;
    (void)snprintf(fault->value, sizeof(fault->value), "%g", value);
    return fault_words(fault, key, -1, NULL);
}

/* Kernels take it as a float, where 1e300 is infinite and 1e-60 is 0. */
static bool check_scale(struct rt_config_fault *fault, double value)
{
    if (check_number(fault, RT_KEY_SOFTMAX_SCALE, value, DBL_MAX))
        return true;
    if (value >= (double)FLT_MIN && value <= (double)FLT_MAX)
        return false;
    char must[64];
    (void)snprintf(must, sizeof(must), "from %.3g to %.3g, as a float", (double)FLT_MIN,
                   (double)FLT_MAX);
    (void)snprintf(fault->value, sizeof(fault->value), "%g", value);
    return fault_words(fault, RT_KEY_SOFTMAX_SCALE, -1, must);
}

static bool check_geometry(struct rt_config_fault *fault, const struct rt_geometry *g)
{
    if (check_range(fault, RT_KEY_HEADS, g->heads, 1, RT_MAX_HEADS) ||
        check_range(fault, RT_KEY_LAYERS, g->layers, 1, RT_MAX_LAYERS) ||
        check_scale(fault, g->softmax_scale))
        return true;
    if (rt_geometry_is_served(g->kv_lora_rank, g->qk_rope_head_dim))
        return false;
    (void)snprintf(fault->value, sizeof(fault->value),
                   "%u with qk_rope_head_dim %u, d_qk/d_v %llu/%u", g->kv_lora_rank,
                   g->qk_rope_head_dim, (unsigned long long)g->kv_lora_rank + g->qk_rope_head_dim,
                   g->kv_lora_rank);
    return fault_words(fault, RT_KEY_RANK, -1, "so that they give " RT_SERVED_GEOMETRIES);
}

static bool check_device(struct rt_config_fault *fault, const char *device, size_t capacity)
{
    size_t length = strnlen(device, capacity);
    if (length < capacity) {
        if (strcmp(device, "auto") == 0 || strcmp(device, "host") == 0)
            return false;
        const char *number = device + 5;
        if (strncmp(device, "cuda:", 5) == 0) {
            size_t digits = strspn(number, "0123456789");
            if (digits >= 1 && digits <= 4 && number[digits] == '\0' &&
                (digits == 1 || number[0] != '0'))
                return false;
        }
    }
    (void)snprintf(fault->value, sizeof(fault->value), "\"%.*s\"", (int)length, device);
    return fault_words(fault, RT_KEY_DEVICE, -1, NULL);
}

/* Ascending and unique, each in 1..most; `each` is the key of an element. */
static bool check_list(struct rt_config_fault *fault, enum rt_config_key key,
                       enum rt_config_key each, const uint32_t *list, uint32_t count,
                       uint32_t capacity, uint32_t most)
{
    char must[64];
    if (count < 1 || count > capacity) {
        (void)snprintf(fault->value, sizeof(fault->value), "a list of %u", count);
        return fault_words(fault, key, -1, NULL);
    }
    for (uint32_t i = 0; i < count; i++) {
        (void)snprintf(fault->value, sizeof(fault->value), "%u", list[i]);
        if (list[i] < 1 || list[i] > most)
            return fault_words(fault, key, (int32_t)i, rt_config_key_words(each)->must);
        if (i > 0 && list[i] <= list[i - 1]) {
            (void)snprintf(must, sizeof(must), "greater than the %u before it", list[i - 1]);
            return fault_words(fault, key, (int32_t)i, must);
        }
    }
    return false;
}

static bool check_graphs(struct rt_config_fault *fault, const struct rt_config *c)
{
    return check_list(fault, RT_KEY_BATCH_SIZES, RT_KEY_BATCH_SIZE, c->batch_sizes,
                      c->batch_size_count, RT_MAX_BUCKETS, RT_MAX_BATCH) ||
           check_list(fault, RT_KEY_QUERY_LENS, RT_KEY_QUERY_LEN, c->query_lens, c->query_len_count,
                      RT_MAX_QUERY_LENS, RT_MAX_QUERY_LEN) ||
           check_range(fault, RT_KEY_RING_DEPTH, c->ring_depth, 2, 64);
}

static bool check_kv_cache(struct rt_config_fault *fault, const struct rt_config *c)
{
    if (c->kv_layout != RT_KV_BF16)
        return fault_integer(fault, RT_KEY_LAYOUT, (uint64_t)c->kv_layout);
    if (c->page_size != 16 && c->page_size != 32 && c->page_size != 64 && c->page_size != 128)
        return fault_integer(fault, RT_KEY_PAGE_SIZE, c->page_size);
    return (c->pages != 0 && check_range(fault, RT_KEY_PAGES, c->pages, 1, INT32_MAX)) ||
           check_number(fault, RT_KEY_MEMORY, c->memory_fraction, 1.0);
}

static bool check_attention(struct rt_config_fault *fault, const struct rt_config *c)
{
    if (c->backend != RT_BACKEND_AUTO && c->backend != RT_BACKEND_GENERIC &&
        c->backend != RT_BACKEND_SM90)
        return fault_integer(fault, RT_KEY_BACKEND, (uint64_t)c->backend);
    if (c->tensors != RT_TENSORS_SHARED && c->tensors != RT_TENSORS_PER_LAYER)
        return fault_integer(fault, RT_KEY_TENSORS, (uint64_t)c->tensors);
    return false;
}

/* What each field cannot know by itself. All fields are in range here. */
static bool check_together(struct rt_config_fault *fault, const struct rt_config *c)
{
    char must[160];
    uint32_t query_len = c->query_lens[c->query_len_count - 1];
    if (c->max_length < query_len) {
        (void)snprintf(must, sizeof(must), "at least %u, the longest query length", query_len);
        (void)fault_integer(fault, RT_KEY_MAX_LENGTH, c->max_length);
        return fault_words(fault, RT_KEY_MAX_LENGTH, -1, must);
    }
    uint64_t blocks = rt_ceil_div_u32(c->max_length, c->page_size);
    if (blocks * c->max_sequences > INT32_MAX) {
        (void)snprintf(must, sizeof(must),
                       "at most %llu with %u sequences and pages of %u tokens: the page table "
                       "has at most 2147483647 entries",
                       (unsigned long long)(INT32_MAX / c->max_sequences) * c->page_size,
                       c->max_sequences, c->page_size);
        (void)fault_integer(fault, RT_KEY_MAX_LENGTH, c->max_length);
        return fault_words(fault, RT_KEY_MAX_LENGTH, -1, must);
    }
    return false;
}

bool rt_config_find_fault(const struct rt_config *config, struct rt_config_fault *fault)
{
    return check_geometry(fault, &config->geometry) ||
           check_device(fault, config->device, sizeof(config->device)) ||
           check_graphs(fault, config) ||
           check_range(fault, RT_KEY_MAX_SEQUENCES, config->max_sequences, 1, RT_MAX_SEQUENCES) ||
           check_range(fault, RT_KEY_MAX_LENGTH, config->max_length, 1, RT_MAX_LENGTH) ||
           check_kv_cache(fault, config) || check_attention(fault, config) ||
           check_together(fault, config);
}

enum rt_status rt_config_check(const struct rt_config *config, struct rt_error *error)
{
    struct rt_config_fault fault = {.element = -1};
    char element[16] = "";
    RT_REQUIRE(config, error, RT_ERR_INVALID, "config is null: must point to a struct rt_config");
    RT_REQUIRE(config->struct_size == sizeof(*config), error, RT_ERR_INVALID,
               "struct_size is %u: must be %zu, sizeof(struct rt_config) of this library, as "
               "rt_config_default sets it",
               config->struct_size, sizeof(*config));
    if (!rt_config_find_fault(config, &fault))
        return RT_OK;
    if (fault.element >= 0)
        (void)snprintf(element, sizeof(element), "[%d]", fault.element);
    return rt_fail(error, fault.status, "%s%s is %s: must be %s",
                   rt_config_key_words(fault.key)->field, element, fault.value, fault.must);
}
