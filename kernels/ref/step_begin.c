/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/host.h"
#include "kernels/ref/ref.h"

#include <stdbool.h>
#include <string.h>

static void note(struct rt_ctrl *ctrl, enum rt_device_error error, uint32_t row, int64_t value)
{
    if (ctrl->error != RT_DEV_OK)
        return;
    ctrl->error = (uint32_t)error;
    ctrl->error_row = row;
    ctrl->error_value = value;
}

static bool id_ok(int32_t id, uint32_t count)
{
    return id >= 0 && (uint32_t)id < count;
}

static bool header_ok(const struct rt_step_begin_params *p, const struct rt_record *record)
{
    struct rt_ctrl *ctrl = p->ctrl;
    if (record->step != ctrl->step + 1)
        note(ctrl, RT_DEV_STEP, 0, (int64_t)record->step);
    else if (record->bucket != p->bucket)
        note(ctrl, RT_DEV_BUCKET, 0, record->bucket);
    else if (record->query_len != p->query_len)
        note(ctrl, RT_DEV_QUERY_LEN, 0, record->query_len);
    else if (record->live_rows > p->bucket)
        note(ctrl, RT_DEV_ROWS, 0, record->live_rows);
    else if ((uint64_t)record->row_base + p->bucket > p->max_rows)
        note(ctrl, RT_DEV_ROWS, 0, record->row_base);
    return ctrl->error == RT_DEV_OK;
}

static void pad_row(const struct rt_step_begin_params *p, uint32_t row)
{
    p->row_slot[row] = -1;
    p->row_position[row] = 0;
    p->row_length[row] = 0;
    p->row_accept[row] = 0;
    if (p->row_reach)
        p->row_reach[row] = 0;
}

static void clear_drafts(int32_t *drafts, size_t line, uint32_t columns)
{
    for (uint32_t i = 0; i < columns; i++)
        drafts[line * columns + i] = -1;
}

static void pad_row_data(const struct rt_step_begin_params *p, uint32_t row)
{
    size_t data_row = (size_t)p->ctrl->row_base + row;
    for (uint32_t t = 0; t < p->query_len; t++)
        p->tokens[data_row * p->query_len + t] = -1;
    p->accepted[data_row] = 0;
    p->sampled[data_row] = -1;
    clear_drafts(p->drafts, data_row, p->draft_columns);
}

static void set_drafts(const struct rt_step_begin_params *p, uint32_t slot, bool inherits,
                       uint32_t source)
{
    const size_t columns = p->draft_columns;
    if (!inherits)
        clear_drafts(p->slot_drafts, slot, p->draft_columns);
    else if (columns)
        memmove(p->slot_drafts + slot * columns, p->slot_drafts + source * columns,
                columns * sizeof(*p->slot_drafts));
}

static void op_set_slot(const struct rt_step_begin_params *p, const struct rt_record_op *op,
                        uint32_t number)
{
    bool inherits = op->b <= RT_TOKEN_OF_SLOT(0);
    int32_t source = inherits ? RT_TOKEN_OF_SLOT(op->b) : 0;
    if (op->slot >= p->slots) {
        note(p->ctrl, RT_DEV_SLOT, number, op->slot);
    } else if (op->a < 0 || (uint32_t)op->a > p->max_length) {
        note(p->ctrl, RT_DEV_LENGTH, number, op->a);
    } else if (inherits && (uint32_t)source >= p->slots) {
        note(p->ctrl, RT_DEV_SLOT, number, source);
    } else {
        p->slot_length[op->slot] = op->a;
        p->slot_token[op->slot] = inherits ? p->slot_token[source] : op->b;
        set_drafts(p, op->slot, inherits, (uint32_t)source);
    }
}

static void op_set_pages(const struct rt_step_begin_params *p, const struct rt_record_op *op,
                         const unsigned char *ids, uint32_t number)
{
    if (op->slot >= p->slots) {
        note(p->ctrl, RT_DEV_SLOT, number, op->slot);
        return;
    }
    if (op->a < 0 || (int64_t)op->a + op->b > (int64_t)p->max_blocks) {
        note(p->ctrl, RT_DEV_BLOCK, number, op->a);
        return;
    }
    int32_t *line = p->block_table + (size_t)op->slot * p->max_blocks + op->a;
    for (int32_t i = 0; i < op->b; i++) {
        int32_t id;
        memcpy(&id, ids + (size_t)i * sizeof(id), sizeof(id));
        if (id_ok(id, p->pages))
            line[i] = id;
        else
            note(p->ctrl, RT_DEV_PAGE, number, id);
    }
}

static void op_copy_page(const struct rt_step_begin_params *p, const struct rt_record_op *op,
                         uint32_t number)
{
    struct rt_ctrl *ctrl = p->ctrl;
    if (!id_ok(op->a, p->pages) || !id_ok(op->b, p->pages)) {
        note(ctrl, RT_DEV_PAGE, number, id_ok(op->a, p->pages) ? op->b : op->a);
    } else if (op->slot > p->page_size) {
        note(ctrl, RT_DEV_LENGTH, number, op->slot);
    } else if (ctrl->copy_count >= RT_MAX_PAGE_COPIES) {
        note(ctrl, RT_DEV_OP, number, op->kind);
    } else {
        p->copies[ctrl->copy_count++] =
            (struct rt_page_copy){.from = op->a, .to = op->b, .rows = (int32_t)op->slot};
    }
}

static void apply_ops(const struct rt_step_begin_params *p, const struct rt_record *record)
{
    const unsigned char *ops = (const unsigned char *)record + p->ops_offset;
    uint64_t room = p->record_bytes - p->ops_offset;
    uint64_t end = record->op_bytes < room ? record->op_bytes : room;
    uint64_t at = 0;
    for (uint32_t i = 0; i < record->op_count; i++) {
        struct rt_record_op op = {0};
        bool whole = at + sizeof(op) <= end;
        if (whole) {
            memcpy(&op, ops + at, sizeof(op));
            at += sizeof(op);
        }
        uint64_t ids_bytes = 0;
        if (op.kind == RT_OP_SET_PAGES) {
            whole = whole && op.b >= 0;
            ids_bytes = whole ? ((uint64_t)op.b * 4 + 15) / 16 * 16 : 0;
            whole = whole && ids_bytes <= end - at;
        }
        if (!whole || op.kind < RT_OP_SET_SLOT || op.kind > RT_OP_COPY_PAGE) {
            note(p->ctrl, RT_DEV_OP, i, op.kind);
            return;
        }
        if (op.kind == RT_OP_SET_SLOT)
            op_set_slot(p, &op, i);
        else if (op.kind == RT_OP_SET_PAGES)
            op_set_pages(p, &op, ops + at, i);
        else
            op_copy_page(p, &op, i);
        at += ids_bytes;
    }
}

/* Applies the row's new page and checks the row; false: it is dropped. */
static bool admit_row(const struct rt_step_begin_params *p, const struct rt_record_row *row,
                      uint32_t number)
{
    struct rt_ctrl *ctrl = p->ctrl;
    if (row->slot >= p->slots) {
        note(ctrl, RT_DEV_SLOT, number, row->slot);
        return false;
    }
    if (row->new_block != -1) {
        if (!id_ok(row->new_page, p->pages)) {
            note(ctrl, RT_DEV_PAGE, number, row->new_page);
            return false;
        }
        if (!id_ok(row->new_block, p->max_blocks)) {
            note(ctrl, RT_DEV_BLOCK, number, row->new_block);
            return false;
        }
        p->block_table[(size_t)row->slot * p->max_blocks + (uint32_t)row->new_block] =
            row->new_page;
    }
    const uint32_t tokens = rt_record_tokens(row, p->query_len);
    if (tokens > p->query_len) {
        note(ctrl, RT_DEV_TOKENS, number, tokens);
        return false;
    }
    int32_t position = p->slot_length[row->slot];
    int64_t reach = (int64_t)position + tokens;
    if (position < 0 || reach > (int64_t)p->max_length) {
        note(ctrl, RT_DEV_LENGTH, number, reach);
        return false;
    }
    bool accept_ok =
        row->accept == RT_ACCEPT_BY_DEVICE || (row->accept >= 1 && (uint32_t)row->accept <= tokens);
    if (!accept_ok)
        note(ctrl, RT_DEV_ACCEPT, number, row->accept);
    return accept_ok;
}

static void begin_row(const struct rt_step_begin_params *p, const struct rt_record_row *row,
                      const int32_t *tokens, uint32_t number)
{
    const uint32_t count = rt_record_tokens(row, p->query_len);
    const int32_t position = p->slot_length[row->slot];
    size_t data_row = (size_t)p->ctrl->row_base + number;
    p->row_slot[number] = (int32_t)row->slot;
    p->row_position[number] = position;
    p->row_length[number] = position + (int32_t)count;
    if (p->row_reach)
        p->row_reach[number] = position + (int32_t)p->query_len;
    p->row_accept[number] = row->accept;

    int32_t *out = p->tokens + data_row * p->query_len;
    for (uint32_t t = 0; t < p->query_len; t++)
        out[t] = t < count ? tokens[t] : -1;
    if (out[0] == -1)
        out[0] = p->slot_token[row->slot];
    for (uint32_t t = 1; t < count && p->draft_columns; t++)
        if (out[t] == -1)
            out[t] = p->slot_drafts[(size_t)row->slot * p->draft_columns + t - 1];
    p->accepted[data_row] = row->accept == RT_ACCEPT_BY_DEVICE ? (int32_t)count : row->accept;
    p->sampled[data_row] = -1;
    clear_drafts(p->drafts, data_row, p->draft_columns);
}

void rt_ref_step_begin(const void *params)
{
    const struct rt_step_begin_params *p = params;
    struct rt_ctrl *ctrl = p->ctrl;
    uint64_t expected = ctrl->step + 1;
    const unsigned char *bytes = p->ring + expected % p->ring_depth * p->record_bytes;
    const struct rt_record *record = (const struct rt_record *)(const void *)bytes;

    *ctrl =
        (struct rt_ctrl){.step = ctrl->step, .query_len = p->query_len, .t_begin = rt_ref_now_ns()};
    bool ok = header_ok(p, record);
    if (ctrl->error != RT_DEV_STEP)
        ctrl->query_len = record->query_len;
    if (!ok) {
        for (uint32_t r = 0; r < p->bucket; r++)
            pad_row(p, r);
        return;
    }
    ctrl->live_rows = record->live_rows;
    ctrl->row_base = record->row_base;
    apply_ops(p, record);

    const struct rt_record_row *rows = (const void *)(bytes + p->rows_offset);
    const int32_t *tokens = (const void *)(bytes + p->tokens_offset);
    for (uint32_t r = 0; r < p->bucket; r++) {
        if (r < ctrl->live_rows && admit_row(p, &rows[r], r)) {
            begin_row(p, &rows[r], tokens + (size_t)r * p->query_len, r);
        } else {
            pad_row(p, r);
            pad_row_data(p, r);
        }
    }
}
