/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/host.h"
#include "kernels/ref/ref.h"

static void end_drafts(const struct rt_step_end_params *p, size_t data_row, size_t slot)
{
    for (size_t i = 0; i < p->draft_columns; i++) {
        const int32_t draft = p->drafts[data_row * p->draft_columns + i];
        p->slot_drafts[slot * p->draft_columns + i] = draft < -1 ? -1 : draft;
    }
}

static void end_tokens(const struct rt_step_end_params *p, uint32_t row, int32_t *out)
{
    const size_t data_row = (size_t)p->ctrl->row_base + row;
    for (uint32_t t = 0; t < p->query_len; t++)
        out[row * p->query_len + t] =
            p->row_slot[row] < 0 ? -1 : p->tokens[data_row * p->query_len + t];
}

static struct rt_row_outcome end_row(const struct rt_step_end_params *p, uint32_t row)
{
    struct rt_ctrl *ctrl = p->ctrl;
    int32_t slot = p->row_slot[row];
    if (slot < 0)
        return (struct rt_row_outcome){.accepted = 0, .sampled = -1};

    size_t data_row = (size_t)ctrl->row_base + row;
    /* What the host has decided it has counted already: a stage has no say there. */
    const bool by_device = p->row_accept[row] == RT_ACCEPT_BY_DEVICE;
    const int32_t tokens = p->row_length[row] - p->row_position[row];
    int32_t accepted = by_device ? p->accepted[data_row] : p->row_accept[row];
    if (accepted < 0 || accepted > tokens) {
        if (ctrl->error == RT_DEV_OK) {
            ctrl->error = RT_DEV_ACCEPT;
            ctrl->error_row = row;
            ctrl->error_value = accepted;
        }
        accepted = tokens;
    }
    p->slot_length[slot] = p->row_position[row] + accepted;

    int32_t sampled = p->sampled[data_row];
    int32_t last = sampled;
    if (last < 0 && accepted > 0)
        last = p->tokens[data_row * p->query_len + (uint32_t)accepted - 1];
    if (last >= 0)
        p->slot_token[slot] = last;
    end_drafts(p, data_row, (size_t)slot);
    return (struct rt_row_outcome){.accepted = accepted, .sampled = sampled};
}

void rt_ref_step_end(const void *params)
{
    const struct rt_step_end_params *p = params;
    struct rt_ctrl *ctrl = p->ctrl;
    if (ctrl->error == RT_DEV_STEP)
        return;

    uint64_t step = ctrl->step + 1;
    unsigned char *bytes = p->completions + step % p->ring_depth * p->completion_bytes;
    struct rt_completion *completion = (void *)bytes;
    struct rt_row_outcome *outcomes = (void *)(bytes + sizeof(*completion));
    int32_t *tokens = (void *)(bytes + p->tokens_offset);
    for (uint32_t r = 0; r < ctrl->live_rows; r++) {
        outcomes[r] = end_row(p, r);
        end_tokens(p, r, tokens);
    }

    completion->error = ctrl->error;
    completion->error_row = ctrl->error_row;
    completion->error_value = ctrl->error_value;
    completion->t_begin = ctrl->t_begin;
    completion->t_attend_first = ctrl->t_attend_first;
    completion->t_attend_last = ctrl->t_attend_last;
    completion->t_end = rt_ref_now_ns();
    completion->live_rows = ctrl->live_rows;
    completion->reserved = 0;
    ctrl->step = step;
    rt_ref_publish(&completion->step, step);
    rt_ref_publish(p->completed, step);
}
