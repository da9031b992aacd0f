/* SPDX-License-Identifier: Apache-2.0 */
#include "common/kv_format.h"

#include "common/work.h"

/* One line a layout and precision: what each segment's elements are. */
static const struct {
    enum rt_kv_layout layout;
    enum rt_precision precision;
    const char *name;
    enum rt_dtype latent, rope;
} layouts[] = {
    {RT_KV_BF16, RT_PRECISION_BF16, "bf16", RT_DTYPE_BF16, RT_DTYPE_BF16},
    {RT_KV_BF16, RT_PRECISION_F32, "f32", RT_DTYPE_F32, RT_DTYPE_F32},
};

static void add_segment(struct rt_kv_format *format, enum rt_kv_segment_kind kind,
                        enum rt_dtype dtype, uint32_t elements)
{
    if (elements == 0)
        return;
    format->segments[format->segment_count++] = (struct rt_kv_segment){
        .kind = kind, .dtype = dtype, .elements = elements, .offset_bytes = format->token_bytes};
    format->token_bytes += elements * rt_dtype_bytes(dtype);
}

bool rt_kv_format_make(enum rt_kv_layout layout, enum rt_precision precision, uint32_t d_qk,
                       uint32_t d_v, struct rt_kv_format *out)
{
    *out = (struct rt_kv_format){0};
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        if (layouts[i].layout != layout || layouts[i].precision != precision)
            continue;
        *out = (struct rt_kv_format){
            .layout = layout, .name = layouts[i].name, .d_qk = d_qk, .d_v = d_v};
        add_segment(out, RT_KV_LATENT, layouts[i].latent, d_v);
        add_segment(out, RT_KV_ROPE, layouts[i].rope, d_qk - d_v);
        return true;
    }
    return false;
}
