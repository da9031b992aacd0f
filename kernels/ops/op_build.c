/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ops/op_build.h"

#include <stdio.h>

#define VECTOR_BYTES 16u

enum rt_status rt_launch_grid(const struct rt_kernels *k, const char *entry, const void *params,
                              size_t param_bytes, uint32_t grid_x, uint32_t grid_y,
                              uint32_t threads, struct rt_launch *out, struct rt_error *err)
{
    RT_TRY(rt_kernels_launch(k, entry, params, (uint32_t)param_bytes, out, err));
    const uint32_t grid[3] = {grid_x, grid_y, 1}, block[3] = {threads, 1, 1};
    for (int i = 0; i < 3; i++) {
        out->grid[i] = grid[i];
        out->block[i] = block[i];
    }
    return RT_OK;
}

enum rt_status rt_launch_attend(const struct rt_kernels *k, const struct rt_variant *attend,
                                uint32_t rows, const void *params, size_t param_bytes,
                                struct rt_launch *out, struct rt_error *err)
{
    RT_TRY(rt_launch_grid(k, rt_attend_entry(attend, rows), params, param_bytes, attend->m_tiles,
                          attend->parts, rt_attend_threads(attend, rows), out, err));
    out->cluster_x = rt_attend_cluster(attend, rows);
    out->own_cluster = out->cluster_x > 1;
    return RT_OK;
}

enum rt_status rt_check_rows(uint32_t rows, uint32_t q_len, struct rt_error *err)
{
    RT_REQUIRE(rows >= 1 && rows <= RT_MAX_BATCH, err, RT_ERR_INVALID, "%u rows, not 1 to %u", rows,
               RT_MAX_BATCH);
    RT_REQUIRE(q_len >= 1 && q_len <= RT_MAX_QUERY_LEN, err, RT_ERR_INVALID,
               "query length %u, not 1 to %u", q_len, RT_MAX_QUERY_LEN);
    return RT_OK;
}

enum rt_status rt_check_token_rows(uint32_t rows, uint32_t q_len, struct rt_error *err)
{
    RT_REQUIRE(q_len >= 1 && q_len <= RT_MAX_QUERY_LEN, err, RT_ERR_INVALID,
               "query length %u, not 1 to %u", q_len, RT_MAX_QUERY_LEN);
    RT_REQUIRE(rows >= 1 && rows <= RT_MAX_TOKENS / q_len, err, RT_ERR_INVALID,
               "%u rows of %u tokens, not 1 to %u", rows, q_len, RT_MAX_TOKENS / q_len);
    return RT_OK;
}

enum rt_status rt_check_pointer(const char *name, const void *pointer, struct rt_error *err)
{
    RT_REQUIRE((uintptr_t)pointer % VECTOR_BYTES == 0, err, RT_ERR_INVALID,
               "%s is at %p, not 16-byte aligned", name, pointer);
    return RT_OK;
}

enum rt_status rt_check_stride(const char *name, int64_t stride, uint32_t element_bytes,
                               struct rt_error *err)
{
    RT_REQUIRE(stride % (int64_t)(VECTOR_BYTES / element_bytes) == 0, err, RT_ERR_INVALID,
               "%s is %lld, not a multiple of %u", name, (long long)stride,
               VECTOR_BYTES / element_bytes);
    return RT_OK;
}

enum rt_status rt_check_kv(const struct rt_kv_view *kv, struct rt_error *err)
{
    RT_TRY(rt_check_pointer("kv", kv->base, err));
    RT_TRY(rt_check_stride("kv page stride in bytes", kv->page_stride_bytes, 1, err));
    RT_TRY(rt_check_stride("kv token stride in bytes", kv->token_stride_bytes, 1, err));
    return rt_check_stride("kv bytes of a token", kv->token_bytes, 1, err);
}

enum rt_status rt_check_heads(const char *name, const struct rt_heads_view *view,
                              struct rt_error *err)
{
    const struct {
        const char *name;
        int64_t stride;
    } strides[] = {
        {"row", view->row_stride}, {"token", view->token_stride}, {"head", view->head_stride}};
    RT_TRY(rt_check_pointer(name, view->base, err));
    for (size_t i = 0; i < sizeof(strides) / sizeof(strides[0]); i++) {
        char what[48];
        (void)snprintf(what, sizeof(what), "%s %s stride in elements", name, strides[i].name);
        RT_TRY(rt_check_stride(what, strides[i].stride, sizeof(uint16_t), err));
    }
    return RT_OK;
}

enum rt_status rt_check_tokens(const char *name, const struct rt_tokens_view *view,
                               struct rt_error *err)
{
    char row[48], token[48];
    (void)snprintf(row, sizeof(row), "%s row stride in elements", name);
    (void)snprintf(token, sizeof(token), "%s token stride in elements", name);
    RT_TRY(rt_check_pointer(name, view->base, err));
    RT_TRY(rt_check_stride(row, view->row_stride, sizeof(uint16_t), err));
    return rt_check_stride(token, view->token_stride, sizeof(uint16_t), err);
}

enum rt_status rt_check_norm(const char *name, const struct rt_norm_view *norm, uint32_t most,
                             struct rt_error *err)
{
    char weight[48];
    (void)snprintf(weight, sizeof(weight), "%s weight", name);
    RT_TRY(rt_check_pointer(weight, norm->weight, err));
    RT_REQUIRE(norm->width >= 8 && norm->width <= most && norm->width % 8 == 0, err, RT_ERR_INVALID,
               "%s of %u numbers, not a multiple of 8 up to %u", name, norm->width, most);
    return RT_OK;
}

enum rt_status rt_check_f32(const struct rt_kernels *k, const struct rt_variant *variant,
                            uint32_t is_f32, struct rt_error *err)
{
    RT_REQUIRE(!is_f32 || !k->driver || k->driver->caps.kind == RT_DEVICE_KIND_HOST, err,
               RT_ERR_UNSUPPORTED, "kernel %s: f32 is served on the host device alone, not on %s",
               variant->entry, k->driver->caps.name);
    return RT_OK;
}
