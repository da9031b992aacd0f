/* SPDX-License-Identifier: Apache-2.0 */
/* The arguments of replayrt/ops.h: what is refused, by name and with its values, and what is
 * served. */
#include "replayrt/ops.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define BATCH 2
#define QUERY_LEN 2
#define D_QK 288
#define D_V 256
#define PAGE 16
#define PAGES 4
#define HEADS 3
#define FREE 0x5555 /* what nobody has written */

/* Everything that the operators may want, of the narrowest geometry. */
struct rig {
    _Alignas(256) uint16_t kv[PAGES * PAGE * D_QK];
    _Alignas(256) uint16_t latent[BATCH * QUERY_LEN * D_QK];
    _Alignas(256) uint16_t rope[BATCH * QUERY_LEN * D_QK];
    _Alignas(256) uint16_t q[BATCH * QUERY_LEN * HEADS * D_QK];
    _Alignas(256) uint16_t out[BATCH * QUERY_LEN * HEADS * D_V];
    _Alignas(256) float lse[BATCH * QUERY_LEN * HEADS + 1];
    _Alignas(256) int32_t lengths[BATCH + 2], positions[BATCH + 2], table[BATCH + 2];
    _Alignas(256) int32_t num_splits[BATCH + 2];
    _Alignas(256) int64_t slots[BATCH * QUERY_LEN + 1];
    rt_ops *ops;
    struct rt_mla_shape shape;
    void *parts, *partial_out, *partial_lse;
};

static void *scratch(uint64_t bytes)
{
    void *memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
    assert_non_null(memory);
    return memory;
}

static int set_up(void **state)
{
    struct rig *r = aligned_alloc(256, sizeof(*r));
    assert_non_null(r);
    memset(r, 0, sizeof(*r));
    assert_int_equal(rt_ops_create("host", &r->ops, NULL), RT_OK);
    r->shape = (struct rt_mla_shape){.struct_size = sizeof(r->shape),
                                     .batch = BATCH,
                                     .query_len = QUERY_LEN,
                                     .heads = HEADS,
                                     .d_qk = D_QK,
                                     .d_v = D_V,
                                     .page_size = PAGE,
                                     .max_blocks = 1,
                                     .pages = PAGES,
                                     .causal = 1};
    struct rt_mla_workspace w = {.struct_size = sizeof(w)};
    assert_int_equal(rt_mla_workspace_size(r->ops, &r->shape, &w), RT_OK);
    r->parts = scratch(w.part_bytes);
    r->partial_out = scratch(w.partial_out_bytes);
    r->partial_lse = scratch(w.partial_lse_bytes);
    for (size_t i = 0; i < sizeof(r->kv) / 2; i++)
        r->kv[i] = FREE;
    for (size_t i = 0; i < sizeof(r->latent) / 2; i++) {
        r->latent[i] = (uint16_t)(0x3c00 + i % 997);
        r->rope[i] = (uint16_t)(0x3d00 + i % 251);
    }
    *state = r;
    return 0;
}

static int tear_down(void **state)
{
    struct rig *r = *state;
    free(r->parts);
    free(r->partial_out);
    free(r->partial_lse);
    rt_ops_destroy(&r->ops);
    free(r);
    return 0;
}

static uint64_t at(const void *pointer)
{
    return (uintptr_t)pointer;
}

static struct rt_mla_append_args by_table(const struct rig *r)
{
    return (struct rt_mla_append_args){.struct_size = sizeof(struct rt_mla_append_args),
                                       .shape = r->shape,
                                       .latent = at(r->latent),
                                       .kv = at(r->kv),
                                       .block_table = at(r->table),
                                       .positions = at(r->positions)};
}

static struct rt_mla_append_args by_slots(const struct rig *r)
{
    struct rt_mla_append_args a = by_table(r);
    a.block_table = a.positions = 0;
    a.slot_mapping = at(r->slots);
    return a;
}

static void refuse_append(struct rig *r, struct rt_mla_append_args args, const char *words)
{
    assert_int_equal(rt_mla_append(r->ops, &args, NULL), RT_ERR_INVALID);
    const char *message = rt_ops_last_error(r->ops)->message;
    if (!strstr(message, words))
        fail_msg("\"%s\" does not say \"%s\"", message, words);
    for (size_t i = 0; i < sizeof(r->kv) / 2; i++)
        assert_int_equal(r->kv[i], FREE);
}

/* Where tokens go is said once. */
static void one_way_and_not_two(void **state)
{
    struct rig *r = *state;
    char words[128];
    struct rt_mla_append_args a = by_table(r);
    a.slot_mapping = at(r->slots);
    (void)snprintf(words, sizeof(words),
                   "slot_mapping = 0x%" PRIx64 " beside block_table = 0x%" PRIx64, a.slot_mapping,
                   a.block_table);
    refuse_append(r, a, words);
    a.block_table = 0;
    (void)snprintf(words, sizeof(words), "and positions = 0x%" PRIx64, a.positions);
    refuse_append(r, a, words);
    a = by_slots(r);
    a.block_table = at(r->table);
    refuse_append(r, a, "and positions = 0x0: either");
    a = by_slots(r);
    a.slot_mapping = 0;
    refuse_append(r, a, "slot_mapping, block_table and positions are null");
    a = by_table(r);
    a.positions = 0;
    refuse_append(r, a, "positions is null");
    a = by_table(r);
    a.block_table = 0;
    refuse_append(r, a, "block_table is null");
}

static void addresses_and_strides(void **state)
{
    struct rig *r = *state;
    const struct {
        size_t member;
        uint64_t off;
        const char *words;
    } bad[] = {
        {offsetof(struct rt_mla_append_args, latent), 8, "is not 16-byte aligned"},
        {offsetof(struct rt_mla_append_args, rope), 8, "is not 16-byte aligned"},
        {offsetof(struct rt_mla_append_args, kv), 4, "is not 16-byte aligned"},
        {offsetof(struct rt_mla_append_args, slot_mapping), 4, "is not 8-byte aligned"},
        {offsetof(struct rt_mla_append_args, rope_row_stride), 4, "rope_row_stride = 4 is not"},
        {offsetof(struct rt_mla_append_args, rope_token_stride), 36, "rope_token_stride = 36"},
        {offsetof(struct rt_mla_append_args, rope_token_stride), (uint64_t)-8, "= -8 is not"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rt_mla_append_args a = by_slots(r);
        a.rope = at(r->rope);
        uint64_t value;
        memcpy(&value, (char *)&a + bad[i].member, sizeof(value));
        value += bad[i].off;
        memcpy((char *)&a + bad[i].member, &value, sizeof(value));
        refuse_append(r, a, bad[i].words);
    }
    struct rt_mla_append_args a = by_table(r);
    a.positions += 2;
    refuse_append(r, a, "is not 4-byte aligned");
    a = by_table(r);
    a.block_table += 2;
    refuse_append(r, a, "is not 4-byte aligned");
    a = by_slots(r);
    a.rope_row_stride = 64;
    refuse_append(r, a, "rope is null, its strides are 64, 0 and 0");
    a = by_slots(r);
    a.rope = at(r->rope);
    a.shape.d_qk = a.shape.d_v = 512;
    refuse_append(r, a, "but d_v has all 512 elements");
}

/* A token's two parts, of row-major tensors with gaps, and slots that nothing may follow. */
static void slots_and_two_parts(void **state)
{
    struct rig *r = *state;
    const int64_t slots[BATCH * QUERY_LEN] = {PAGES * PAGE - 1, -1, PAGES * PAGE, 17};
    const int64_t bad[] = {INT64_MIN, INT64_MAX, INT64_C(1) << 32, -2};
    struct rt_mla_append_args a = by_slots(r);
    a.rope = at(r->rope);
    a.latent_token_stride = D_V + 8;
    a.latent_row_stride = QUERY_LEN * (D_V + 8);
    a.rope_token_stride = D_QK - D_V + 16;
    a.rope_row_stride = QUERY_LEN * (D_QK - D_V + 16);
    a.slot_mapping += sizeof(int64_t);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        memcpy(r->slots + 1, slots, sizeof(slots));
        r->slots[2] = bad[i];
        assert_int_equal(rt_mla_append(r->ops, &a, NULL), RT_OK);
    }
    for (int64_t slot = 0; slot < PAGES * PAGE; slot++)
        for (int64_t d = 0; d < D_QK; d++) {
            const int64_t token = slot == slots[0] ? 0 : slot == slots[3] ? 3 : -1;
            const uint16_t want = token < 0 ? FREE
                                  : d < D_V ? r->latent[token * (D_V + 8) + d]
                                            : r->rope[token * (D_QK - D_V + 16) + d - D_V];
            assert_int_equal(r->kv[slot * D_QK + d], want);
        }
}

static struct rt_mla_decode_args decode_args(const struct rig *r)
{
    return (struct rt_mla_decode_args){.struct_size = sizeof(struct rt_mla_decode_args),
                                       .softmax_scale = 0.1f,
                                       .shape = r->shape,
                                       .q = at(r->q),
                                       .kv = at(r->kv),
                                       .block_table = at(r->table),
                                       .lengths = at(r->lengths),
                                       .schedule = {at(r->parts), at(r->num_splits)},
                                       .partial_out = at(r->partial_out),
                                       .partial_lse = at(r->partial_lse),
                                       .out = at(r->out),
                                       .lse = at(r->lse)};
}

static enum rt_status schedule_and_decode(struct rig *r, const struct rt_mla_decode_args *args)
{
    const struct rt_mla_schedule_args plan = {.struct_size = sizeof(plan),
                                              .shape = r->shape,
                                              .lengths = args->lengths,
                                              .schedule = args->schedule};
    const enum rt_status status = rt_mla_schedule(r->ops, &plan, NULL);
    return status == RT_OK ? rt_mla_decode(r->ops, args, NULL) : status;
}

static enum rt_status decode(struct rig *r, const int32_t *lengths, const int32_t *table,
                             float *lse, int32_t *num_splits)
{
    struct rt_mla_decode_args args = decode_args(r);
    args.block_table = at(table);
    args.lengths = at(lengths);
    args.schedule.num_splits = at(num_splits);
    args.lse = at(lse);
    return schedule_and_decode(r, &args);
}

/* lengths + 1 is as good as lengths, and likewise every tensor of single numbers. */
static void slices(void **state)
{
    struct rig *r = *state;
    struct rt_mla_append_args a = by_table(r);
    float whole[BATCH * QUERY_LEN * HEADS];
    for (uint32_t i = 0; i < BATCH + 2; i++) {
        r->lengths[i] = i % 2 ? 9 : 5;
        r->positions[i] = r->lengths[i] - QUERY_LEN;
        r->table[i] = (int32_t)i;
    }
    memset(r->kv, 0, sizeof(r->kv));
    a.positions = at(r->positions + 1);
    a.block_table = at(r->table + 1);
    for (size_t i = 0; i < sizeof(r->q) / 2; i++)
        r->q[i] = (uint16_t)(0x3c00 + i % 89);
    assert_int_equal(rt_mla_append(r->ops, &a, NULL), RT_OK);
    assert_memory_equal(r->kv + (PAGE + 7) * D_QK, r->latent, QUERY_LEN * D_QK * 2);
    assert_int_equal(decode(r, r->lengths + 1, r->table + 1, r->lse + 1, r->num_splits + 1), RT_OK);
    memcpy(whole, r->lse + 1, sizeof(whole));
    memmove(r->lengths, r->lengths + 1, sizeof(r->lengths) - sizeof(int32_t));
    memmove(r->table, r->table + 1, sizeof(r->table) - sizeof(int32_t));
    assert_int_equal(decode(r, r->lengths, r->table, r->lse, r->num_splits), RT_OK);
    assert_memory_equal(whole, r->lse, sizeof(whole));
    assert_int_equal(
        decode(r, (const int32_t *)((const char *)r->lengths + 2), r->table, r->lse, r->num_splits),
        RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "is not 4-byte aligned"));
}

static void q_of_two_tensors(void **state)
{
    struct rig *r = *state;
    struct rt_mla_decode_args args = decode_args(r);
    const struct {
        uint64_t address;
        int64_t strides[3];
        uint32_t d_qk;
        const char *words;
    } bad[] = {
        {at(r->rope) + 8, {0, 0, 0}, D_QK, "is not 16-byte aligned"},
        {0, {8, 0, -8}, D_QK, "q_rope is null, its strides are 8, 0 and -8"},
        {at(r->rope), {0, 0, 33}, D_QK, "q_rope_head_stride = 33 is not"},
        {at(r->rope), {0, -8, 0}, D_QK, "q_rope_token_stride = -8 is not"},
        {at(r->rope), {4, 0, 0}, D_QK, "q_rope_row_stride = 4 is not"},
        {at(r->rope),
         {0, 0, INT64_C(1) << 39},
         D_QK,
         "q_rope_head_stride = 549755813888 is not below 2^39 elements"},
        {at(r->rope), {0, 0, 0}, 512, "but d_v has all 512 elements"},
    };
    memset(r->out, 0x77, sizeof(r->out));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        args.q_rope = bad[i].address;
        args.q_rope_row_stride = bad[i].strides[0];
        args.q_rope_token_stride = bad[i].strides[1];
        args.q_rope_head_stride = bad[i].strides[2];
        args.shape.d_qk = bad[i].d_qk;
        args.shape.d_v = bad[i].d_qk == D_QK ? D_V : bad[i].d_qk;
        assert_int_equal(rt_mla_decode(r->ops, &args, NULL), RT_ERR_INVALID);
        if (!strstr(rt_ops_last_error(r->ops)->message, bad[i].words))
            fail_msg("\"%s\" does not say \"%s\"", rt_ops_last_error(r->ops)->message,
                     bad[i].words);
    }
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        assert_int_equal(r->out[i], 0x7777);
}

/* ---- what is written lies apart -------------------------------------------------------------- */

#define DECODE(member) offsetof(struct rt_mla_decode_args, member)

/* Every output over something else, by its last or first bytes alone; and the words with which. */
static void decode_over_what_it_reads(void **state)
{
    struct rig *r = *state;
    const struct {
        size_t member;
        uint64_t address;
        const char *words[2];
    } bad[] = {
        {DECODE(out), at(r->q) + sizeof(r->q) - 16, {"out = ", "and q = "}},
        {DECODE(out), at(r->q) - sizeof(r->out) + 16, {"out = ", "and q = "}},
        {DECODE(out), at(r->kv), {"out = ", "and kv = "}},
        {DECODE(out), at(r->partial_out) + 16, {"out = ", "and partial_out = "}},
        {DECODE(lse), at(r->out), {"out = ", "and lse = "}},
        {DECODE(lse), at(r->lengths) + 4, {"lse = ", "and lengths = "}},
        {DECODE(lse), at(r->table) - (sizeof(r->lse) - 4) + 4, {"lse = ", "and block_table = "}},
        {DECODE(lse), at(r->parts), {"lse = ", "and schedule.parts = "}},
        {DECODE(lse), at(r->num_splits) + 8, {"lse = ", "and schedule.num_splits = "}},
        {DECODE(partial_lse), at(r->partial_out), {"partial_out = ", "and partial_lse = "}},
        {DECODE(partial_lse), at(r->q), {"partial_lse = ", "and q = "}},
        {DECODE(out_head_stride), D_V - 8, {"out_head_stride of out", "vectors overlap"}},
        {DECODE(lse_token_stride), HEADS - 1, {"lse_token_stride of lse", "vectors overlap"}},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct rt_mla_decode_args args = decode_args(r);
        memcpy((char *)&args + bad[i].member, &bad[i].address, sizeof(bad[i].address));
        assert_int_equal(rt_mla_decode(r->ops, &args, NULL), RT_ERR_INVALID);
        const char *message = rt_ops_last_error(r->ops)->message;
        if (!strstr(message, bad[i].words[0]) || !strstr(message, bad[i].words[1]))
            fail_msg("case %zu: \"%s\" does not say \"%s\" and \"%s\"", i, message, bad[i].words[0],
                     bad[i].words[1]);
    }
    const struct rt_mla_schedule_args plan = {.struct_size = sizeof(plan),
                                              .shape = r->shape,
                                              .lengths = at(r->num_splits + BATCH),
                                              .schedule = {at(r->parts), at(r->num_splits)}};
    assert_int_equal(rt_mla_schedule(r->ops, &plan, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "and lengths = "));
}

static void append_over_what_it_reads(void **state)
{
    struct rig *r = *state;
    struct rt_mla_append_args a = by_table(r);
    a.latent = at(r->kv) + sizeof(r->kv) - 16;
    refuse_append(r, a, "and latent = ");
    a = by_table(r);
    a.positions = at(r->kv) + sizeof(r->kv) - 4;
    refuse_append(r, a, "and positions = ");
    a = by_table(r);
    a.block_table = at(r->kv) - 4;
    refuse_append(r, a, "and block_table = ");
    a = by_slots(r);
    a.slot_mapping = at(r->kv);
    refuse_append(r, a, "and slot_mapping = ");
    a = by_slots(r);
    a.rope = at(r->kv) + 16;
    refuse_append(r, a, "and rope = ");
    a = by_slots(r);
    a.kv_token_stride = D_QK - 8;
    refuse_append(r, a, "kv_token_stride of kv leads 560 bytes on, of which 576 are taken");
}

/* q and its rope part as columns of one tensor, out between them, keys and new tokens likewise: no
 * byte is two tensors'. */
static void columns_of_one_tensor(void **state)
{
    struct rig *r = *state;
    enum { WIDE = D_QK + D_V };
    uint16_t *all = scratch(sizeof(uint16_t) * BATCH * QUERY_LEN * HEADS * WIDE);
    uint16_t *cache = scratch(2 * sizeof(r->kv));
    struct rt_mla_decode_args d = decode_args(r);
    struct rt_mla_append_args a = by_table(r);
    memset(all, 0, sizeof(uint16_t) * BATCH * QUERY_LEN * HEADS * WIDE);
    memset(cache, 0, 2 * sizeof(r->kv));
    d.q = at(all);
    d.out = at(all + D_V);
    d.q_rope = at(all + D_V + D_V);
    d.q_head_stride = d.q_rope_head_stride = d.out_head_stride = WIDE;
    d.q_token_stride = d.q_rope_token_stride = d.out_token_stride = (int64_t)HEADS * WIDE;
    d.q_row_stride = d.q_rope_row_stride = d.out_row_stride = (int64_t)QUERY_LEN * HEADS * WIDE;
    assert_int_equal(schedule_and_decode(r, &d), RT_OK);
    d.out += 16;
    assert_int_equal(rt_mla_decode(r->ops, &d, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "and q_rope = "));
    d.out -= 32;
    assert_int_equal(rt_mla_decode(r->ops, &d, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "and q = "));

    a.kv = at(cache);
    a.latent = at(cache + D_QK);
    a.kv_token_stride = a.latent_token_stride = 2 * D_QK;
    a.kv_page_stride = 2 * PAGE * D_QK;
    a.latent_row_stride = 2 * QUERY_LEN * D_QK;
    assert_int_equal(rt_mla_append(r->ops, &a, NULL), RT_OK);
    a.latent -= 16;
    assert_int_equal(rt_mla_append(r->ops, &a, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "and latent = "));
    free(all);
    free(cache);
}

/* Of a single page, whose stride nobody goes: the largest that kernels can be told, and more. */
static void the_largest_stride(void **state)
{
    struct rig *r = *state;
    const int64_t end = INT64_C(1) << 39;
    r->shape.pages = 1;
    memset(r->kv, 0, sizeof(r->kv));
    r->lengths[0] = r->lengths[1] = 9;
    struct rt_mla_append_args append = by_table(r);
    struct rt_mla_decode_args args = decode_args(r);
    append.kv_page_stride = args.kv_page_stride = end - 8;
    assert_int_equal(rt_mla_append(r->ops, &append, NULL), RT_OK);
    assert_int_equal(schedule_and_decode(r, &args), RT_OK);
    for (int op = 0; op < 2; op++) {
        append.kv_page_stride = args.kv_page_stride = end;
        const enum rt_status status =
            op ? schedule_and_decode(r, &args) : rt_mla_append(r->ops, &append, NULL);
        assert_int_equal(status, RT_ERR_INVALID);
        assert_non_null(strstr(rt_ops_last_error(r->ops)->message,
                               "kv_page_stride = 549755813888 is not below 2^39 elements"));
    }
}

/* No columns, no table: what is read is nothing, and what is written is the empty row's. */
static void a_table_of_no_columns(void **state)
{
    struct rig *r = *state;
    memset(r->out, 0x77, sizeof(r->out));
    r->shape.max_blocks = 0;
    struct rt_mla_append_args a = by_table(r);
    a.block_table = 0;
    assert_int_equal(rt_mla_append(r->ops, &a, NULL), RT_OK);
    for (size_t i = 0; i < sizeof(r->kv) / 2; i++)
        assert_int_equal(r->kv[i], FREE);
    assert_int_equal(decode(r, r->lengths, NULL, r->lse, r->num_splits), RT_OK);
    for (size_t i = 0; i < sizeof(r->out) / 2; i++)
        assert_int_equal(r->out[i], 0);
    r->shape.max_blocks = 1;
    assert_int_equal(decode(r, r->lengths, NULL, r->lse, r->num_splits), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "block_table is null"));
    r->shape.max_blocks = UINT32_MAX;
    assert_int_equal(decode(r, r->lengths, NULL, r->lse, r->num_splits), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "max_blocks 4294967295 is not 0.."));
}

/* A caller built before rope and slot_mapping were there has the table's way. */
static void a_shorter_struct(void **state)
{
    struct rig *r = *state;
    struct rt_mla_append_args a = by_table(r);
    a.struct_size = offsetof(struct rt_mla_append_args, rope);
    a.rope = a.slot_mapping = 1; /* lies behind the caller's struct */
    assert_int_equal(rt_mla_append(r->ops, &a, NULL), RT_OK);
    assert_memory_equal(r->kv, r->latent + QUERY_LEN * D_QK, QUERY_LEN * D_QK * 2);
}

static void what_is_reserved(void **state)
{
    struct rig *r = *state;
    struct rt_mla_append_args append = by_table(r);
    struct rt_mla_decode_args decode = decode_args(r);
    const struct rt_mla_schedule_args schedule = {.struct_size = sizeof(schedule),
                                                  .invariant = 7,
                                                  .shape = r->shape,
                                                  .lengths = at(r->lengths),
                                                  .schedule = decode.schedule};
    append.reserved = 5;
    refuse_append(r, append, "rt_mla_append: reserved is 5, not 0");
    decode.kv_scale = 6;
    assert_int_equal(rt_mla_decode(r->ops, &decode, NULL), RT_ERR_INVALID);
    assert_string_equal(rt_ops_last_error(r->ops)->message,
                        "rt_mla_decode: kv_scale 6 with layout bf16, which has none: must be 0");
    assert_int_equal(rt_mla_schedule(r->ops, &schedule, NULL), RT_ERR_INVALID);
    assert_string_equal(rt_ops_last_error(r->ops)->message,
                        "rt_mla_schedule: invariant 7 is not 0 or 1");
}

static void expect_lse(const float *lse, const int32_t *lengths, double unit)
{
    for (uint32_t i = 0; i < BATCH * QUERY_LEN * HEADS; i++) {
        const int32_t length = lengths[i / HEADS / QUERY_LEN];
        const int32_t seen = length - 1 + (int32_t)(i / HEADS % QUERY_LEN);
        const double want = length ? log(seen) / unit : (double)INFINITY;
        if ((double)lse[i] != want && !(fabs((double)lse[i] - want) < 1e-6))
            fail_msg("lse %u is %.9g, not %.9g", i, (double)lse[i], want);
    }
}

/* Keys of zeros have scores of zero, so lse is the logarithm of how many a query sees. */
static void base_of_lse(void **state)
{
    struct rig *r = *state;
    struct rt_mla_decode_args args = decode_args(r);
    memset(r->kv, 0, sizeof(r->kv));
    r->lengths[0] = 9;
    assert_int_equal(schedule_and_decode(r, &args), RT_OK);
    expect_lse(r->lse, r->lengths, 1);
    args.lse_base = RT_LSE_BASE2;
    assert_int_equal(schedule_and_decode(r, &args), RT_OK);
    expect_lse(r->lse, r->lengths, log(2));

    /* Nobody's: neither the one nor the other. */
    const int bad[] = {2, -1, INT_MIN, INT_MAX};
    memset(r->lse, 0x77, sizeof(r->lse));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char words[64];
        memcpy(&args.lse_base, &bad[i], sizeof(bad[i]));
        (void)snprintf(words, sizeof(words), "lse_base %d is not RT_LSE_NATURAL, 0, or", bad[i]);
        assert_int_equal(schedule_and_decode(r, &args), RT_ERR_INVALID);
        if (!strstr(rt_ops_last_error(r->ops)->message, words))
            fail_msg("\"%s\" does not say \"%s\"", rt_ops_last_error(r->ops)->message, words);
    }
    for (uint32_t i = 0; i < sizeof(r->lse) / sizeof(int32_t); i++)
        assert_memory_equal(&r->lse[i], "wwww", sizeof(int32_t));

    /* A caller built before lse_base was there; what lies behind its struct is not looked at. */
    args.struct_size = offsetof(struct rt_mla_decode_args, lse_base);
    assert_int_equal(schedule_and_decode(r, &args), RT_OK);
    expect_lse(r->lse, r->lengths, 1);
}

/* Keys of zeros but for their first number, which is 1: out is what their sum has of the whole. */
static void sinks(void **state)
{
    const float sink[HEADS] = {-INFINITY, 0, INFINITY};
    struct rig *r = *state;
    struct rt_mla_decode_args args = decode_args(r);
    memset(r->kv, 0, sizeof(r->kv));
    for (uint32_t i = 0; i < PAGES * PAGE; i++)
        r->kv[(size_t)i * D_QK] = 0x3f80;
    r->lengths[0] = 2;
    args.sink = at(sink);
    assert_int_equal(schedule_and_decode(r, &args), RT_OK);
    expect_lse(r->lse, r->lengths, 1);
    for (uint32_t i = 0; i < BATCH * QUERY_LEN * HEADS; i++) {
        const uint32_t seen = i < QUERY_LEN * HEADS ? 1 + i / HEADS : 0, head = i % HEADS;
        const uint16_t half = 0x3f00, two_thirds = 0x3f2b;
        const uint16_t shared = seen == 1 ? half : two_thirds, want[] = {0x3f80, shared, 0};
        assert_int_equal(r->out[i * D_V], seen ? want[head] : 0);
    }

    args.sink = at(sink) + 2;
    assert_int_equal(rt_mla_decode(r->ops, &args, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "sink = "));
    args.sink = at(r->out) + 16;
    assert_int_equal(rt_mla_decode(r->ops, &args, NULL), RT_ERR_INVALID);
    assert_non_null(strstr(rt_ops_last_error(r->ops)->message, "and sink = "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_way_and_not_two, set_up, tear_down),
        cmocka_unit_test_setup_teardown(addresses_and_strides, set_up, tear_down),
        cmocka_unit_test_setup_teardown(slots_and_two_parts, set_up, tear_down),
        cmocka_unit_test_setup_teardown(slices, set_up, tear_down),
        cmocka_unit_test_setup_teardown(q_of_two_tensors, set_up, tear_down),
        cmocka_unit_test_setup_teardown(decode_over_what_it_reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(append_over_what_it_reads, set_up, tear_down),
        cmocka_unit_test_setup_teardown(columns_of_one_tensor, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_reserved, set_up, tear_down),
        cmocka_unit_test_setup_teardown(base_of_lse, set_up, tear_down),
        cmocka_unit_test_setup_teardown(sinks, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_largest_stride, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_table_of_no_columns, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_shorter_struct, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
