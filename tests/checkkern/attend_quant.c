/* SPDX-License-Identifier: Apache-2.0 */
/*
 * attend_quant: the cases of attend, over caches of every quantised layout. Against the formula
 * over what the cache holds with attend's own bounds; and, where values are plain, against the
 * formula over what was quantised with those of compare.h.
 */
#include "kernels/quant_view.h"
#include "kernels/ref/quant.h"
#include "tests/checkkern/attend_case.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define GEOMETRIES 4u

static const enum rt_kv_layout layouts[] = {RT_KV_FP8_TENSOR, RT_KV_FP8_TOKEN, RT_KV_V32,
                                            RT_KV_V32_NO_ROPE, RT_KV_V4};
#define LAYOUTS 5u

bool ck_attend_format(const struct ck_attend *c, struct rt_kv_format *out)
{
    return rt_kv_format_make(c->layout, RT_PRECISION_BF16, c->d_qk, c->d_v, out);
}

static struct rt_kv_view quant_kv(const struct ck_attend *c, const struct ck_attend_rig *rig,
                                  enum ck_side side)
{
    struct rt_kv_format format;
    const int64_t gap = c->strided ? 16 : 0;
    struct rt_kv_view kv = rig->ref.kv;
    (void)ck_attend_format(c, &format);
    kv.token_stride_bytes = format.row_bytes + gap;
    kv.page_stride_bytes =
        (c->page_size * (kv.token_stride_bytes + format.token_bytes - format.row_bytes) + 15) / 16 *
            16 +
        3 * gap;
    kv.token_bytes = format.row_bytes;
    kv.base = rig->quant.bytes ? ck_at(&rig->quant, side) : NULL;
    return kv;
}

struct rt_kv_view ck_attend_quant_kv(const struct ck_attend *c, const struct ck_attend_rig *rig)
{
    struct rt_kv_view kv = quant_kv(c, rig, CK_DEVICE);
    kv.table = ck_at(&rig->table, CK_DEVICE);
    return kv;
}

/* A power of two; one of four bits, whose products with e4m3 bf16 has; one whose it rounds. */
static float tensor_scale(const struct ck_attend *c)
{
    static const float scales[] = {0.0123f, 1.0f / 64, 0.8125f / 64, 1.0f / 64};
    return c->flavour == CK_HUGE ? 1.0f / 64 : scales[c->seed % 4];
}

/* Tokens' scales as others may have written them. */
static bool is_uneven(const struct ck_attend *c)
{
    return c->flavour == CK_SCALES && c->seed / 4 % 2;
}

bool ck_attend_is_rounded(const struct ck_attend *c, const struct ck_attend_rig *rig)
{
    int log2 = 0;
    const float bits = frexpf(rig->quant_view.tensor_scale, &log2) * 16;
    if (rig->quant_view.scale_kind == RT_QUANT_SCALE_F32)
        return is_uneven(c);
    return rig->quant_view.scale_kind == RT_QUANT_SCALE_TENSOR && bits != rintf(bits);
}

/* Of the `n`-th token: smaller numbers, so that bounds stay what they are. */
static void spread_scales(const struct rt_quant_view *quant, struct rt_ref_quant_row of, uint64_t n,
                          bool uneven)
{
    const uint64_t mixed = n * UINT64_C(2654435761);
    const int down = (int)(mixed >> 16 & 15);
    const float share = uneven ? 1 - (float)(mixed >> 4 & 0xfff) / 8192 : 1; /* 12 bits */
    assert(of.scales);
    for (uint32_t tile = 0; tile < quant->fp8 / quant->tile; tile++)
        if (quant->scale_kind == RT_QUANT_SCALE_F32) {
            float scale;
            memcpy(&scale, of.scales + tile * sizeof(scale), sizeof(scale));
            scale = ldexpf(n % 3 ? scale : -scale, -down) * share;
            memcpy(of.scales + tile * sizeof(scale), &scale, sizeof(scale));
        } else if (quant->scale_kind == RT_QUANT_SCALE_UE8M0) {
            of.scales[tile] = (unsigned char)(of.scales[tile] - down);
        }
}

void ck_attend_quantise(struct ck *ck, const struct ck_attend *c, struct ck_attend_rig *rig)
{
    const struct rt_kv_view plain = rig->ref.kv;
    struct rt_kv_view kv = quant_kv(c, rig, CK_REF);
    struct rt_kv_format format;
    uint16_t *from = ck_at(&rig->kv, CK_REF);
    (void)ck_attend_format(c, &format);
    rig->quant = ck_alloc_later(ck, "quantised kv", plain.pages * (uint64_t)kv.page_stride_bytes,
                                0xff); /* NaN in all of its numbers */
    rig->plain = ck_alloc_later(ck, "plain kv", rig->kv.bytes, 0xff);
    memcpy(ck_at(&rig->plain, CK_REF), from, rig->kv.bytes);
    kv = quant_kv(c, rig, CK_REF);
    rig->quant_view = rt_quant_view_make(&format, &kv, tensor_scale(c));
    for (int64_t page = 0; !c->blank && page < plain.pages; page++)
        for (int64_t row = 0; row < plain.page_size; row++) {
            uint16_t *token =
                from + (page * plain.page_stride_bytes + row * plain.token_stride_bytes) / 2;
            const struct rt_ref_quant_row to = rt_ref_quant_row(&kv, &rig->quant_view, page, row);
            if (token[0] == 0xffff && token[c->d_qk - 1] == 0xffff)
                continue; /* of nobody */
            rt_ref_quantise(&rig->quant_view, token, c->d_qk, to);
            if (c->flavour == CK_SCALES)
                spread_scales(&rig->quant_view, to, (uint64_t)(page * plain.page_size + row),
                              is_uneven(c));
            rt_ref_dequantise(&rig->quant_view, to, c->d_qk, token);
        }
    ck_upload(ck, &rig->quant);
}

static void check(struct ck *ck, enum rt_kv_layout layout, struct ck_attend c)
{
    struct rt_kv_format format;
    c.layout = layout;
    if (ck_attend_format(&c, &format))
        ck_attend_check(ck, &c);
}

static void check_grid(struct ck *ck)
{
    static const uint32_t heads[] = {1, 5, 8, 16, 20, 33, 64, 96, 128};
    uint32_t n = 0;
    for (uint32_t l = 0; l < LAYOUTS; l++)
        for (uint32_t g = 0; g < GEOMETRIES; g++)
            for (uint32_t h = 0; h < 9; h++, n++) {
                if (!ck->full && h % 3 != (l + g) % 3)
                    continue;
                const uint32_t q_len = 1 + n % (heads[h] > 32 ? 2 : 8);
                check(ck, layouts[l], ck_attend_turn(ck, g, heads[h], q_len, n));
            }
}

static void check_flavours(struct ck *ck)
{
    uint32_t n = 0;
    for (uint32_t l = 0; l < LAYOUTS; l++)
        for (uint32_t g = 0; g < GEOMETRIES; g++)
            for (uint32_t flavour = CK_HUGE; flavour < CK_FLAVOURS; flavour++, n++) {
                struct ck_attend c = ck_attend_turn(ck, g, 3 + n % 15, 1 + n % 3, n);
                if ((!ck->full && flavour % 2 != (l + g) % 2) ||
                    (c.d_qk == c.d_v && (flavour == CK_MINUS_INF || flavour == CK_PLUS_INF)))
                    continue;
                c.flavour = (enum ck_flavour)flavour;
                c.scale = flavour == CK_HUGE ? 40000 : c.scale;
                c.causal = (c.causal && flavour != CK_NAN_KEY && flavour != CK_PLUS_INF) ||
                           flavour == CK_BAD_DRAFT;
                check(ck, layouts[l], c);
            }
}

static void check_tiles(struct ck *ck)
{
    static const uint32_t tiles[] = {16, 32, 64}, heads[] = {1, 20, 70};
    for (uint32_t n = 0; n < 36; n++)
        for (uint32_t l = 0; l < LAYOUTS; l++) {
            if (!ck->full && n % 5 != l)
                continue;
            struct ck_attend c = ck_attend_turn(ck, n / 3 % 4, heads[n / 12], 1 + n % 2, n);
            c.tile_rows = tiles[n % 3];
            check(ck, layouts[l], c);
        }
}

/*
 * Tiles of 64 query rows over the same keys, two, four and an odd number of them, the last of them
 * full and not: rows of odd and even numbers of blocks in long parts, in pieces and one after
 * the other, with what is not finite among their keys.
 */
static void check_wide_tiles(struct ck *ck)
{
    static const int32_t lengths[] = {129, 64, 200, 1, 320, 65, 450, 63, 257};
    static const enum ck_flavour flavours[] = {CK_PLAIN, CK_BAD_DRAFT, CK_PLAIN, CK_BAD_PAGES,
                                               CK_SCALES};
    static const struct {
        uint32_t heads, q_len;
    } shapes[] = {{128, 1}, {70, 1}, {64, 2}, {96, 1}, {127, 2}, {65, 2}, {43, 3}};
    for (uint32_t n = 0; n < 140; n++) {
        const uint32_t s = n / LAYOUTS % 7;
        if (!ck->full && !ck_is_cuda(ck) && n / 7 % (ck->quick ? 7 : 4) != n % 7 / 2)
            continue;
        struct ck_attend c =
            ck_attend_turn(ck, n / LAYOUTS / 7, shapes[s].heads, shapes[s].q_len, n);
        c.rows = ck_is_cuda(ck) ? 9 : 2 + n % 3;
        c.padded = n % 4 == 3;
        for (uint32_t r = 0; r < c.rows; r++)
            c.lengths[r] = r < c.rows - c.padded ? lengths[(n + r) % 9] : 0;
        c.flavour = flavours[(n + s) % 5];
        c.causal = c.causal || c.flavour == CK_BAD_DRAFT;
        c.parts = n % 3 == 0 ? 0 : n % 3 == 1 ? 2 : 11;
        c.overhead_blocks = 0;
        c.min_blocks = 1;
        check(ck, layouts[n % LAYOUTS], c);
    }
}

/*
 * Three workers with blocks of their own: segments of no block, of fewer than there are workers and
 * of more, in long parts, in pieces and one after the other, with drafts in
 * one block and across two, and what is not finite among keys and scales.
 */
static void check_apart(struct ck *ck)
{
    static const int32_t lengths[] = {129, 0, 64, 200, 1, 450, 65, 320, 63, 257, 705, 194};
    static const uint32_t heads[] = {16, 8, 5, 1, 3, 2, 11}, q_lens[] = {1, 1, 3, 8, 4, 2, 1};
    for (uint32_t n = 0; n < 126; n++) {
        const uint32_t s = n % 7;
        if (!ck->full && !ck_is_cuda(ck) && n % (ck->quick ? 5 : 2) != 0)
            continue;
        struct ck_attend c = ck_attend_turn(ck, 0, heads[s], q_lens[s], n);
        c.is_many = true;
        c.flavour = (enum ck_flavour)(n % CK_FLAVOURS);
        c.scale = c.flavour == CK_HUGE ? 40000 : c.scale;
        c.causal = (c.causal && c.flavour != CK_NAN_KEY && c.flavour != CK_PLUS_INF) ||
                   c.flavour == CK_BAD_DRAFT;
        c.rows = ck_is_cuda(ck) ? 9 : 2 + n % 3;
        c.padded = n % 4 == 3;
        for (uint32_t r = 0; r < c.rows; r++)
            c.lengths[r] = r < c.rows - c.padded ? lengths[(n / 3 + r) % 12] : 0;
        c.parts = n % 3 == 0 ? 0 : n % 3 == 1 ? 2 : 11;
        c.overhead_blocks = 0;
        c.min_blocks = 1;
        check(ck, layouts[n / 3 % 3], c);
    }
}

void ck_attend_quant_run(struct ck *ck)
{
    check_apart(ck);
    check_grid(ck);
    check_flavours(ck);
    check_tiles(ck);
    check_wide_tiles(ck);
}
