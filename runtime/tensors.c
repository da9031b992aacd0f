/* SPDX-License-Identifier: Apache-2.0 */
/* Static tensors by name: the layout's table, with the addresses that create decided. */
#include "runtime/runtime.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* Words of the control block that stages may read. */
static bool ctrl_word(const char *name, size_t *offset)
{
    if (!strcmp(name, "live_rows"))
        *offset = offsetof(struct rt_ctrl, live_rows);
    else if (!strcmp(name, "row_base"))
        *offset = offsetof(struct rt_ctrl, row_base);
    else
        return false;
    return true;
}

/* Also where all layers share one: a layer that does not exist is a mistake either way. */
static bool of_a_layer(enum rt_buffer_id id)
{
    return id == RT_BUF_Q || id == RT_BUF_LATENT || id == RT_BUF_OUT || id == RT_BUF_LSE ||
           id == RT_BUF_KV;
}

static bool is_public(const struct rt_layout *l, enum rt_buffer_id id)
{
    return id != RT_BUF_COUNT && id != RT_BUF_CTRL && id != RT_BUF_PAGE_COPIES &&
           l->buffers[id].region != RT_REGION_MAPPED;
}

static enum rt_status refuse_name(const struct rt_layout *l, const char *name,
                                  struct rt_error *err) RT_COLD;

static enum rt_status refuse_name(const struct rt_layout *l, const char *name, struct rt_error *err)
{
    char list[320] = "live_rows, row_base";
    size_t used = strlen(list);
    for (int id = 0; id < RT_BUF_COUNT && used < sizeof(list); id++)
        if (is_public(l, (enum rt_buffer_id)id))
            used += (size_t)snprintf(list + used, sizeof(list) - used, ", %s", l->buffers[id].name);
    return rt_fail(err, RT_ERR_INVALID, "no tensor is named \"%s\"; there are %s", name, list);
}

static enum rt_status find(struct rt_runtime *rt, const char *name, uint32_t layer,
                           struct rt_tensor *out)
{
    struct rt_error *err = &rt->error;
    const struct rt_layout *l = &rt->blueprint.layout;
    RT_REQUIRE(name, err, RT_ERR_INVALID, "rt_tensor: name is null");
    size_t offset;
    if (ctrl_word(name, &offset)) {
        *out = (struct rt_tensor){
            .struct_size = sizeof(*out),
            .dtype = RT_DTYPE_I32,
            .rank = 1,
            .shape = {1},
            .bytes = sizeof(int32_t),
            .address = rt_arena_addr(&rt->arena, RT_BUF_CTRL, 0) + offset,
        };
        return RT_OK;
    }
    enum rt_buffer_id id = rt_layout_find(l, name);
    if (!is_public(l, id))
        return refuse_name(l, name, err);
    const struct rt_buffer *buffer = &l->buffers[id];
    RT_REQUIRE(!of_a_layer(id) || layer < l->shape.layers, err, RT_ERR_INVALID,
               "tensor %s: layer %u of %u", name, layer, l->shape.layers);
    *out = (struct rt_tensor){
        .struct_size = sizeof(*out),
        .dtype = buffer->dtype,
        .rank = buffer->rank,
        .bytes = rt_dtype_bytes(buffer->dtype),
        .address = rt_arena_addr(&rt->arena, id, layer),
    };
    for (uint32_t i = 0; i < buffer->rank; i++) {
        out->shape[i] = buffer->shape[i];
        out->bytes *= buffer->shape[i];
    }
    return RT_OK;
}

enum rt_status rt_tensor(rt_runtime *rt, const char *name, uint32_t layer, struct rt_tensor *out)
{
    RT_REQUIRE(rt, NULL, RT_ERR_INVALID, "rt_tensor: runtime is null");
    RT_REQUIRE_STRUCT(out, &rt->error);
    return find(rt, name, layer, out);
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
    RT_REQUIRE(rt, NULL, RT_ERR_INVALID, "rt_tensor_write: runtime is null");
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
    RT_REQUIRE(rt, NULL, RT_ERR_INVALID, "rt_tensor_read: runtime is null");
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
