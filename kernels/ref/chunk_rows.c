/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/ref.h"

#include <stdbool.h>
#include <string.h>

/* Where a chunk's tokens of the record begin. */
struct chunk_record {
    const int32_t *counts, *ids;
    uint32_t prompts, live;
};

static void note(struct rt_ctrl *ctrl, enum rt_device_error error, uint32_t row, int64_t value)
{
    if (ctrl->error != RT_DEV_OK)
        return;
    ctrl->error = (uint32_t)error;
    ctrl->error_row = row;
    ctrl->error_value = value;
}

static uint32_t bucket_of(const struct rt_chunk_rows_params *p)
{
    return p->prefill_rows + p->decode_rows;
}

static struct chunk_record read_record(const struct rt_chunk_rows_params *p)
{
    const unsigned char *bytes =
        p->ring + (p->ctrl->step + 1) % p->ring_depth * (uint64_t)p->record_bytes;
    const struct rt_record *record = (const struct rt_record *)(const void *)bytes;
    const int32_t *tokens = (const void *)(bytes + p->tokens_offset);
    const int32_t *counts = tokens + (size_t)bucket_of(p) * p->query_len;
    return (struct chunk_record){.counts = counts,
                                 .ids = counts + p->prefill_rows,
                                 .prompts = p->ctrl->live_rows ? record->prompts : 0,
                                 .live = p->ctrl->live_rows};
}

/* None of them is sampled from. */
static void clear_columns(const struct rt_chunk_rows_params *p, uint32_t r)
{
    for (uint32_t t = 0; t < p->query_len; t++)
        p->row_last[r * p->query_len + t] = -1;
}

static void drop_row(const struct rt_chunk_rows_params *p, uint32_t r)
{
    p->row_slot[r] = -1;
    p->row_position[r] = 0;
    p->row_length[r] = 0;
    p->row_accept[r] = 0;
    p->row_start[r] = 0;
    clear_columns(p, r);
}

static void pad_tokens(const struct rt_chunk_rows_params *p)
{
    for (uint32_t j = 0; j < p->chunk + p->decode_rows * p->query_len; j++) {
        p->token_id[j] = p->token_slot[j] = -1;
        p->token_position[j] = p->token_length[j] = 0;
    }
    for (uint32_t i = 0; p->query_len > 1 && i < p->decode_rows; i++) {
        p->beside_slot[i] = -1;
        p->beside_position[i] = p->beside_reach[i] = 0;
    }
}

static void put_token(const struct rt_chunk_rows_params *p, uint32_t j, uint32_t r,
                      int32_t position, int32_t id)
{
    p->token_id[j] = id;
    p->token_slot[j] = p->row_slot[r];
    p->token_position[j] = position;
    p->token_length[j] = position + 1;
}

/* Its number of tokens; *taken: those of the rows before it. */
static int32_t count_of(const struct rt_chunk_rows_params *p, const struct chunk_record *record,
                        uint32_t r, uint32_t taken)
{
    const int32_t n = record->counts[r];
    if (n >= 1 && (uint32_t)n <= p->chunk - taken)
        return n;
    note(p->ctrl, RT_DEV_TOKENS, r, n);
    return 0;
}

/* A row of prompts, whose tokens begin at `first`. */
static void place_prompt(const struct rt_chunk_rows_params *p, const struct chunk_record *record,
                         uint32_t r, uint32_t first, int32_t n)
{
    const int32_t start = p->row_position[r];
    if (n > 0 && p->row_slot[r] >= 0 && (int64_t)start + n > p->max_length) {
        note(p->ctrl, RT_DEV_LENGTH, r, (int64_t)start + n);
        n = 0;
    }
    if (n == 0 || p->row_slot[r] < 0) {
        drop_row(p, r);
        return;
    }
    p->row_start[r] = start;
    p->row_position[r] = start + n - 1;
    p->row_length[r] = start + n;
    clear_columns(p, r);
    p->row_last[r * p->query_len] = (int32_t)first + n - 1;
    for (int32_t t = 0; t < n; t++) {
        int32_t id = t == n - 1 ? p->tokens[r * p->query_len] : record->ids[first + (uint32_t)t];
        if (t == 0 && id == -1)
            id = p->slot_token[p->row_slot[r]];
        put_token(p, first + (uint32_t)t, r, start + t, id);
    }
}

static void place_decoding(const struct rt_chunk_rows_params *p, uint32_t r, uint32_t i)
{
    if (p->row_slot[r] < 0) {
        drop_row(p, r);
        return;
    }
    const int32_t position = p->row_position[r];
    const uint32_t tokens = (uint32_t)(p->row_length[r] - position);
    p->row_start[r] = position;
    clear_columns(p, r);
    for (uint32_t t = 0; t < tokens; t++) {
        const uint32_t column = r * p->query_len + t, j = p->chunk + i * p->query_len + t;
        p->row_last[column] = (int32_t)j;
        put_token(p, j, r, position + (int32_t)t, p->tokens[column]);
    }
    if (p->query_len == 1)
        return;
    p->beside_slot[i] = p->row_slot[r];
    p->beside_position[i] = position;
    p->beside_reach[i] = position + (int32_t)p->query_len;
}

static void write_pieces(const struct rt_chunk_rows_params *p)
{
    const int64_t context = p->context_first[p->prefill_rows];
    if (p->pieces && context > (int64_t)p->pieces * p->piece)
        note(p->ctrl, RT_DEV_LENGTH, 0, context);
    for (uint32_t i = 0; i < p->pieces; i++)
        for (uint32_t r = 0; r <= p->prefill_rows; r++)
            p->piece_first[(size_t)i * (p->prefill_rows + 1) + r] =
                p->context_first[r] - (int32_t)(i * p->piece);
}

void rt_ref_chunk_rows(const void *params)
{
    const struct rt_chunk_rows_params *p = params;
    struct chunk_record record = read_record(p);
    uint32_t taken = 0;
    int32_t context = 0;
    if (record.prompts > p->prefill_rows ||
        (record.live > record.prompts && record.live - record.prompts > p->decode_rows)) {
        note(p->ctrl, RT_DEV_TOKENS, 0, record.prompts);
        record.prompts = record.live = 0;
    }
    pad_tokens(p);
    for (uint32_t r = 0; r < bucket_of(p); r++) {
        const bool prompt = r < record.prompts && r < record.live;
        if (r <= p->prefill_rows) {
            p->chunk_first[r] = (int32_t)taken;
            p->context_first[r] = context;
        }
        if (prompt) {
            const int32_t n = count_of(p, &record, r, taken);
            place_prompt(p, &record, r, taken, n);
            taken += (uint32_t)n;
            context += p->row_start[r];
        } else if (r < record.live) {
            place_decoding(p, r, r - record.prompts);
        } else {
            drop_row(p, r);
        }
    }
    if (p->decode_rows == 0) {
        p->chunk_first[p->prefill_rows] = (int32_t)taken;
        p->context_first[p->prefill_rows] = context;
    }
    write_pieces(p);
}
