/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/promises.h"

#include "common/math.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Products that ranks tell each other of at once. */
#define PIECE 64u

/* An alignment is a power of two up to RT_MATMUL_MAX_ALIGN, and 0 without a bias. */
struct told {
    uint16_t a, b, bias, d;
};

static enum rt_status take_own(const struct rt_program *program, struct rt_promises *out,
                               struct rt_error *err)
{
    for (uint32_t i = 0; i < program->count; i++)
        out->count += rt_has_promise(program->stages[i].work);
    out->least = calloc((size_t)out->count + 1, sizeof(*out->least));
    RT_REQUIRE(out->least, err, RT_ERR_NOMEM, "out of host memory for %u products", out->count);
    struct rt_matmul_alignment *next = out->least;
    for (uint32_t i = 0; i < program->count; i++) {
        const struct rt_work *const work = program->stages[i].work;
        if (!rt_has_promise(work))
            continue;
        *next = rt_matmul_alignment(&work->matmul);
        next->bias = work->matmul.bias ? next->bias : 0;
        next++;
    }
    return RT_OK;
}

/* 0 is none. */
static void lower(uint32_t *least, uint16_t other)
{
    if (other && (*least == 0 || other < *least))
        *least = other;
}

static enum rt_status share(struct rt_comm *comm, struct rt_matmul_alignment *least, uint32_t count,
                            struct rt_error *err)
{
    struct told mine[PIECE], all[RT_BOARD_MAX_RANKS * PIECE];
    for (uint32_t i = 0; i < count; i++)
        mine[i] = (struct told){(uint16_t)least[i].a, (uint16_t)least[i].b, (uint16_t)least[i].bias,
                                (uint16_t)least[i].d};
    RT_TRY(rt_comm_gather(comm, mine, all, count * (uint32_t)sizeof(mine[0]), err));
    for (uint32_t i = 0; i < comm->ranks * count; i++) {
        struct rt_matmul_alignment *const l = &least[i % count];
        lower(&l->a, all[i].a);
        lower(&l->b, all[i].b);
        lower(&l->bias, all[i].bias);
        lower(&l->d, all[i].d);
    }
    return RT_OK;
}

static enum rt_status share_all(struct rt_comm *comm, struct rt_promises *out, struct rt_error *err)
{
    uint32_t counts[RT_BOARD_MAX_RANKS];
    RT_TRY(rt_comm_gather(comm, &out->count, counts, sizeof(out->count), err));
    for (uint32_t r = 1; r < comm->ranks; r++)
        if (counts[r] != counts[0]) {
            (void)snprintf(out->why_not, sizeof(out->why_not),
                           "rank %" PRIu32 " has %" PRIu32 " products for it in the graph, rank 0 "
                           "%" PRIu32,
                           r, counts[r], counts[0]);
            return RT_OK;
        }
    for (uint32_t i = 0; i < out->count; i += PIECE)
        RT_TRY(share(comm, &out->least[i], rt_min_u32(out->count - i, PIECE), err));
    return RT_OK;
}

enum rt_status rt_promises_make(const struct rt_program *program, struct rt_comm *comm,
                                struct rt_promises *out, struct rt_error *err)
{
    *out = (struct rt_promises){.count = 0};
    RT_TRY(take_own(program, out, err));
    return comm && comm->ranks > 1 ? share_all(comm, out, err) : RT_OK;
}

void rt_promises_free(struct rt_promises *promises)
{
    free(promises->least);
    *promises = (struct rt_promises){.count = 0};
}

struct rt_matmul rt_promised(const struct rt_matmul *m, const struct rt_matmul_alignment *least)
{
    struct rt_matmul promised = *m;
    promised.a = least->a;
    promised.b = least->b;
    promised.bias = m->bias ? least->bias : 0;
    promised.d = least->d;
    return promised;
}
