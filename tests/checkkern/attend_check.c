/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"
#include "tests/checkkern/attend_case.h"
#include "tests/checkkern/compare.h"

#include <stdlib.h>
#include <string.h>

/* What came back, and what should have. */
struct outcome {
    uint16_t *out; /* as on the device, guard included */
    float *lse;
    double *true_out, *true_lse; /* packed, row 0 first */
};

static struct outcome read_outcome(struct ck *ck, const struct ck_attend *c,
                                   const struct ck_attend_rig *rig)
{
    uint64_t query_rows = (uint64_t)c->rows * c->q_len * c->heads;
    struct outcome o = {.out = ck_new(ck, rig->out.bytes + CK_GUARD_BYTES),
                        .lse = ck_new(ck, rig->lse.bytes + CK_GUARD_BYTES),
                        .true_out = ck_new(ck, query_rows * c->d_v * sizeof(double)),
                        .true_lse = ck_new(ck, query_rows * sizeof(double))};
    ck_download(ck, &rig->out, o.out);
    ck_download(ck, &rig->lse, o.lse);
    rt_ref_mla_attention(&rig->ref, o.true_out, o.true_lse);
    return o;
}

static void free_outcome(struct outcome *o)
{
    free(o->out);
    free(o->lse);
    free(o->true_out);
    free(o->true_lse);
}

/* Compares one query row, and puts back the poison that it overwrote. */
static void compare_query(const struct ck_attend *c, const struct rt_mla_attend_params *p,
                          struct outcome *o, struct ck_place place, struct ck_floats *outs,
                          struct ck_floats *lses)
{
    int64_t data_row = c->row_base + (int64_t)place.row;
    uint64_t packed = ((uint64_t)place.row * c->q_len + place.token) * c->heads + place.head;
    uint16_t *out = o->out + data_row * p->out_row_stride + place.token * p->out_token_stride +
                    place.head * p->out_head_stride;
    float *lse = o->lse + data_row * p->lse_row_stride + place.token * p->lse_token_stride +
                 place.head * p->lse_head_stride;
    ck_floats_add(lses, (double)*lse, o->true_lse[packed], place);
    for (place.d = 0; place.d < c->d_v; place.d++)
        ck_floats_add(outs, (double)rt_bf16_to_float(out[place.d]),
                      o->true_out[packed * c->d_v + place.d], place);
    memset(out, 0xff, c->d_v * sizeof(*out));
    memset(lse, 0xff, sizeof(*lse));
}

static void compare(struct ck *ck, const struct ck_attend *c, const struct ck_attend_rig *rig)
{
    struct outcome o = read_outcome(ck, c, rig);
    struct ck_floats outs = ck_floats_out(), lses = ck_floats_lse();
    for (uint32_t r = 0; r < c->rows; r++)
        for (uint32_t t = 0; t < c->q_len; t++)
            for (uint32_t h = 0; h < c->heads; h++)
                compare_query(c, &rig->ref, &o, (struct ck_place){r, t, h, 0}, &outs, &lses);
    ck_floats_end(ck, &outs, CK_OUT_COS);
    ck_floats_end(ck, &lses, 0);
    /* ref's out and lse were never written: all poison. So must be the rest of the device's. */
    ck_expect_bytes(ck, "out beside the rows", o.out, rig->out.ref,
                    rig->out.bytes + CK_GUARD_BYTES);
    ck_expect_bytes(ck, "lse beside the rows", o.lse, rig->lse.ref,
                    rig->lse.bytes + CK_GUARD_BYTES);
    free_outcome(&o);
}

/* Partial buffers are of exactly the size that the plan asks for. */
static void check_guard(struct ck *ck, const struct ck_buffer *b)
{
    unsigned char *found = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    ck_download(ck, b, found);
    ck_expect_bytes(ck, b->name, found + b->bytes, b->ref + b->bytes, CK_GUARD_BYTES);
    free(found);
}

static void check_stamps(struct ck *ck, const struct ck_buffer *b)
{
    uint64_t found[2 + CK_GUARD_BYTES / sizeof(uint64_t)];
    ck_download(ck, b, found);
    if (found[0] == 0 || found[1] < found[0])
        ck_failed(ck, "attention begins at %llu ns and ends at %llu", (unsigned long long)found[0],
                  (unsigned long long)found[1]);
}

void ck_attend_check(struct ck *ck, const struct ck_attend *c)
{
    static const char *const flavours[CK_FLAVOURS] = {"plain", "huge",      "equal",   "-inf",
                                                      "+inf",  "NaN query", "NaN key", "bad pages"};
    struct rt_attend_choice choice;
    if (!ck_attend_resolve(ck, c, &choice))
        return;
    ck_case(ck,
            "%s, %u heads, query length %u%s, %u rows (%u padded; %d, %d, %d, …), page %u, "
            "row_base %u%s%s%s, %u parts, %s",
            choice.entry, c->heads, c->q_len, c->causal ? " causal" : "", c->rows, c->padded,
            c->lengths[0], c->lengths[1], c->lengths[2], c->page_size, c->row_base,
            c->slots ? ", slots" : "", c->strided ? ", strided" : "", c->far ? ", far" : "",
            choice.parts, flavours[c->flavour]);
    struct ck_attend_rig rig;
    struct rt_launch attend, reduce;
    struct rt_error none = {0};
    ck_attend_make(ck, c, &choice, &rig);
    ck_attend_launches(ck, &rig, &attend, &reduce);
    ck_launch(ck, RT_OK, &none, &attend);
    if (choice.reduce_entry)
        ck_launch(ck, RT_OK, &none, &reduce);
    compare(ck, c, &rig);
    check_guard(ck, &rig.partial_out);
    check_guard(ck, &rig.partial_lse);
    check_stamps(ck, &rig.stamps);
    ck_attend_free(ck, &rig);
}
