/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/weights.h"

#include "common/math.h"
#include "common/struct_size.h"
#include "config/config.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN_BYTES 16u
#define ALIGN_ELEMENTS 8
#define LAYER_ALIGN_BYTES 256u /* of a plan's weights: all layers lie alike */
#define BF16_BYTES 2u
#define SHOWN_BYTES 96
#define NO_LAYER UINT32_MAX

enum need { ALWAYS, LORA, NO_LORA, NORM, MAYBE, MAYBE_LORA, MAYBE_NO_LORA };

/* Widths that weights.inc speaks of. */
struct weight_dims {
    uint64_t one, hidden, q_rank, q_width, latent, kv_a_width, kv_b_width, v_width;
};

static const struct {
    const char *name;
    enum need need;
    size_t rows, columns; /* offsets in weight_dims */
} lines[RT_WEIGHT_COUNT] = {
#define RT_WEIGHT(id, name_, need_, rows_, columns_)                                               \
    [RT_WEIGHT_##id] = {name_, need_, offsetof(struct weight_dims, rows_),                         \
                        offsetof(struct weight_dims, columns_)},
#include "runtime/weights.inc"
};

static struct weight_dims dims_of(const struct rt_config *c)
{
    const struct rt_geometry *g = &c->geometry;
    const struct rt_block *b = &c->block;
    const uint64_t heads = g->heads, rope = g->qk_rope_head_dim;
    return (struct weight_dims){
        .one = 1,
        .hidden = b->hidden_size,
        .q_rank = b->q_lora_rank,
        .q_width = heads * (b->qk_nope_head_dim + rope),
        .latent = g->kv_lora_rank,
        .kv_a_width = g->kv_lora_rank + rope,
        .kv_b_width = heads * ((uint64_t)b->qk_nope_head_dim + b->v_head_dim),
        .v_width = heads / c->context_parallel * b->v_head_dim,
    };
}

static uint64_t dim_at(const struct weight_dims *dims, size_t offset)
{
    uint64_t value;
    memcpy(&value, (const char *)dims + offset, sizeof(value));
    return value;
}

/* Whether this configuration's layers have such a weight at all. */
static bool has_place(const struct rt_config *c, enum need need)
{
    const bool lora = c->block.q_lora_rank > 0;
    switch (need) {
    case LORA:
    case MAYBE_LORA:
        return lora;
    case NO_LORA:
    case MAYBE_NO_LORA:
        return !lora;
    case NORM:
        return c->input_norm != 0;
    default:
        return true;
    }
}

static bool is_needed(const struct rt_config *c, enum need need)
{
    return need < MAYBE && has_place(c, need);
}

const char *rt_weight_name(enum rt_weight_id id)
{
    return lines[id].name;
}

uint64_t rt_bound_weight_bytes(const struct rt_bound_weight *b)
{
    return ((b->rows - 1) * (uint64_t)b->row_stride +
            (b->columns - 1) * (uint64_t)b->column_stride + 1) *
           BF16_BYTES;
}

/* ---- binding --------------------------------------------------------------------------------- */

/* By what stands behind the last dot but one, so that any prefix of a checkpoint's will do. */
static enum rt_weight_id find(const char *name)
{
    const size_t length = strlen(name);
    uint32_t id = 0;
    for (; id < RT_WEIGHT_COUNT; id++) {
        const size_t own = strlen(lines[id].name);
        if (own <= length && strcmp(name + length - own, lines[id].name) == 0 &&
            (own == length || name[length - own - 1] == '.'))
            break;
    }
    return (enum rt_weight_id)id;
}

/* What a checkpoint's name says, "model.layers.3.self_attn.…": the last such number in it. */
static uint32_t layer_in(const char *name)
{
    static const char word[] = "layers.";
    uint32_t layer = NO_LAYER;
    for (const char *at = name; (at = strstr(at, word)) != NULL; at++) {
        const char *const digits = at + sizeof(word) - 1;
        const size_t count = strspn(digits, "0123456789");
        if ((at == name || at[-1] == '.') && count > 0 && count < 10 && digits[count] == '.')
            layer = (uint32_t)strtoul(digits, NULL, 10);
    }
    return layer;
}

static enum rt_status refuse_name(const struct rt_config *c, const char *name, struct rt_error *err)
{
    char list[320] = "";
    size_t used = 0;
    for (uint32_t id = 0; id < RT_WEIGHT_COUNT && used < sizeof(list); id++)
        if (has_place(c, lines[id].need))
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "",
                                     lines[id].name);
    return rt_fail(err, RT_ERR_INVALID,
                   "rt_weights_bind: no weight of this configuration is named \"%s\": there are %s",
                   name, list);
}

/* Fills *out, packed where no strides are given. */
static enum rt_status take_shape(const char *name, const struct rt_weight *w, uint64_t rows,
                                 uint64_t columns, struct rt_bound_weight *out,
                                 struct rt_error *err)
{
    RT_REQUIRE(w->rows == rows && w->columns == columns, err, RT_ERR_INVALID,
               "rt_weights_bind: weight %s is %" PRIu64 " x %" PRIu64 ": must be %" PRIu64
               " x %" PRIu64,
               name, w->rows, w->columns, rows, columns);
    *out = (struct rt_bound_weight){.address = w->address,
                                    .rows = rows,
                                    .columns = columns,
                                    .row_stride = w->row_stride,
                                    .column_stride = w->column_stride};
    if (w->row_stride == 0 && w->column_stride == 0) {
        out->row_stride = (int64_t)columns;
        out->column_stride = 1;
    }
    const bool by_rows = out->column_stride == 1;
    const int64_t apart = by_rows ? out->row_stride : out->column_stride;
    const uint64_t least = by_rows ? columns : rows;
    RT_REQUIRE(by_rows || out->row_stride == 1, err, RT_ERR_INVALID,
               "rt_weights_bind: weight %s has strides %" PRId64 " and %" PRId64
               ": one of them must be 1",
               name, out->row_stride, out->column_stride);
    RT_REQUIRE(rows > 1 || (by_rows && out->row_stride >= 0), err, RT_ERR_INVALID,
               "rt_weights_bind: weight %s is a vector with strides %" PRId64 " and %" PRId64
               ": the second must be 1, its numbers lie one behind the other",
               name, out->row_stride, out->column_stride);
    RT_REQUIRE(rows == 1 || (apart >= (int64_t)least && apart % ALIGN_ELEMENTS == 0 &&
                             apart <= INT64_MAX / 2 / (int64_t)(rows > columns ? rows : columns)),
               err, RT_ERR_INVALID,
               "rt_weights_bind: weight %s has a stride of %" PRId64
               " elements: must be a multiple of %d, at least "
               "%" PRIu64,
               name, apart, ALIGN_ELEMENTS, least);
    return RT_OK;
}

/* Of a long name the end, by which it is known. */
static const char *end_of(const char *name)
{
    const size_t length = strlen(name);
    return length > SHOWN_BYTES ? name + length - SHOWN_BYTES : name;
}

enum rt_status rt_weights_bind(rt_weights *weights, uint32_t layer, const char *name,
                               const struct rt_weight *weight, struct rt_error *error)
{
    struct rt_weight mine;
    struct rt_bound_weight bound;
    RT_REQUIRE(weights, error, RT_ERR_INVALID, "rt_weights_bind: weights is null");
    RT_REQUIRE(name, error, RT_ERR_INVALID, "rt_weights_bind: name is null");
    const uint32_t named = layer_in(name);
    name = end_of(name);
    RT_TAKE_STRUCT(weight, mine, error);
    const struct rt_config *c = &weights->config;
    RT_REQUIRE(layer < c->geometry.layers, error, RT_ERR_INVALID,
               "rt_weights_bind: weight %s: layer %u of %u", name, layer, c->geometry.layers);
    RT_REQUIRE(
        named == NO_LAYER || named == layer, error, RT_ERR_INVALID,
        "rt_weights_bind: weight %s is layer %u's by its name: must be bound to that, not to "
        "layer %u",
        name, named, layer);
    const enum rt_weight_id id = find(name);
    if (id == RT_WEIGHT_COUNT || !has_place(c, lines[id].need))
        return refuse_name(c, name, error);
    RT_REQUIRE(weight->dtype == RT_DTYPE_BF16, error, RT_ERR_INVALID,
               "rt_weights_bind: weight %s has dtype %d: must be bf16 (%d)", name,
               (int)weight->dtype, RT_DTYPE_BF16);
    RT_REQUIRE(weight->address && weight->address % ALIGN_BYTES == 0, error, RT_ERR_INVALID,
               "rt_weights_bind: weight %s lies at 0x%" PRIx64 ": must be a multiple of %u, not 0",
               name, weight->address, ALIGN_BYTES);
    const struct weight_dims dims = dims_of(c);
    RT_TRY(take_shape(name, weight, dim_at(&dims, lines[id].rows), dim_at(&dims, lines[id].columns),
                      &bound, error));
    RT_REQUIRE(rt_bound_weight_bytes(&bound) <= UINT64_MAX - bound.address, error, RT_ERR_INVALID,
               "rt_weights_bind: weight %s at 0x%" PRIx64 " wraps around", name, bound.address);
    weights->bound[(size_t)layer * RT_WEIGHT_COUNT + id] = bound;
    return RT_OK;
}

/* ---- the table ------------------------------------------------------------------------------- */

static enum rt_status init(const struct rt_config *c, struct rt_weights *out, struct rt_error *err)
{
    *out = (struct rt_weights){.config = *c};
    RT_REQUIRE(c->layer, err, RT_ERR_INVALID,
               "rt_weights_create: config->layer is 0: must be 1, as by layer: true");
    out->bound = calloc((size_t)c->geometry.layers * RT_WEIGHT_COUNT, sizeof(*out->bound));
    RT_REQUIRE(out->bound, err, RT_ERR_NOMEM, "out of host memory for the weights of %u layers",
               c->geometry.layers);
    return RT_OK;
}

enum rt_status rt_weights_create(const struct rt_config *config, rt_weights **out,
                                 struct rt_error *error)
{
    struct rt_config whole;
    RT_REQUIRE(out, error, RT_ERR_INVALID, "rt_weights_create: out is null");
    *out = NULL;
    RT_TRY(rt_config_take(config, &whole, error));
    struct rt_weights *w = calloc(1, sizeof(*w));
    RT_REQUIRE(w, error, RT_ERR_NOMEM, "out of host memory for weights");
    const enum rt_status status = init(&whole, w, error);
    if (status == RT_OK)
        *out = w;
    else
        free(w);
    return status;
}

void rt_weights_free(struct rt_weights *w)
{
    free(w->bound);
    *w = (struct rt_weights){.bound = NULL};
}

void rt_weights_destroy(rt_weights **weights)
{
    if (!weights || !*weights)
        return;
    rt_weights_free(*weights);
    free(*weights);
    *weights = NULL;
}

enum rt_status rt_weights_check(const rt_weights *weights, struct rt_error *error)
{
    RT_REQUIRE(weights, error, RT_ERR_INVALID, "rt_weights_check: weights is null");
    const struct rt_config *c = &weights->config;
    uint32_t missing = 0, layer = 0, first = 0;
    for (uint32_t i = c->geometry.layers * RT_WEIGHT_COUNT; i-- > 0;) {
        const uint32_t id = i % RT_WEIGHT_COUNT;
        if (weights->bound[i].address || !is_needed(c, lines[id].need))
            continue;
        missing++;
        layer = i / RT_WEIGHT_COUNT;
        first = id;
    }
    RT_REQUIRE(!missing, error, RT_ERR_INVALID,
               "layer %u has no %s (and %u more weights are not bound)", layer, lines[first].name,
               missing - 1);
    return RT_OK;
}

static uint32_t places_of_a_layer(const struct rt_config *c)
{
    uint32_t count = 0;
    for (uint32_t id = 0; id < RT_WEIGHT_COUNT; id++)
        count += has_place(c, lines[id].need);
    return count;
}

uint32_t rt_weights_count(const rt_weights *weights)
{
    return weights ? weights->config.geometry.layers * places_of_a_layer(&weights->config) : 0;
}

enum rt_status rt_weights_place(const rt_weights *weights, uint32_t index,
                                struct rt_weight_place *out, struct rt_error *error)
{
    RT_REQUIRE(weights, error, RT_ERR_INVALID, "rt_weights_place: weights is null");
    RT_REQUIRE(index < rt_weights_count(weights), error, RT_ERR_INVALID,
               "rt_weights_place: index %u of %u", index, rt_weights_count(weights));
    RT_CHECK_STRUCT(out, error);
    const struct rt_config *c = &weights->config;
    const struct weight_dims dims = dims_of(c);
    const uint32_t each = places_of_a_layer(c), layer = index / each;
    uint32_t id = 0;
    for (uint32_t left = index % each; left > 0 || !has_place(c, lines[id].need); id++)
        left -= has_place(c, lines[id].need);
    const struct rt_weight_place mine = {
        .layer = layer,
        .name = lines[id].name,
        .rows = dim_at(&dims, lines[id].rows),
        .columns = dim_at(&dims, lines[id].columns),
        .needed = is_needed(c, lines[id].need),
        .bound = rt_weight_of(weights, layer, (enum rt_weight_id)id)->address != 0,
    };
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

enum rt_status rt_weights_assume(const struct rt_config *config, struct rt_weights *out,
                                 struct rt_error *err)
{
    const struct weight_dims dims = dims_of(config);
    rt_addr address = ALIGN_BYTES;
    RT_TRY(init(config, out, err));
    for (uint32_t i = 0; i < config->geometry.layers * RT_WEIGHT_COUNT; i++) {
        const uint32_t id = i % RT_WEIGHT_COUNT;
        const uint64_t columns = dim_at(&dims, lines[id].columns);
        if (id == 0)
            address = rt_align_up_u64(address, LAYER_ALIGN_BYTES);
        if (!is_needed(config, lines[id].need))
            continue;
        out->bound[i] = (struct rt_bound_weight){.address = address,
                                                 .rows = dim_at(&dims, lines[id].rows),
                                                 .columns = columns,
                                                 .row_stride = (int64_t)columns,
                                                 .column_stride = 1};
        address += out->bound[i].rows * columns * BF16_BYTES;
    }
    return RT_OK;
}

/* What shapes depend on. */
static bool same_dims(const struct rt_config *a, const struct rt_config *b)
{
    const struct weight_dims x = dims_of(a), y = dims_of(b);
    return memcmp(&x, &y, sizeof(x)) == 0 && a->geometry.layers == b->geometry.layers &&
           a->input_norm == b->input_norm;
}

enum rt_status rt_weights_take(const struct rt_weights *given, const struct rt_config *config,
                               struct rt_weights *out, struct rt_error *err)
{
    RT_REQUIRE(given, err, RT_ERR_INVALID,
               "rt_create: params->weights is null: must be given with layer: true");
    RT_REQUIRE(same_dims(&given->config, config), err, RT_ERR_INVALID,
               "rt_create: params->weights were made for a configuration of other dimensions");
    RT_TRY(rt_weights_check(given, err));
    RT_TRY(init(config, out, err));
    memcpy(out->bound, given->bound,
           (size_t)config->geometry.layers * RT_WEIGHT_COUNT * sizeof(*out->bound));
    return RT_OK;
}

static enum rt_status check_memory(const struct rt_bound_weight *b, struct rt_driver *d,
                                   uint32_t layer, const char *name, struct rt_error *err)
{
    struct rt_address_range range;
    const uint64_t bytes = rt_bound_weight_bytes(b);
    RT_TRY(RT_DRV(d, err, address_range, (d, b->address, &range)));
    RT_REQUIRE(range.bytes, err, RT_ERR_INVALID,
               "weight %s of layer %u at 0x%" PRIx64 " is no memory that the driver knows: freed, "
               "or the host's",
               name, layer, b->address);
    RT_REQUIRE(range.ordinal == d->caps.ordinal, err, RT_ERR_INVALID,
               "weight %s of layer %u at 0x%" PRIx64
               " is memory of cuda:%u, the runtime's device is cuda:%u",
               name, layer, b->address, range.ordinal, d->caps.ordinal);
    RT_REQUIRE(bytes <= range.bytes - (b->address - range.base), err, RT_ERR_INVALID,
               "weight %s of layer %u, %" PRIu64 " bytes at 0x%" PRIx64
               ", ends behind its allocation of %" PRIu64 " bytes at 0x%" PRIx64,
               name, layer, bytes, b->address, range.bytes, range.base);
    return RT_OK;
}

enum rt_status rt_weights_still_there(const struct rt_weights *w, struct rt_driver *d,
                                      struct rt_error *err)
{
    for (uint64_t i = 0; d->caps.kind == RT_DEVICE_KIND_CUDA && i < rt_weights_slots(w); i++)
        if (w->bound[i].address)
            RT_TRY(check_memory(&w->bound[i], d, (uint32_t)(i / RT_WEIGHT_COUNT),
                                lines[i % RT_WEIGHT_COUNT].name, err));
    return RT_OK;
}

enum rt_status rt_weights_on_device(const struct rt_weights *w, struct rt_driver *d,
                                    struct rt_error *err)
{
    for (uint64_t i = 0; d->caps.kind == RT_DEVICE_KIND_HOST && i < rt_weights_slots(w); i++) {
        const struct rt_bound_weight *b = &w->bound[i];
        RT_REQUIRE(
            !b->address || rt_driver_host_adopt(d, b->address, rt_bound_weight_bytes(b)) == 0, err,
            RT_ERR_NOMEM, "out of host memory for weight %s", lines[i % RT_WEIGHT_COUNT].name);
    }
    return rt_weights_still_there(w, d, err);
}
