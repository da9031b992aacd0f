/* SPDX-License-Identifier: Apache-2.0 */
/* append_general: tokens in one piece and in two, places by table and by slots, good and bad. */
#include "kernels/ops/op_build.h"
#include "kernels/quant_view.h"
#include "kernels/ref/ref.h"
#include "tests/checkkern/append_case.h"

#include <string.h>

#define COLUMNS 4
#define BENCH_LAUNCHES 50
#define GENERAL_PAGES 37
#define BEHIND_THE_POOL (INT64_C(1) << 40)

struct general_buffers {
    struct ck_buffer latent, rope, kv, slots, table, position, length, ctrl;
};

static struct rt_tokens_view tokens_of(const struct ck_append *c, const struct ck_buffer *b,
                                       enum ck_side side, int64_t width)
{
    const int64_t token = width + (c->strided ? 24 : 0);
    return (struct rt_tokens_view){.base = ck_at(b, side),
                                   .token_stride = token,
                                   .row_stride = c->q_len * token + (c->strided ? 8 : 0)};
}

static struct rt_kv_format format_of(const struct ck_append *c)
{
    struct rt_kv_format format;
    (void)rt_kv_format_make(c->layout, RT_PRECISION_BF16, c->d_qk, c->d_v, &format);
    return format;
}

static struct rt_append_general_params params_of(const struct ck_append *c,
                                                 const struct general_buffers *b, enum ck_side side)
{
    const struct rt_kv_format format = format_of(c);
    const int64_t token_bytes = format.row_bytes + (c->strided ? 16 : 0);
    const int64_t scale_bytes = format.token_bytes - format.row_bytes;
    struct rt_append_general_params p = {
        .append = {.latent = tokens_of(c, &b->latent, side, c->rope ? c->d_v : c->d_qk),
                   .kv = {.base = ck_at(&b->kv, side),
                          .token_stride_bytes = token_bytes,
                          .page_stride_bytes =
                              (c->page_size * (token_bytes + scale_bytes) + 15) / 16 * 16 +
                              (c->strided ? 64 : 0),
                          .page_size = c->page_size,
                          .max_blocks = COLUMNS,
                          .pages = GENERAL_PAGES,
                          .token_bytes = format.row_bytes},
                   .rows = {.count = c->rows, .q_len = c->q_len}}};
    if (c->rope) {
        p.rope = tokens_of(c, &b->rope, side, c->d_qk - c->d_v);
        p.rope_bytes = 2 * (c->d_qk - c->d_v);
    }
    if (c->by_slots) { /* table and position stay null: nobody may look at them */
        p.slots = ck_at(&b->slots, side);
    } else {
        p.append.kv.table = ck_at(&b->table, side);
        p.append.rows.position = ck_at(&b->position, side);
        p.append.rows.length = c->ragged ? ck_at(&b->length, side) : NULL;
    }
    if (c->row_base > 0)
        p.append.rows.ctrl = ck_at(&b->ctrl, side);
    return p;
}

static void fill_bits(struct ck_random *random, const struct ck_buffer *b)
{
    for (uint64_t i = 0; i + 8 <= b->bytes; i += 8) {
        uint64_t x = ck_random_u64(random);
        memcpy(b->ref + i, &x, sizeof(x));
    }
}

/* What is quantised is mostly of one size, and zeros here and there. */
static void fill_values(struct ck_random *random, const struct ck_buffer *b)
{
    uint16_t *to = ck_at(b, CK_REF);
    for (uint64_t i = 0; i < b->bytes / sizeof(*to); i++)
        to[i] = i / 100 % 9 == 4 ? 0 : rt_float_to_bf16((float)ck_random_normal(random));
}

/* Every third slot is one that nothing may follow. Good ones are all different: of two tokens of
 * one slot either may stay. 29 has no factor in common with the pool's slots, 37 * 2^n. */
static void fill_slots(struct ck_random *random, const struct ck_append *c,
                       const struct ck_buffer *b)
{
    const int64_t end = (int64_t)GENERAL_PAGES * c->page_size;
    const int64_t bad[] = {-1,
                           INT64_MIN,
                           INT64_MIN + 1,
                           -end,
                           end,
                           end + 1,
                           INT64_MAX,
                           INT32_MIN,
                           INT32_MAX,
                           BEHIND_THE_POOL,
                           -2,
                           BEHIND_THE_POOL * 2 + 5};
    int64_t *slots = ck_at(b, CK_REF);
    for (uint32_t i = 0; i < c->rows * c->q_len; i++)
        slots[i] = ck_random_below(random, 3) ? (end - 1 + 29 * i) % end
                                              : bad[ck_random_below(random, 12)];
}

static void fill_table(struct ck_random *random, const struct ck_append *c,
                       const struct general_buffers *b)
{
    const int32_t end = COLUMNS * (int32_t)c->page_size;
    const int32_t edges[] = {0, end - 1, end, INT32_MAX, -1, INT32_MIN, end - (int32_t)c->q_len};
    int32_t *table = ck_at(&b->table, CK_REF), *position = ck_at(&b->position, CK_REF);
    int32_t *length = ck_at(&b->length, CK_REF);
    for (uint32_t r = 0; r < c->rows; r++) {
        position[r] = ck_random_below(random, 2) ? (int32_t)ck_random_below(random, (uint32_t)end)
                                                 : edges[ck_random_below(random, 7)];
        length[r] = (int32_t)((uint32_t)position[r] + ck_random_below(random, c->q_len + 2));
        for (uint32_t i = 0; i < COLUMNS; i++) {
            const uint32_t id = r * COLUMNS + i; /* of one row alone, or of none */
            table[r * COLUMNS + i] = id < GENERAL_PAGES ? (int32_t)id : -1 - (int32_t)id;
        }
    }
    table[1] = GENERAL_PAGES; /* the first id that is not one */
}

static struct general_buffers make_buffers(struct ck *ck, struct ck_random *random,
                                           const struct ck_append *c)
{
    const struct general_buffers none = {0};
    const struct rt_append_general_params p = params_of(c, &none, CK_REF);
    const uint64_t rows = c->row_base + c->rows;
    struct general_buffers b = {
        .latent = ck_alloc(ck, "latent", rows * (uint64_t)p.append.latent.row_stride * 2, 0),
        .rope = ck_alloc(ck, "rope", rows * (uint64_t)p.rope.row_stride * 2 + 8, 0),
        .kv = ck_alloc(ck, "kv", GENERAL_PAGES * (uint64_t)p.append.kv.page_stride_bytes, 0x77),
        .slots = ck_alloc(ck, "slots", (uint64_t)c->rows * c->q_len * sizeof(int64_t), 0),
        .table = ck_alloc(ck, "table", (uint64_t)c->rows * COLUMNS * 4, 0),
        .position = ck_alloc(ck, "position", c->rows * 4, 0),
        .length = ck_alloc(ck, "length", c->rows * 4, 0),
        .ctrl = ck_alloc(ck, "ctrl", sizeof(struct rt_ctrl), 0)};
    ((struct rt_ctrl *)ck_at(&b.ctrl, CK_REF))->row_base = c->row_base;
    const bool any_bits = c->layout == RT_KV_BF16 || ck_random_below(random, 3) == 0;
    void (*const fill)(struct ck_random *, const struct ck_buffer *) =
        any_bits ? fill_bits : fill_values;
    fill(random, &b.latent);
    fill(random, &b.rope);
    fill_slots(random, c, &b.slots);
    fill_table(random, c, &b);
    const struct ck_buffer *filled[] = {&b.latent,   &b.rope,   &b.slots, &b.table,
                                        &b.position, &b.length, &b.ctrl};
    for (size_t i = 0; i < sizeof(filled) / sizeof(filled[0]); i++)
        ck_upload(ck, filled[i]);
    return b;
}

static void free_buffers(struct ck *ck, struct general_buffers *b)
{
    struct ck_buffer *all[] = {&b->latent, &b->rope,     &b->kv,     &b->slots,
                               &b->table,  &b->position, &b->length, &b->ctrl};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        ck_free(ck, all[i]);
}

/* What the reference must have done, said another way: slot by slot, who has written it. */
static void check_places(struct ck *ck, const struct ck_append *c, const struct general_buffers *b)
{
    const struct rt_append_general_params p = params_of(c, b, CK_REF);
    const struct rt_append_params *a = &p.append;
    const int64_t end = (int64_t)GENERAL_PAGES * c->page_size;
    const size_t latent_bytes = 2 * (size_t)c->d_qk - p.rope_bytes;
    for (int64_t slot = 0; c->by_slots && !c->layout && slot < end; slot++) {
        uint16_t expected[576];
        memset(expected, 0x77, sizeof(expected));
        for (uint32_t i = 0; i < c->rows * c->q_len; i++) {
            const int64_t row = c->row_base + i / c->q_len, token = i % c->q_len;
            if (p.slots[i] != slot)
                continue;
            memcpy(expected,
                   a->latent.base + row * a->latent.row_stride + token * a->latent.token_stride,
                   latent_bytes);
            if (c->rope)
                memcpy((unsigned char *)expected + latent_bytes,
                       p.rope.base + row * p.rope.row_stride + token * p.rope.token_stride,
                       p.rope_bytes);
        }
        if (!ck_expect_bytes(ck, "slot of the reference",
                             a->kv.base + slot / c->page_size * a->kv.page_stride_bytes +
                                 slot % c->page_size * a->kv.token_stride_bytes,
                             expected, 2 * (uint64_t)c->d_qk))
            return;
    }
}

static struct rt_append_quant_params quant_params(const struct ck_append *c,
                                                  const struct rt_append_general_params *general)
{
    const struct rt_kv_format format = format_of(c);
    const float scale = c->rows % 2 ? 0.03125f : 0.0117f;
    return (struct rt_append_quant_params){
        .general = *general,
        .quant = rt_quant_view_make(&format, &general->append.kv, scale),
        .d_qk = c->d_qk};
}

static enum rt_status build(struct ck *ck, const struct ck_append *c,
                            const struct rt_append_general_params *general, struct rt_launch *out,
                            struct rt_error *err)
{
    const struct rt_append_quant_params quant = quant_params(c, general);
    if (c->layout == RT_KV_BF16)
        return ck_build(ck, RT_OP_APPEND_GENERAL, general, sizeof(*general), out, err);
    return ck_build(ck, RT_OP_APPEND_QUANT, &quant, sizeof(quant), out, err);
}

static void run_reference(const struct ck_append *c, const struct rt_append_general_params *general)
{
    const struct rt_append_quant_params quant = quant_params(c, general);
    if (c->layout == RT_KV_BF16)
        rt_ref_append_general(general);
    else
        rt_ref_append_quant(&quant);
}

void ck_append_check(struct ck *ck, struct ck_random *random, const struct ck_append *c)
{
    ck_case(ck, "%s, %u rows, query length %u, d_qk %u, page %u, row_base %u, by %s%s%s%s",
            rt_kv_layout_name(c->layout), c->rows, c->q_len, c->d_qk, c->page_size, c->row_base,
            c->by_slots ? "slots" : "table", c->rope ? ", rope apart" : "",
            c->strided ? ", strided" : "", c->ragged ? ", ragged" : "");
    struct general_buffers b = make_buffers(ck, random, c);
    const struct rt_append_general_params ref = params_of(c, &b, CK_REF);
    const struct rt_append_general_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launch;
    struct rt_error err = {0};
    run_reference(c, &ref);
    check_places(ck, c, &b);
    enum rt_status status = build(ck, c, &device, &launch, &err);
    ck_launch(ck, status, &err, &launch);
    ck_expect_same(ck, &b.kv);
    free_buffers(ck, &b);
}

double ck_append_time_ns(struct ck *ck, struct ck_random *random, const struct ck_append *c)
{
    struct general_buffers b = make_buffers(ck, random, c);
    const struct rt_append_general_params device = params_of(c, &b, CK_DEVICE);
    struct rt_launch launches[BENCH_LAUNCHES];
    struct rt_error err = {0};
    int64_t *slots = ck_at(&b.slots, CK_REF);
    for (uint32_t i = 0; i < c->rows * c->q_len; i++)
        slots[i] = i;
    ck_upload(ck, &b.slots);
    for (int l = 0; l < BENCH_LAUNCHES; l++)
        ck_must(ck, build(ck, c, &device, &launches[l], &err), &err);
    const double ns = ck_time_ns(ck, launches, BENCH_LAUNCHES);
    free_buffers(ck, &b);
    return ns;
}

struct ck_append ck_append_draw(struct ck_random *random, uint32_t i, uint32_t d_qk, uint32_t d_v)
{
    static const uint32_t page_sizes[] = {16, 32, 64, 128};
    struct ck_append c = {.rows = 1 + ck_random_below(random, i % 8 ? 9 : 60),
                          .q_len = 1 + ck_random_below(random, 8),
                          .d_qk = d_qk,
                          .d_v = d_v,
                          .page_size = page_sizes[i / 4 % 4],
                          .row_base = i % 3 ? 0 : 1 + ck_random_below(random, 9),
                          .by_slots = i % 5 > 1,
                          .strided = i % 7 > 3,
                          .ragged = i % 4 > 1};
    c.rope = d_qk > d_v && ck_random_below(random, 3) > 0;
    return c;
}

void ck_append_general_run(struct ck *ck)
{
    static const uint32_t widths[][2] = {{576, 512}, {320, 256}, {288, 256}, {512, 512}};
    struct ck_random random = {.state = ck->seed};
    const uint32_t rounds = ck->full ? 400 : 64;
    for (uint32_t i = 0; i < rounds; i++) {
        const struct ck_append c = ck_append_draw(&random, i, widths[i % 4][0], widths[i % 4][1]);
        ck_append_check(ck, &random, &c);
    }
}
