/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench_rows.h"

#include "common/bf16.h"
#include "tools/chance.h"
#include "tools/complain.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (UINT64_C(1) << 22)

static bool captured(const uint32_t *list, uint32_t count, uint64_t value)
{
    for (uint32_t i = 0; i < count; i++)
        if (list[i] == value)
            return true;
    return false;
}

static uint32_t largest_batch(const struct rt_config *c, const struct bench_choice *choice)
{
    return choice->batch ? (uint32_t)choice->batch : c->batch_sizes[c->batch_size_count - 1];
}

bool bench_fit(struct rt_config *c, struct bench_choice *choice, uint64_t steps)
{
    if (!choice->query_len)
        choice->query_len = c->query_lens[0];
    if ((choice->batch && !captured(c->batch_sizes, c->batch_size_count, choice->batch)) ||
        !captured(c->query_lens, c->query_len_count, choice->query_len)) {
        complain("batch %" PRIu64 " with query length %" PRIu64
                 " is not captured by this configuration",
                 choice->batch, choice->query_len);
        return false;
    }
    const uint64_t grown = steps * choice->query_len;
    if (choice->length + grown > RT_MAX_LENGTH) {
        complain("%" PRIu64 " tokens and %" PRIu64 " more exceed %d", choice->length, grown,
                 RT_MAX_LENGTH);
        return false;
    }
    const uint32_t rows = largest_batch(c, choice);
    if (c->max_length < choice->length + grown)
        c->max_length = (uint32_t)(choice->length + grown);
    if (c->max_sequences < rows)
        c->max_sequences = rows;
    const uint32_t page_tokens = c->page_size * c->context_parallel;
    c->pages = rows * ((choice->length + grown) / page_tokens + 1);
    c->chunk_count = c->mixed_row_count = c->prefill_rows = c->context_piece = 0;
    return true;
}

bool bench_chosen(const struct bench_choice *choice, uint32_t batch, uint32_t query_len)
{
    return (!choice->batch || batch == choice->batch) && query_len == choice->query_len;
}

/* bf16, and f32 where two of them are taken for one. */
static void make_noise(uint16_t *noise, uint64_t count)
{
    uint32_t state = 1;
    for (uint64_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u;
        noise[i] = (uint16_t)((state >> 16 & 0x8000) | (119 + (state >> 8) % 8) << 7 |
                              (state >> 20 & 0x7f));
    }
}

enum rt_status bench_fill(rt_runtime *rt, const char *name, uint32_t layer)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    enum rt_status status = rt_tensor(rt, name, layer, &t);
    if (status != RT_OK)
        return status;
    const uint64_t chunk = t.bytes < CHUNK_BYTES ? t.bytes : CHUNK_BYTES;
    uint16_t *noise = malloc(chunk);
    if (!noise)
        return RT_ERR_NOMEM;
    make_noise(noise, chunk / sizeof(*noise));
    for (uint64_t at = 0; at < t.bytes && status == RT_OK; at += chunk)
        status = rt_tensor_write(rt, name, layer, at, noise,
                                 t.bytes - at < chunk ? t.bytes - at : chunk);
    free(noise);
    return status;
}

double bench_rms(const unsigned char *numbers, uint64_t bytes, enum rt_dtype dtype)
{
    const uint64_t each = dtype == RT_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
    const uint64_t count = bytes / each;
    double squares = 0;
    for (uint64_t i = 0; i < bytes; i += each) {
        uint16_t bf16;
        float value;
        memcpy(&bf16, numbers + i, sizeof(bf16));
        if (dtype == RT_DTYPE_F32)
            memcpy(&value, numbers + i, sizeof(value));
        else
            value = rt_bf16_to_float(bf16);
        squares += (double)value * (double)value;
    }
    return sqrt(squares / (double)count);
}

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

double bench_median(uint64_t *ns, uint32_t count)
{
    qsort(ns, count, sizeof(*ns), by_value);
    const uint64_t median = ns[count / 2];
    return (double)median;
}

/* As even as chance is: of few rows some have all columns and some one. */
static void choose_lengths(struct bench_rows *rows, uint32_t query_len)
{
    struct chance chance = chance_of(3);
    for (uint32_t i = 0; i < rows->count; i++)
        rows->query_lens[i] = 1 + (uint32_t)((chance_draw(&chance) >> 32) % query_len);
}

enum rt_status bench_rows_open(struct bench_rows *rows, rt_runtime *rt,
                               const struct rt_config *config, const struct bench_choice *choice)
{
    const struct rt_seq_params past = {
        .struct_size = sizeof(past), .length = (uint32_t)choice->length, .last_token = -1};
    *rows = (struct bench_rows){
        .rt = rt, .count = largest_batch(config, choice), .length = (uint32_t)choice->length};
    rows->seqs = calloc(rows->count, sizeof(*rows->seqs));
    rows->tokens = calloc((size_t)rows->count * RT_MAX_QUERY_LEN, sizeof(*rows->tokens));
    if (choice->ragged)
        rows->query_lens = calloc(rows->count, sizeof(*rows->query_lens));
    const bool made = rows->seqs && rows->tokens && (rows->query_lens || !choice->ragged);
    enum rt_status status = made ? RT_OK : RT_ERR_NOMEM;
    if (rows->query_lens)
        choose_lengths(rows, (uint32_t)choice->query_len);
    for (uint32_t i = 0; i < rows->count && status == RT_OK; i++)
        status = rt_seq_open(rt, &past, &rows->seqs[i]);
    return status;
}

enum rt_status bench_rows_rewind(const struct bench_rows *rows, uint32_t batch)
{
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < batch && status == RT_OK; i++)
        status = rt_seq_rewind(rows->rt, rows->seqs[i], rows->length);
    return status;
}

struct rt_step_params bench_rows_params(const struct bench_rows *rows, uint32_t batch,
                                        uint32_t query_len)
{
    return (struct rt_step_params){.struct_size = sizeof(struct rt_step_params),
                                   .rows = batch,
                                   .query_len = query_len,
                                   .seqs = rows->seqs,
                                   .tokens = rows->tokens,
                                   .query_lens = rows->query_lens};
}

void bench_rows_free(struct bench_rows *rows)
{
    free(rows->query_lens);
    free(rows->tokens);
    free(rows->seqs);
    *rows = (struct bench_rows){.rt = NULL};
}
