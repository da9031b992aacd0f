/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/history.h"

#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* bf16 of all signs and of seven exponents. */
static uint16_t value(uint32_t tag, uint32_t position, uint32_t element)
{
    uint64_t state = ((uint64_t)tag << 40) + ((uint64_t)position << 20) + element + 1;
    fixture_random(&state);
    uint64_t r = fixture_random(&state);
    return (uint16_t)((r & 0x8000) | (120 + (r >> 20) % 7) << 7 | (r >> 40 & 0x7f));
}

void history_latent(uint32_t tag, uint32_t position, uint16_t *latent)
{
    for (uint32_t i = 0; i < HISTORY_D_QK; i++)
        latent[i] = value(tag, position, i);
}

void history_feed(rt_runtime *rt, uint32_t row, uint32_t tag, uint32_t position)
{
    uint16_t q[HISTORY_HEADS * HISTORY_D_QK], latent[HISTORY_D_QK];
    for (uint32_t i = 0; i < HISTORY_HEADS * HISTORY_D_QK; i++)
        q[i] = value(tag + 1000, position, i);
    history_latent(tag, position, latent);
    assert_int_equal(rt_tensor_write(rt, "q", 0, row * sizeof(q), q, sizeof(q)), RT_OK);
    assert_int_equal(rt_tensor_write(rt, "latent", 0, row * sizeof(latent), latent, sizeof(latent)),
                     RT_OK);
}

void history_step(rt_runtime *rt, rt_seq seq, uint32_t tag, uint32_t position)
{
    history_feed(rt, 0, tag, position);
    const int32_t token = (int32_t)position;
    const struct rt_step_params p = {
        .struct_size = sizeof(p), .rows = 1, .seqs = &seq, .tokens = &token};
    uint64_t ticket;
    if (rt_step(rt, &p, &ticket) != RT_OK || rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
        fail_msg("position %u: %s", position, rt_last_error(rt)->message);
}

void history_grow(rt_runtime *rt, rt_seq seq, uint32_t tag, uint32_t from, uint32_t to)
{
    for (uint32_t p = from; p < to; p++)
        history_step(rt, seq, tag, p);
}

void history_out(rt_runtime *rt, uint32_t row, uint16_t *out)
{
    uint64_t bytes = HISTORY_OUT * sizeof(*out);
    assert_int_equal(rt_tensor_read(rt, "out", 0, row * bytes, out, bytes), RT_OK);
}

void history_truth(rt_runtime *rt, uint32_t a, uint32_t fork, uint32_t b, uint32_t to,
                   uint16_t *out)
{
    rt_seq seq = fixture_open(rt);
    history_grow(rt, seq, a, 0, fork);
    history_grow(rt, seq, b, fork, to);
    history_out(rt, 0, out);
    assert_int_equal(rt_seq_close(rt, seq), RT_OK);
}
