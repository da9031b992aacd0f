/* SPDX-License-Identifier: Apache-2.0 */
/* All to all between the ranks of a group, of which a communicator has several. */
#include "tests/unit/comm_crew.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

/* Behind a slot's end by less than a byte for each of a group: parts of unequal length. */
#define MANY (RT_BOARD_SLOT_BYTES / 2 + 1)

struct swap {
    struct rt_comm *comm;
    unsigned char *from, *to;
    struct rt_collective x;
};

/* What `rank` has for the `place`-th of its group. */
static unsigned char byte_of(uint32_t rank, uint32_t place, uint64_t i)
{
    return (unsigned char)(rank * 61 + place * 17 + i * 7 + i / 251);
}

static enum rt_status swap_all(const struct swap *s, struct rt_driver *d, struct rt_error *err)
{
    const uint32_t group = s->x.group, first = s->comm->rank / group * group;
    const uint64_t count = s->x.count;
    for (uint32_t place = 0; place < group; place++)
        for (uint64_t i = 0; i < count; i++)
            s->from[place * count + i] = byte_of(s->comm->rank, place, i);
    RT_TRY(RT_DRV(d, err, collective, (d, &s->x, NULL)));
    for (uint32_t r = 0; r < group; r++)
        for (uint64_t i = 0; i < count; i++) {
            const unsigned char wanted = byte_of(first + r, s->comm->rank - first, i);
            RT_REQUIRE(s->to[r * count + i] == wanted, err, RT_ERR_INTERNAL,
                       "groups of %u: byte %llu of rank %u is %u, expected %u", group,
                       (unsigned long long)i, first + r, s->to[r * count + i], wanted);
        }
    return RT_OK;
}

/* Of bytes, as `count` and the group of the crew's ask for it. */
static enum rt_status swap_in(struct rt_comm *c, struct rt_driver *d, rt_addr memory,
                              uint32_t group, uint64_t count, struct rt_error *err)
{
    const rt_addr to = memory + (uint64_t)c->ranks * MANY;
    const struct swap s = {.comm = c,
                           .from = (unsigned char *)(uintptr_t)memory,
                           .to = (unsigned char *)(uintptr_t)to,
                           .x = {.kind = RT_ALL_TO_ALL,
                                 .dtype = RT_DTYPE_U8,
                                 .from = memory,
                                 .to = to,
                                 .count = count,
                                 .ranks = c->ranks,
                                 .group = group,
                                 .comm = c}};
    return swap_all(&s, d, err);
}

static enum rt_status with_memory(struct rt_comm *c, uint32_t group, uint64_t count,
                                  struct rt_error *err)
{
    struct rt_driver d = {0};
    rt_addr memory = 0;
    enum rt_status status = rt_driver_open_host(&d, err);
    if (status == RT_OK)
        status = rt_comm_open(c, &d, NULL, err);
    if (status == RT_OK)
        status = RT_DRV(&d, err, mem_alloc, (&d, 2 * (uint64_t)c->ranks * MANY, &memory));
    if (status == RT_OK)
        status = swap_in(c, &d, memory, group, count, err);
    if (memory)
        (void)d.mem_free(&d, memory);
    rt_driver_close(&d);
    return status;
}

static enum rt_status of_every_size(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    static const uint64_t counts[] = {0, 1, 1000, MANY};
    for (uint32_t group = 1; group <= crew->ranks; group++)
        for (uint32_t i = 0; i < 4 && crew->ranks % group == 0; i++)
            RT_TRY(with_memory(c, group, counts[i], err));
    return RT_OK;
}

static void test_groups_of_every_size(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= CREW_MOST; ranks++) {
        struct crew crew;
        crew_begin(&crew, ranks);
        crew_succeed(&crew, of_every_size);
    }
}

static enum rt_status of_another_size(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    (void)crew;
    return with_memory(c, c->rank == 1 ? 2 : 1, 10, err);
}

static void test_groups_that_differ(void **state)
{
    struct crew crew;
    (void)state;
    crew_begin(&crew, 2);
    crew_run(&crew, of_another_size);
    crew_expect(&crew, 0, RT_ERR_RANKS,
                "exchange 1 of step 0: rank 1 has ranks of a group 2, rank 0 (this one) 1");
    crew_expect(&crew, 1, RT_ERR_RANKS,
                "exchange 1 of step 0: rank 0 has ranks of a group 1, rank 1 (this one) 2");
}

/* They would not be of one size: the device refuses it, and no rank waits. */
static enum rt_status of_two_in_three(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_error why;
    (void)crew;
    const enum rt_status status = with_memory(c, 2, 10, &why);
    RT_REQUIRE(status == RT_ERR_DRIVER, err, RT_ERR_INTERNAL, "groups of 2 in 3 ranks: status %d",
               (int)status);
    return RT_OK;
}

static void test_groups_that_do_not_divide(void **state)
{
    struct crew crew;
    (void)state;
    crew_begin(&crew, 3);
    crew_succeed(&crew, of_two_in_three);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_of_every_size),
        cmocka_unit_test(test_groups_that_differ),
        cmocka_unit_test(test_groups_that_do_not_divide),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
