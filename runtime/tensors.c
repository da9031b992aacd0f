/* SPDX-License-Identifier: Apache-2.0 */
/* Static tensors by name: the layout's table, with the addresses that create decided. */
#include "runtime/runtime.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Words of the control block that stages may read. */
static const struct {
    const char *name;
    size_t offset;
} words[] = {
#define RT_TENSOR_WORD(name_, member) {name_, offsetof(struct rt_ctrl, member)},
#include "buffers/tensors.inc"
};
#define WORD_COUNT (sizeof(words) / sizeof(words[0]))

/* Also where all layers share one: a layer that does not exist is a mistake either way. */
static bool of_a_layer(const struct rt_placed *t)
{
    return t->scope == RT_SCOPE_LAYER || t->scope == RT_SCOPE_DATA;
}

static bool is_there(const struct rt_placed *t)
{
    return t->is_public && t->bytes > 0;
}

static enum rt_status refuse_name(const struct rt_placement *l, const char *name,
                                  struct rt_error *err) RT_COLD;

static enum rt_status refuse_name(const struct rt_placement *l, const char *name,
                                  struct rt_error *err)
{
    char list[320] = "";
    size_t used = 0;
    for (size_t i = 0; i < WORD_COUNT && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s%s", used ? ", " : "",
                                 words[i].name);
    for (int id = 0; id < RT_TENSOR_COUNT && used < sizeof(list); id++)
        if (is_there(&l->tensors[id]))
            used += (size_t)snprintf(list + used, sizeof(list) - used, ", %s", l->tensors[id].name);
    return rt_fail(err, RT_ERR_INVALID, "no tensor is named \"%s\"; there are %s", name, list);
}

static enum rt_status find(struct rt_runtime *rt, const char *name, uint32_t layer,
                           struct rt_tensor *out)
{
    struct rt_error *err = &rt->error;
    const struct rt_placement *l = &rt->blueprint.placement;
    RT_REQUIRE(name, err, RT_ERR_INVALID, "rt_tensor: name is null");
    for (size_t i = 0; i < WORD_COUNT; i++) {
        if (strcmp(name, words[i].name) != 0)
            continue;
        *out = (struct rt_tensor){
            .dtype = RT_DTYPE_I32,
            .rank = 1,
            .shape = {1},
            .bytes = sizeof(int32_t),
            .address = rt_arena_addr(&rt->arena, RT_TENSOR_CTRL, 0) + words[i].offset,
        };
        return RT_OK;
    }
    enum rt_tensor_id id = rt_tensor_find(l, name);
    if (id == RT_TENSOR_COUNT || !is_there(&l->tensors[id]))
        return refuse_name(l, name, err);
    const struct rt_placed *t = &l->tensors[id];
    RT_REQUIRE(!of_a_layer(t) || layer < l->dims.layers, err, RT_ERR_INVALID,
               "tensor %s: layer %u of %u", name, layer, l->dims.layers);
    *out = (struct rt_tensor){
        .dtype = t->dtype,
        .rank = t->rank,
        .bytes = rt_dtype_bytes(t->dtype),
        .address = rt_arena_addr(&rt->arena, id, layer),
    };
    for (uint32_t i = 0; i < t->rank; i++) {
        out->shape[i] = t->shape[i];
        out->bytes *= t->shape[i];
    }
    return RT_OK;
}

enum rt_status rt_tensor(rt_runtime *rt, const char *name, uint32_t layer, struct rt_tensor *out)
{
    RT_REQUIRE(rt, NULL, RT_ERR_INVALID, "rt_tensor: runtime is null");
    struct rt_tensor mine;
    RT_CHECK_STRUCT(out, &rt->error);
    RT_TRY(find(rt, name, layer, &mine));
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

static enum rt_status find_range(struct rt_runtime *rt, const char *name, uint32_t layer,
                                 uint64_t offset, const void *data, uint64_t bytes, rt_addr *out)
{
    struct rt_tensor tensor = {0};
    RT_TRY(find(rt, name, layer, &tensor));
    RT_REQUIRE(offset <= tensor.bytes && bytes <= tensor.bytes - offset, &rt->error, RT_ERR_INVALID,
               "tensor %s has %" PRIu64 " bytes; offset %" PRIu64 " and %" PRIu64
               " bytes reach past its end",
               name, tensor.bytes, offset, bytes);
    RT_REQUIRE(data || !bytes, &rt->error, RT_ERR_INVALID, "tensor %s: data is null", name);
    *out = tensor.address + offset;
    return RT_OK;
}

enum rt_status rt_tensor_write(rt_runtime *rt, const char *name, uint32_t layer,
                               uint64_t offset_bytes, const void *data, uint64_t bytes)
{
    RT_ENTER(rt);
    rt_addr to = 0;
    RT_TRY(find_range(rt, name, layer, offset_bytes, data, bytes, &to));
    if (!bytes)
        return RT_OK;
    struct rt_driver *d = &rt->driver;
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    enum rt_status status = RT_DRV(d, &rt->error, copy_in, (d, to, data, bytes, rt->stream));
    if (status == RT_OK)
        status = RT_DRV(d, &rt->error, stream_sync, (d, rt->stream));
    (void)d->ctx_leave(d);
    return status;
}

enum rt_status rt_tensor_read(rt_runtime *rt, const char *name, uint32_t layer,
                              uint64_t offset_bytes, void *data, uint64_t bytes)
{
    RT_ENTER(rt);
    rt_addr from = 0;
    RT_TRY(find_range(rt, name, layer, offset_bytes, data, bytes, &from));
    if (!bytes)
        return RT_OK;
    struct rt_driver *d = &rt->driver;
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    enum rt_status status = RT_DRV(d, &rt->error, copy_out, (d, data, from, bytes, rt->stream));
    if (status == RT_OK)
        status = RT_DRV(d, &rt->error, stream_sync, (d, rt->stream));
    (void)d->ctx_leave(d);
    return status;
}
