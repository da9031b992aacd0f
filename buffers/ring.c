/* SPDX-License-Identifier: Apache-2.0 */
#include "buffers/ring.h"

#include "common/attributes.h"
#include "common/math.h"

#include <stdatomic.h>

void rt_ring_init(struct rt_ring *r, const struct rt_arena *arena)
{
    *r = (struct rt_ring){
        .records = rt_arena_host(arena, RT_TENSOR_RECORDS),
        .completions = rt_arena_host(arena, RT_TENSOR_COMPLETIONS),
        .completed = rt_arena_host(arena, RT_TENSOR_COMPLETED),
        .depth = arena->placement->dims.ring_depth,
        .format = arena->placement->record,
        .next_step = 1,
    };
}

_Static_assert(sizeof(_Atomic uint64_t) == sizeof(uint64_t), "the device writes a plain word");

/* Acquire: pairs with the device's system-wide fence between the completion and this word, so that
 * the completion and every output of the step are visible once the word is seen. */
uint64_t rt_ring_completed(const struct rt_ring *r)
{
    const volatile _Atomic uint64_t *const word = (const volatile _Atomic uint64_t *)r->completed;
    return atomic_load_explicit(word, memory_order_acquire);
}

uint32_t rt_ring_room(const struct rt_ring *r, uint64_t done)
{
    if (done >= r->next_step)
        return 0;
    const uint64_t kept = r->next_step - 1 - done;
    return kept < r->depth ? r->depth - (uint32_t)kept : 0;
}

struct rt_record *rt_ring_record(const struct rt_ring *r)
{
    return rt_ring_record_of(r, r->next_step);
}

struct rt_record_row *rt_ring_rows(const struct rt_ring *r, struct rt_record *record)
{
    return (void *)((unsigned char *)record + r->format.rows_offset);
}

int32_t *rt_ring_tokens(const struct rt_ring *r, struct rt_record *record)
{
    return (void *)((unsigned char *)record + r->format.tokens_offset);
}

unsigned char *rt_ring_ops(const struct rt_ring *r, struct rt_record *record)
{
    return (unsigned char *)record + r->format.ops_offset;
}

#define LINE_BYTES 64

static void warm(const unsigned char *begin, uint64_t bytes, uint64_t most)
{
    bytes = bytes < most ? bytes : most;
    for (uint64_t i = 0; i < bytes; i += LINE_BYTES)
        RT_PREFETCH_TO_WRITE(begin + i);
}

void rt_ring_warm(const struct rt_ring *r, uint32_t rows, uint64_t tokens)
{
    const struct rt_record_format *f = &r->format;
    const unsigned char *record = (const unsigned char *)rt_ring_record(r);
    const uint64_t rows_bytes = (uint64_t)rows * sizeof(struct rt_record_row);
    warm(record, f->rows_offset + rows_bytes, f->tokens_offset);
    const uint64_t most = f->ops_offset - f->tokens_offset;
    warm(record + f->tokens_offset, rt_min_u64(tokens, most) * sizeof(int32_t), most);
}

struct rt_record *rt_ring_record_of(const struct rt_ring *r, uint64_t step)
{
    return (void *)(r->records + step % r->depth * r->format.record_bytes);
}

const struct rt_completion *rt_ring_completion(const struct rt_ring *r, uint64_t step)
{
    return (const void *)(r->completions + step % r->depth * r->format.completion_bytes);
}

const struct rt_row_outcome *rt_ring_outcomes(const struct rt_completion *c)
{
    return (const void *)(c + 1);
}

const int32_t *rt_ring_outcome_tokens(const struct rt_ring *r, const struct rt_completion *c)
{
    return (const void *)((const unsigned char *)c + r->format.outcome_tokens_offset);
}

uint64_t rt_ring_advance(struct rt_ring *r)
{
    return r->next_step++;
}
