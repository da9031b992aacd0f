/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks whose weights lie otherwise aligned, by libraries that offer each rank ways of its own. */
#include "driver/matmul_plan.h"
#include "tests/unit/comm_crew.h"
#include "tests/unit/products_rig.h"

#include <stdio.h>

#define RANKS 2u
#define MOST_WAYS 4
#define LATENT 256                       /* k of W_UV alone */
#define WEIGHT_BYTES (UINT64_C(1) << 20) /* more than any has */

/* A rank's library: names of one letter, and those that it has only for operands on 256 bytes. */
static struct {
    const char *names[RANKS], *aligned[RANKS];
    float us[RANKS][MOST_WAYS]; /* by place in names */
    struct rig *rigs[RANKS];
    /* The least and the most alignment of W_UV that a plan was asked for. */
    uint32_t least[RANKS], most[RANKS];
} now;

struct plan {
    struct rt_matmul_plan plan;
    char names[2 * MOST_WAYS + 1];
};

static uint32_t rank_of(const struct rig *r)
{
    return r == now.rigs[1];
}

static int select_way(struct rt_driver *d, struct rt_matmul_plan *plan, uint32_t i)
{
    const struct plan *const p = (const struct plan *)(const void *)plan;
    (void)d;
    plan->selected = i;
    plan->identity[0] = (uint32_t)p->names[i];
    (void)snprintf(plan->text, sizeof(plan->text), "%c", p->names[i]);
    return 0;
}

static int prepare(struct rt_driver *d, const struct rt_matmul *m, uint32_t most,
                   struct rt_matmul_plan **out)
{
    const uint32_t rank = rank_of((const struct rig *)(const void *)d);
    const struct rt_matmul_alignment is = rt_matmul_alignment(m);
    struct plan *const p = calloc(1, sizeof(*p));
    (void)snprintf(p->names, sizeof(p->names), "%s%s", now.names[rank],
                   is.b == 256 ? now.aligned[rank] : "");
    p->plan.candidates = (uint32_t)strlen(p->names);
    if (m->k == LATENT && now.least[rank] > is.b)
        now.least[rank] = is.b;
    if (m->k == LATENT && now.most[rank] < is.b)
        now.most[rank] = is.b;
    if (p->plan.candidates == 0 || p->plan.candidates > most) {
        free(p);
        return 5; /* an invalid value of the host device's */
    }
    d->probe.live++;
    *out = &p->plan;
    return select_way(d, *out, 0);
}

/* What a way takes is told, not measured. */
static uint32_t running[RANKS];

static int run_way(struct rt_driver *d, const struct rt_matmul *m, rt_dstream stream)
{
    (void)stream;
    running[rank_of((const struct rig *)(const void *)d)] = m->plan->selected;
    return 0;
}

static int elapsed(struct rt_driver *d, rt_devent from, rt_devent to, float *ms)
{
    const uint32_t rank = rank_of((const struct rig *)(const void *)d);
    (void)from;
    (void)to;
    *ms = now.us[rank][running[rank] % MOST_WAYS];
    return 0;
}

/* As aligned as their strides let them be; qkv_a's two are one behind the other. */
static void align_weights(struct rt_weights *w)
{
    for (uint32_t i = 0; i < LAYERS * RT_WEIGHT_COUNT; i++)
        if (w->bound[i].address && i % RT_WEIGHT_COUNT != RT_WEIGHT_KV_A)
            w->bound[i].address = (i + 1) * WEIGHT_BYTES;
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        struct rt_bound_weight *const q_a = &w->bound[(size_t)layer * RT_WEIGHT_COUNT];
        q_a[RT_WEIGHT_KV_A - RT_WEIGHT_Q_A].address =
            q_a->address + q_a->rows * q_a->columns * sizeof(uint16_t);
    }
}

static void open_ranks(enum rt_projections projections)
{
    for (uint32_t r = 0; r < RANKS; r++) {
        struct rig *const rig = now.rigs[r] = rig_open(projections);
        rig->driver.matmul_prepare = prepare;
        rig->driver.matmul_select = select_way;
        rig->driver.matmul = run_way;
        rig->driver.event_elapsed = elapsed;
        align_weights(&rig->weights);
        now.least[r] = UINT32_MAX;
        now.most[r] = 0;
    }
}

static void shut_ranks(void)
{
    for (uint32_t r = 0; r < RANKS; r++)
        rig_shut(now.rigs[r]);
}

static enum rt_status make(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rig *const r = now.rigs[c->rank];
    const enum rt_status status = rig_make_all(r, c);
    (void)crew;
    *err = r->error;
    return status;
}

static void make_ranks(enum rt_status status)
{
    struct crew crew;
    crew_begin(&crew, RANKS);
    crew_run(&crew, make);
    for (uint32_t r = 0; r < RANKS; r++)
        if (crew.status[r] != status)
            fail_msg("rank %u: %d, %s", r, (int)crew.status[r], crew.error[r].message);
}

/* All products of the library's, every one by the way of this name. */
static void assert_all_by(const char *name)
{
    for (uint32_t r = 0; r < RANKS; r++)
        for (uint32_t i = 0; i < now.rigs[r]->blueprint.spec_count; i++) {
            assert_true(rig_matmuls(now.rigs[r], i) > 0);
            const struct rt_stage *const s = rig_stage(now.rigs[r], i, "o_proj.1");
            assert_string_equal(s->work->matmul.plan->text, name);
        }
}

/* All by our kernels on both, each stage with this reason. */
static void assert_all_own(const char *reason)
{
    for (uint32_t r = 0; r < RANKS; r++)
        for (uint32_t i = 0; i < now.rigs[r]->blueprint.spec_count; i++) {
            const struct rt_stage *const s = rig_stage(now.rigs[r], i, "o_proj.1");
            assert_int_equal(rig_matmuls(now.rigs[r], i), 0);
            if (!strstr(s->reason, reason))
                fail_msg("rank %u: \"%s\"", r, s->reason);
        }
}

static void offer(const char *first, const char *second)
{
    now.names[0] = first;
    now.names[1] = second;
    now.aligned[0] = now.aligned[1] = "";
    for (uint32_t r = 0; r < RANKS; r++)
        for (int i = 0; i < MOST_WAYS; i++)
            now.us[r][i] = (float)(i + 1);
}

static void shift(uint32_t rank, enum rt_weight_id id, uint32_t layer, uint64_t bytes)
{
    struct rt_weights *const w = &now.rigs[rank]->weights;
    w->bound[(size_t)layer * RT_WEIGHT_COUNT + id].address += bytes;
}

static void test_lists_that_overlap(void **state)
{
    (void)state;
    offer("abc", "dbe");
    open_ranks(RT_PROJECTIONS_AUTO);
    make_ranks(RT_OK);
    assert_all_by("b");
    assert_int_equal(now.rigs[0]->products.count, now.rigs[1]->products.count);
    shut_ranks();
}

/* Ranks whose runtimes are to be like others that chose when other ways were faster: all of them,
 * or rank 0 alone, where what is chosen is still one. */
static void test_like_other_runtimes(void **state)
{
    struct rig *others[RANKS];
    (void)state;
    for (uint32_t likes = 1; likes <= RANKS; likes++) {
        offer("abc", "dbc");
        now.us[0][2] = 0.5f; /* c */
        now.us[1][2] = 0.5f;
        open_ranks(RT_PROJECTIONS_AUTO);
        make_ranks(RT_OK);
        assert_all_by("c");
        memcpy(others, now.rigs, sizeof(others));
        offer("abc", "dbc");
        open_ranks(RT_PROJECTIONS_AUTO);
        for (uint32_t r = 0; r < likes; r++)
            now.rigs[r]->products.like = &others[r]->products;
        make_ranks(RT_OK);
        assert_all_by(likes == RANKS ? "c" : "b");
        shut_ranks();
        memcpy(now.rigs, others, sizeof(others));
        shut_ranks();
    }
}

static void test_lists_that_are_apart(void **state)
{
    (void)state;
    offer("ab", "cd");
    open_ranks(RT_PROJECTIONS_AUTO);
    make_ranks(RT_OK);
    assert_all_own("rank 1 has none of the ways that ranks before it share");
    shut_ranks();
    open_ranks(RT_PROJECTIONS_CUBLASLT);
    make_ranks(RT_ERR_UNSUPPORTED);
    shut_ranks();
}

static void test_a_list_that_is_empty(void **state)
{
    (void)state;
    offer("ab", "");
    open_ranks(RT_PROJECTIONS_AUTO);
    make_ranks(RT_OK);
    assert_all_own("the library has no way: rank 1: matmul_prepare failed");
    shut_ranks();
}

/* One rank's kv_b of the second layer begins 16 bytes on: both ask for what 16 bytes allow, and
 * have a plan of its own for it. */
static void test_the_least_alignment_is_asked_for(void **state)
{
    (void)state;
    offer("cd", "cd");
    open_ranks(RT_PROJECTIONS_AUTO);
    shift(1, RT_WEIGHT_KV_B, 1, 16);
    make_ranks(RT_OK);
    assert_all_by("c");
    for (uint32_t r = 0; r < RANKS; r++) {
        assert_int_equal(now.least[r], 16);
        assert_int_equal(now.most[r], 256);
        assert_int_equal(now.rigs[r]->products.refusals.count, 0);
    }
    assert_int_equal(now.rigs[0]->products.count, now.rigs[1]->products.count);
    shut_ranks();
}

/* Refused at one alignment, asked for at another on one rank only: no rank comes to it alone. */
static void test_refusals_are_of_any_alignment(void **state)
{
    (void)state;
    offer("ab", "cd");
    open_ranks(RT_PROJECTIONS_AUTO);
    shift(1, RT_WEIGHT_O, 1, 16);
    shift(0, RT_WEIGHT_Q_B, 1, 32);
    make_ranks(RT_OK);
    assert_all_own("the library has no way: rank 1 has none of the ways");
    assert_int_equal(now.rigs[0]->products.refusals.count, now.rigs[1]->products.refusals.count);
    shut_ranks();
}

/* qkv_a is one product where its two weights lie one behind the other, and two on the other rank:
 * they have no products to go through together. */
static void test_other_numbers_of_products(void **state)
{
    (void)state;
    offer("a", "a");
    open_ranks(RT_PROJECTIONS_AUTO);
    shift(1, RT_WEIGHT_KV_A, 1, UINT64_C(1) << 30);
    make_ranks(RT_OK);
    assert_all_own("products for it in the graph, rank 0");
    shut_ranks();
    open_ranks(RT_PROJECTIONS_CUBLASLT);
    shift(0, RT_WEIGHT_KV_A, 1, UINT64_C(1) << 30);
    make_ranks(RT_ERR_UNSUPPORTED);
    shut_ranks();
}

/* o_proj's bias is rank 0's alone: the plans are as many on both. */
static void test_a_bias_of_one_rank(void **state)
{
    (void)state;
    offer("a", "a");
    open_ranks(RT_PROJECTIONS_AUTO);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
        struct rt_weights *const w = &now.rigs[0]->weights;
        w->bound[(size_t)layer * RT_WEIGHT_COUNT + RT_WEIGHT_O_BIAS] =
            (struct rt_bound_weight){.address = UINT64_C(0x7d0000000000) + layer * 16,
                                     .rows = 1,
                                     .columns = HIDDEN,
                                     .row_stride = HIDDEN,
                                     .column_stride = 1};
    }
    make_ranks(RT_OK);
    assert_all_by("a");
    assert_int_equal(now.rigs[0]->products.count, now.rigs[1]->products.count);
    shut_ranks();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lists_that_overlap),
        cmocka_unit_test(test_like_other_runtimes),
        cmocka_unit_test(test_lists_that_are_apart),
        cmocka_unit_test(test_a_list_that_is_empty),
        cmocka_unit_test(test_the_least_alignment_is_asked_for),
        cmocka_unit_test(test_refusals_are_of_any_alignment),
        cmocka_unit_test(test_other_numbers_of_products),
        cmocka_unit_test(test_a_bias_of_one_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
