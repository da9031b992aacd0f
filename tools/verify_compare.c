/* SPDX-License-Identifier: Apache-2.0 */
/* What is written in front of a step, and compared behind it. */
#include "tools/verify_run.h"

#include <inttypes.h>
#include <string.h>

/* Rows from `first` on: windows of the noise, where they are given; what is above is NaN. */
static enum rt_status write_rows(struct run *run, const struct data *d, uint32_t layer,
                                 uint64_t row_bytes, uint32_t first, uint32_t given, uint32_t rows)
{
    const uint64_t at = first * row_bytes, live = d->given ? given * row_bytes : 0;
    const uint64_t padding = rows * row_bytes - live;
    uint64_t offset = 0;
    if (d->given)
        offset = (chance_draw(&run->chance) % (run->noise_bytes - live + 1)) & ~1ull;
    for (int side = 0; side < SIDES; side++) {
        rt_runtime *rt = run->rts[side];
        TRY(verify_check(run, side,
                         rt_tensor_write(rt, d->name, layer, at, run->noise + offset, live)));
        TRY(verify_check(run, side,
                         rt_tensor_write(rt, d->name, layer, at + live, run->poison, padding)));
    }
    return RT_OK;
}

static enum rt_status write_data(struct run *run, const struct data *d, uint32_t layer,
                                 const struct shape *s)
{
    const uint64_t row_bytes = s->q * d->token_bytes;
    const uint32_t beside = s->rows_batch * s->rows_q, first = s->rows - beside;
    TRY(write_rows(run, d, layer, row_bytes, 0, s->given, first));
    return beside ? write_rows(run, d, layer, row_bytes, first, s->rows_live * s->rows_q, beside)
                  : RT_OK;
}

enum rt_status verify_prepare(struct run *run, const struct shape *s)
{
    for (uint32_t layer = 0; layer < run->data_layers; layer++)
        for (uint32_t i = 0; i < run->data_count; i++)
            TRY(write_data(run, &run->data[i], layer, s));
    return RT_OK;
}

enum rt_status verify_compare(struct run *run, const char *name, uint32_t layer, uint64_t bytes,
                              const struct shape *s)
{
    for (int side = 0; side < SIDES; side++)
        TRY(verify_check(run, side,
                         rt_tensor_read(run->rts[side], name, layer, 0, run->seen[side], bytes)));
    run->report->bytes_compared += bytes;
    if (!memcmp(run->seen[REPLAY], run->seen[EAGER], bytes))
        return verify_ranks_note(run, name, layer, bytes, s);
    uint64_t at = 0;
    while (run->seen[REPLAY][at] == run->seen[EAGER][at])
        at++;
    char text[256];
    snprintf(
        text, sizeof(text),
        "tensor %s, layer %u, byte %" PRIu64 ": replay 0x%02x, eager 0x%02x; %s, step %" PRIu64,
        name, layer, at, run->seen[REPLAY][at], run->seen[EAGER][at], s->name, run->report->steps);
    return verify_say(run->error, RT_ERR_INTERNAL, "difference", text);
}

static bool holds_nan(const struct run *run, const unsigned char *at, uint64_t bytes)
{
    const bool f32 = run->config.precision == RT_PRECISION_F32;
    for (uint64_t i = 0; i < bytes; i += f32 ? sizeof(uint32_t) : sizeof(uint16_t)) {
        uint32_t bits;
        uint16_t half; /* of an f32 the upper one */
        memcpy(&half, at + i, sizeof(half));
        if (f32)
            memcpy(&bits, at + i, sizeof(bits));
        else
            bits = (uint32_t)half << 16;
        if ((bits & 0x7fffffff) > 0x7f800000)
            return true;
    }
    return false;
}

/* Rows from byte `at` on, of which `counts` says how many tokens each has. Both sides agree by now;
 * one of them is looked at. */
static enum rt_status check_rows(struct run *run, const struct data *d, uint32_t layer,
                                 uint64_t row_bytes, uint64_t at, uint32_t live, uint32_t batch,
                                 const uint32_t *counts)
{
    const uint64_t from = live * row_bytes, bytes = batch * row_bytes;
    unsigned char *seen = run->seen[REPLAY];
    TRY(verify_check(run, REPLAY,
                     rt_tensor_read(run->rts[REPLAY], d->name, layer, at, seen, bytes)));
    for (uint64_t i = from; i < bytes; i++)
        if (seen[i])
            return verify_say(run->error, RT_ERR_INTERNAL, "a padded row is not zero", d->name);
    for (uint32_t i = 0; i < live; i++)
        if (holds_nan(run, seen + i * row_bytes, counts ? counts[i] * d->token_bytes : row_bytes))
            return verify_say(run->error, RT_ERR_INTERNAL, "NaN reached a live row", d->name);
    return RT_OK;
}

/* Blocks that are one kernel each keep what attention makes to themselves. Their first is told
 * within the first lines. */
static bool is_whole(struct run *run, const struct shape *s)
{
    char text[2048];
    size_t needed;
    if (!run->config.layer || !s->counts) /* of a step */
        return false;
    return rt_dot(run->rts[REPLAY], s->batch, s->q, text, sizeof(text), &needed) == RT_OK &&
           strstr(text, "rt_mla_block_");
}

static enum rt_status check_padding(struct run *run, const struct data *d, uint32_t layer,
                                    const struct shape *s)
{
    const uint64_t row_bytes = s->q * d->token_bytes, beside_bytes = s->rows_q * d->token_bytes;
    const bool unseen = strcmp(d->name, "out") == 0 && (s->expanded || is_whole(run, s));
    if (!unseen)
        TRY(check_rows(run, d, layer, row_bytes, 0, s->live, s->batch, s->counts));
    const uint64_t at = s->rows * row_bytes - s->rows_batch * beside_bytes;
    return s->rows_batch ? check_rows(run, d, layer, beside_bytes, at, s->rows_live, s->rows_batch,
                                      s->rows_counts)
                         : RT_OK;
}

enum rt_status verify_compare_data(struct run *run, const struct shape *s)
{
    for (uint32_t layer = 0; layer < run->data_layers; layer++)
        for (uint32_t i = 0; i < run->data_count; i++) {
            const struct data *d = &run->data[i];
            if (d->made)
                TRY(verify_compare(run, d->name, layer, s->rows * s->q * d->token_bytes, s));
            if (d->zero)
                TRY(check_padding(run, d, layer, s));
        }
    return verify_ranks_compare(run, s);
}

enum rt_status verify_compare_state(struct run *run, const struct shape *s)
{
    static const char *const names[] = {"block_table", "slot_lengths"};
    struct rt_tensor t = {.struct_size = sizeof(t)};
    for (uint32_t layer = 0; layer < run->config.geometry.layers; layer++) {
        TRY(verify_check(run, REPLAY, rt_tensor(run->rts[REPLAY], "kv", layer, &t)));
        TRY(verify_compare(run, "kv", layer, t.bytes, s));
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        TRY(verify_check(run, REPLAY, rt_tensor(run->rts[REPLAY], names[i], 0, &t)));
        TRY(verify_compare(run, names[i], 0, t.bytes, s));
    }
    return verify_ranks_compare(run, s);
}
