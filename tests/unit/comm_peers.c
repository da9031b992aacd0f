/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of every rank that all have mapped: ranks are threads, with a device of the host each. */
#include "tests/unit/comm_crew.h"

#include "kernels/ref/ref.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define BYTES 5000u
#define EXCHANGES 6u

static enum rt_status expect(bool holds, const char *what, struct rt_error *err)
{
    return holds ? RT_OK : rt_fail(err, RT_ERR_INTERNAL, "not so: %s", what);
}

static enum rt_status see_all(struct rt_comm *c, struct rt_driver *d, struct rt_error *err)
{
    const struct rt_peers *const p = &c->peers;
    RT_TRY(rt_comm_map(c, d, BYTES, err));
    RT_TRY(rt_comm_map(c, d, 1, err)); /* once more does nothing */
    RT_TRY(expect(p->mapped && p->bytes == BYTES && !*p->stop, "mapped", err));
    for (uint32_t i = 0; i < BYTES; i++)
        RT_TRY(expect(((const unsigned char *)(uintptr_t)p->memory[c->rank])[i] == 0, "0", err));
    memset((void *)(uintptr_t)p->memory[c->rank], (int)(7 + c->rank), BYTES);
    RT_TRY(rt_comm_barrier(c, err));
    for (uint32_t r = 0; r < c->ranks; r++)
        RT_TRY(expect(((const unsigned char *)(uintptr_t)p->memory[r])[BYTES - 1] == 7 + r,
                      "what rank r wrote", err));
    return rt_comm_barrier(c, err);
}

/* What was mapped is gone before its device is. */
static enum rt_status see(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_driver d;
    (void)crew;
    RT_TRY(rt_driver_open_host(&d, err));
    enum rt_status status = see_all(c, &d, err);
    struct rt_error why = {0};
    int32_t *const stop = c->peers.stop;
    (void)rt_fail(&why, RT_ERR_RANKS, "for a test");
    if (status == RT_OK) {
        (void)rt_comm_fail(c, &why);
        status = expect(*stop == 1, "a failed group's kernels are stopped", err);
    }
    rt_comm_unmap(c);
    if (status == RT_OK)
        status = expect(d.probe.live == 0, "all is freed", err);
    rt_driver_close(&d);
    return status;
}

static void test_all_see_all(void **state)
{
    (void)state;
    for (uint32_t ranks = 1; ranks <= CREW_MOST; ranks++) {
        struct crew crew;
        crew_begin(&crew, ranks);
        crew_succeed(&crew, see);
    }
}

/* ---- a rank that cannot ---------------------------------------------------------------------- */

struct failing {
    uint64_t fail_at; /* of rank 1's driver calls */
    bool is_over;     /* it made fewer */
    bool mapped[2];
    char why[2][RT_PEERS_WHY_BYTES];
};

static enum rt_status map_failing(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct failing *const f = crew->user;
    struct rt_driver d;
    RT_TRY(rt_driver_open_host(&d, err));
    d.probe.fail_at = c->rank == 1 ? f->fail_at : 0;
    enum rt_status status = rt_comm_map(c, &d, BYTES, err);
    f->mapped[c->rank] = c->peers.mapped;
    (void)snprintf(f->why[c->rank], sizeof(f->why[0]), "%s", c->peers.why);
    rt_comm_unmap(c);
    if (c->rank == 1)
        f->is_over = d.probe.calls < f->fail_at;
    if (status == RT_OK)
        status = expect(d.probe.live == 0, "all is freed", err);
    rt_driver_close(&d);
    return status;
}

static void test_every_call_fails_once(void **state)
{
    struct failing f = {.fail_at = 1};
    uint32_t told = 0;
    (void)state;
    for (; !f.is_over; f.fail_at++) {
        struct crew crew;
        crew_begin(&crew, 2);
        crew.user = &f;
        crew_succeed(&crew, map_failing); /* it is no failure of the group */
        assert_int_equal(f.mapped[0], f.mapped[1]);
        assert_string_equal(f.why[0], f.why[1]);
        if (f.mapped[0]) /* a release that failed has released */
            continue;
        told++;
        assert_int_equal(strncmp(f.why[0], "rank 1: ", 8), 0);
        assert_non_null(strstr(f.why[0], "failed: injected failure"));
    }
    assert_int_equal(told, 7); /* mapped and device memory, stream, fill, sync, export, open */
}

/* ---- sums in one shot ------------------------------------------------------------------------ */

static float number(uint32_t rank, uint32_t exchange, uint32_t i)
{
    return (float)(rank + 1) * 0.37f + (float)((i + exchange) % 101) * (rank % 2 ? -1.25f : 1e-3f);
}

static enum rt_status sum_all(struct rt_comm *c, struct rt_driver *d, struct rt_error *err)
{
    static const uint32_t sizes[] = {16, 8192, 4112};
    float numbers[2048];
    struct rt_all_reduce_params p = {
        .from = numbers, .to = numbers, .rank = c->rank, .ranks = c->ranks, .is_f32 = 1};
    RT_TRY(rt_comm_map(c, d, rt_all_reduce_mailbox_bytes(c->ranks, 2), err));
    p.stop = c->peers.stop;
    for (uint32_t r = 0; r < c->ranks; r++)
        p.mailbox[r] = (void *)(uintptr_t)c->peers.memory[r];
    for (uint32_t n = 0; n < EXCHANGES; n++) {
        p.bytes = sizes[n % 3];
        for (uint32_t i = 0; i < p.bytes / 4; i++)
            numbers[i] = number(c->rank, n, i);
        rt_ref_all_reduce(&p);
        for (uint32_t i = 0; i < p.bytes / 4; i++) {
            double sum = 0;
            for (uint32_t r = 0; r < c->ranks; r++)
                sum += (double)number(r, n, i);
            RT_TRY(expect(numbers[i] == (float)sum, "the sum in the order of ranks", err));
        }
    }
    return RT_OK;
}

static enum rt_status sum(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_driver d;
    (void)crew;
    RT_TRY(rt_driver_open_host(&d, err));
    const enum rt_status status = sum_all(c, &d, err);
    rt_comm_unmap(c);
    rt_driver_close(&d);
    return status;
}

static void test_ranks_that_wait_for_each_other(void **state)
{
    (void)state;
    for (uint32_t ranks = 2; ranks <= CREW_MOST; ranks++) {
        struct crew crew;
        crew_begin(&crew, ranks);
        crew_succeed(&crew, sum);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_see_all),
        cmocka_unit_test(test_every_call_fails_once),
        cmocka_unit_test(test_ranks_that_wait_for_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
