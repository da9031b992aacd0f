/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several graphs of a batch size: each step replays the one that the rule of docs/small_tiles.md
 * names, at one launch, whenever the host learns what the device has decided; and what it gives is
 * what the others would, bit for bit or, by the emulator's kernels, nearly.
 */
#include "common/bf16.h"
#include "tests/support/fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define HEADS 16u
#define D_QK 576u
#define D_V 512u
#define SEQUENCES 3u
#define BLOCK 64u
#define LONGEST (40 * BLOCK)
#define LONG 2u /* the longer query */
#ifdef RT_TEST_EMULATED
/* 8 multiprocessors: two tiles of 8 rows for 16, two of 16 for 32, or four of 8, for which so few
 * have no limit of their own. Four rows of one token have a block each, and so more than theirs. */
#define LIMIT_OF(q) ((q) == 1 ? 2u : 31u)
#define LEAST_LIMIT_OF(q) ((q) == 1 ? 2u : 6u)
#define GRAPHS (6 + 5 + 3)
#define MOVES 16
#else
/* The host device has no tiles; here it has limits, and the same kernels on all sides of them. */
#define LIMIT_OF(q) ((q) == 1 ? 7u : 11u)
#define LEAST_LIMIT_OF(q) ((q) == 1 ? 3u : 5u)
#define GRAPHS (6 + 6 + 6)
#define MOVES 400
#endif

struct rt_small_tile_limits __wrap_rt_small_tiles_of(enum rt_op_id op,
                                                     const struct rt_op_request *request);
struct rt_small_tile_limits __wrap_rt_small_tiles_of(enum rt_op_id op,
                                                     const struct rt_op_request *request)
{
    struct rt_small_tile_limits limits = {.count = 0};
    const uint32_t q = request->q_len;
    if (op != RT_OP_ATTEND || request->invariant)
        return limits;
    if (LEAST_LIMIT_OF(q) < LIMIT_OF(q))
        limits.tiles[limits.count++] =
            (struct rt_small_tile_limit){.tile_rows = 8, .rows = 4, .blocks = LEAST_LIMIT_OF(q)};
    limits.tiles[limits.count++] =
        (struct rt_small_tile_limit){.tile_rows = 8 * q, .rows = 4, .blocks = LIMIT_OF(q)};
    return limits;
}

/* How many tokens of a row stay where the device decides. */
static int32_t stays = 1;

static int decide(void *user, const struct rt_stage_context *context)
{
    (void)user;
    int32_t *accepted = fixture_address(context->runtime, "accepted", 0);
    for (uint32_t i = 0; i < context->batch; i++)
        accepted[i] = stays;
    return 0;
}

static void fill_with(uint16_t *data, uint64_t count, uint64_t state)
{
    for (uint64_t i = 0; i < count; i++) {
        const uint64_t r = fixture_random(&state);
        data[i] = (uint16_t)((r & 0x8000) | (119 + (r >> 20) % 8) << 7 | (r >> 40 & 0x7f));
    }
}

static void fill(rt_runtime *rt, const char *name)
{
    struct rt_tensor t = {.struct_size = sizeof(t)};
    assert_int_equal(rt_tensor(rt, name, 0, &t), RT_OK);
    fill_with((uint16_t *)(uintptr_t)t.address, t.bytes / 2, 77);
}

static rt_runtime *create(enum rt_small_tiles small_tiles, uint32_t invariant)
{
    static const uint32_t batches[] = {1, 2, 4};
    struct rt_config c;
    fixture_config(&c);
    strcpy(c.device, "host");
    c.geometry = (struct rt_geometry){.heads = HEADS,
                                      .kv_lora_rank = D_V,
                                      .qk_rope_head_dim = D_QK - D_V,
                                      .layers = 1,
                                      .softmax_scale = 0.05};
    memcpy(c.batch_sizes, batches, sizeof(batches));
    c.query_lens[1] = LONG;
    c.max_sequences = SEQUENCES;
    c.max_length = LONGEST;
    c.page_size = BLOCK;
    c.pages = SEQUENCES * LONGEST / BLOCK;
    c.small_tiles = small_tiles;
    c.invariant = invariant;
    struct rt_create_params params = {.struct_size = sizeof(params), .config = &c};
    struct rt_error error = {.status = RT_OK};
    rt_runtime *rt = NULL;
    params.stages[RT_STAGE_STEP_END] = decide;
    if (rt_create(&params, &rt, &error) != RT_OK)
        fail_msg("rt_create: %s", error.message);
    fill(rt, "q");
    fill(rt, "latent");
    fill(rt, "kv");
    return rt;
}

static rt_seq open_at(rt_runtime *rt, uint32_t length)
{
    const struct rt_seq_params past = {
        .struct_size = sizeof(past), .length = length, .last_token = 5};
    rt_seq seq = 0;
    if (rt_seq_open(rt, &past, &seq) != RT_OK)
        fail_msg("rt_seq_open: %s", rt_last_error(rt)->message);
    return seq;
}

/* Keys that do not depend on which pages the sequence has got. */
static rt_seq open_filled(rt_runtime *rt, uint32_t length, uint64_t seed)
{
    const rt_seq seq = open_at(rt, length);
    int32_t pages[LONGEST / BLOCK];
    uint32_t count = 0;
    assert_int_equal(rt_seq_pages(rt, seq, pages, LONGEST / BLOCK, &count), RT_OK);
    for (uint32_t i = 0; i < count; i++)
        fill_with((uint16_t *)fixture_address(rt, "kv", 0) + (size_t)pages[i] * BLOCK * D_QK,
                  (size_t)BLOCK * D_QK, 100 * seed + i + 1);
    return seq;
}

/* Replays of all graphs for few blocks, or of all others. */
static uint64_t replays(rt_runtime *rt, bool small)
{
    struct rt_bucket_stats b = {.struct_size = sizeof(b)};
    uint64_t count = 0;
    for (uint32_t i = 0; rt_get_bucket_stats(rt, i, &b) == RT_OK; i++)
        count += (b.most_blocks > 0) == small ? b.replays : 0;
    return count;
}

struct step {
    const rt_seq *seqs;
    uint32_t rows, q, flags;
    const int32_t *accept;
};

/* Of a graph's last replay. */
static uint32_t limit_of_last(rt_runtime *rt, const uint64_t *before)
{
    struct rt_bucket_stats b = {.struct_size = sizeof(b)};
    uint32_t i = 0;
    while (rt_get_bucket_stats(rt, i, &b) == RT_OK && b.replays == before[i])
        i++;
    assert_in_range(i, 0, rt->captured_count - 1);
    assert_int_equal(b.replays, before[i] + 1);
    return b.most_blocks;
}

/* The limit of the graph that was replayed, at one launch and nothing else; 0: it has none. */
static uint32_t step(rt_runtime *rt, const struct step *s, uint64_t *ticket)
{
    const int32_t tokens[SEQUENCES * LONG] = {1, 2, 3, 4, 5, 6};
    const struct rt_step_params p = {.struct_size = sizeof(p),
                                     .flags = s->flags,
                                     .rows = s->rows,
                                     .query_len = s->q,
                                     .seqs = s->seqs,
                                     .tokens = tokens,
                                     .accept = s->accept};
    const uint64_t calls = rt->driver.probe.calls;
    const uint64_t launches = rt->driver.probe.per_op[RT_DOP_graph_launch];
    const uint64_t few = replays(rt, true), others = replays(rt, false);
    uint64_t before[GRAPHS];
    assert_in_range(rt->captured_count, 1, GRAPHS);
    for (uint32_t i = 0; i < rt->captured_count; i++)
        before[i] = rt->captured[i].replays;
    if (rt_step(rt, &p, ticket) != RT_OK)
        fail_msg("rt_step: %s", rt_last_error(rt)->message);
    if (!(s->flags & RT_STEP_EAGER)) {
        assert_int_equal(rt->driver.probe.calls, calls + 1);
        assert_int_equal(rt->driver.probe.per_op[RT_DOP_graph_launch], launches + 1);
    }
    assert_int_equal(replays(rt, true) + replays(rt, false), few + others + 1);
    const uint32_t limit = limit_of_last(rt, before);
    assert_int_equal(replays(rt, true) > few, limit > 0);
    return limit;
}

static uint32_t step_through(rt_runtime *rt, const struct step *s)
{
    uint64_t ticket = 0;
    const uint32_t limit = step(rt, s, &ticket);
    if (rt_wait(rt, ticket, UINT64_MAX) != RT_OK)
        fail_msg("rt_wait: %s", rt_last_error(rt)->message);
    return limit;
}

/* ---- which graph ----------------------------------------------------------------------------- */

static uint32_t blocks_of(const uint32_t *tokens, const uint32_t *rows, uint32_t count, uint32_t q)
{
    uint32_t blocks = 0;
    for (uint32_t i = 0; i < count; i++)
        blocks += (tokens[rows[i]] + q + BLOCK - 1) / BLOCK;
    return blocks;
}

static uint32_t limit_for(uint32_t blocks, uint32_t q)
{
    if (blocks <= LEAST_LIMIT_OF(q))
        return LEAST_LIMIT_OF(q);
    return blocks <= LIMIT_OF(q) ? LIMIT_OF(q) : 0;
}

/* A walk of lengths around the limits. `offered` is what a sequence would have were nothing taken
 * back since it was opened or rewound. */
static void the_rule_names_the_graph(void **state)
{
    (void)state;
    rt_runtime *rt = create(RT_SMALL_TILES_AUTO, 0);
    rt_seq seqs[SEQUENCES];
    uint32_t offered[SEQUENCES], steps[LIMIT_OF(LONG) + 1] = {0}, limited = 0;
    uint64_t random = 5;
    for (uint32_t i = 0; i < SEQUENCES; i++)
        seqs[i] = open_at(rt, offered[i] = 0);
    for (int move = 0; move < MOVES; move++) {
        static const int32_t ways[] = {RT_ACCEPT_ALL, RT_ACCEPT_DEVICE, 1};
        const uint32_t q = 1 + fixture_random(&random) % LONG;
        const uint32_t count = 1 + fixture_random(&random) % SEQUENCES;
        const uint32_t which = fixture_random(&random) % SEQUENCES;
        uint32_t rows[SEQUENCES];
        rt_seq named[SEQUENCES];
        int32_t accept[SEQUENCES];
        assert_int_equal(rt_seq_close(rt, seqs[which]), RT_OK);
        offered[which] = fixture_random(&random) % (LIMIT_OF(LONG) * BLOCK * 2 / 3);
        seqs[which] = open_at(rt, offered[which]);
        for (uint32_t i = 0; i < count; i++) {
            rows[i] = (which + i) % SEQUENCES;
            named[i] = seqs[rows[i]];
            accept[i] = ways[fixture_random(&random) % 3];
        }
        const uint32_t limit = limit_for(blocks_of(offered, rows, count, q), q);
        const struct step s = {.seqs = named, .rows = count, .q = q, .accept = accept};
        const uint32_t got = step_through(rt, &s);
        if (got != limit)
            fail_msg("move %d: %u rows of %u blocks, query length %u: limit %u, not %u", move,
                     count, blocks_of(offered, rows, count, q), q, got, limit);
        steps[limit]++;
        limited += limit > 0;
        for (uint32_t i = 0; i < count; i++)
            offered[rows[i]] += accept[i] == 1 ? 1 : q;
    }
    assert_true(steps[0] > MOVES / 8 && limited > MOVES / 8);
    assert_true(steps[LIMIT_OF(LONG)] > 0 && steps[LEAST_LIMIT_OF(LONG)] > 0);
    rt_destroy(&rt);
}

#ifndef RT_TEST_EMULATED
/* Rows whose tokens the device takes back, to and over the limit: the same graphs for a host that
 * waits after each step and one that runs ahead. A rewind forgets what was taken back. */
static void time_does_not_matter(void **state)
{
    (void)state;
    const int32_t accept = RT_ACCEPT_DEVICE;
    const uint32_t begin = LIMIT_OF(LONG) * BLOCK - 5;
    bool seen[2][6];
    for (int ahead = 0; ahead < 2; ahead++) {
        rt_runtime *rt = create(RT_SMALL_TILES_AUTO, 0);
        rt_seq seq = open_at(rt, begin);
        const struct step s = {.seqs = &seq, .rows = 1, .q = LONG, .accept = &accept};
        for (int i = 0; i < 6; i += 2) {
            uint64_t ticket = 0;
            assert_int_equal(rt_host_hold(rt, (uint32_t)ahead), RT_OK);
            seen[ahead][i] = step(rt, &s, &ticket) > 0;
            seen[ahead][i + 1] = step(rt, &s, &ticket) > 0;
            assert_int_equal(rt_host_hold(rt, 0), RT_OK);
            assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
        }
        /* 5 tokens of room, 2 of each step. */
        const bool expected[] = {true, true, false, false, false, false};
        assert_memory_equal(seen[ahead], expected, sizeof(expected));
        assert_int_equal(rt_seq_rewind(rt, seq, begin + 1), RT_OK);
        assert_int_equal(step_through(rt, &s), LIMIT_OF(LONG));
        rt_destroy(&rt);
    }
}
#endif

/* ---- what comes out -------------------------------------------------------------------------- */

/* [rows, q, HEADS, D_V] of the last step, and [rows, q, HEADS]. */
struct outputs {
    uint16_t out[SEQUENCES * LONG * HEADS * D_V];
    float lse[SEQUENCES * LONG * HEADS];
};

static struct outputs *look(rt_runtime *rt)
{
    struct outputs *o = malloc(sizeof(*o));
    assert_non_null(o);
    memcpy(o->out, fixture_address(rt, "out", 0), sizeof(o->out));
    memcpy(o->lse, fixture_address(rt, "lse", 0), sizeof(o->lse));
    return o;
}

static void near(const struct outputs *a, const struct outputs *b, uint32_t tokens)
{
    for (uint32_t i = 0; i < tokens * HEADS * D_V; i++) {
        const float x = rt_bf16_to_float(a->out[i]), y = rt_bf16_to_float(b->out[i]);
        if (!(fabsf(x - y) <= 1e-3f + fabsf(y) / 64))
            fail_msg("out[%u] is %g beside %g", i, (double)x, (double)y);
    }
    for (uint32_t i = 0; i < tokens * HEADS; i++)
        if (!(fabsf(a->lse[i] - b->lse[i]) <= 1e-4f))
            fail_msg("lse[%u] is %g beside %g", i, (double)a->lse[i], (double)b->lse[i]);
}

static void same(const struct outputs *a, const struct outputs *b, uint32_t tokens)
{
    assert_memory_equal(a->out, b->out, tokens * HEADS * D_V * sizeof(a->out[0]));
    assert_memory_equal(a->lse, b->lse, tokens * HEADS * sizeof(a->lse[0]));
}

/* One step on a runtime with several graphs and on one without: as the rule has it, that once more
 * eagerly, by the graph of the most blocks, and by that for any lengths. Each time the lengths are
 * set back. */
static uint32_t compare_sides(rt_runtime *both, rt_runtime *one, const rt_seq *seqs,
                              const uint32_t *lengths, uint32_t q)
{
    static const uint32_t flags[] = {0, RT_STEP_EAGER, RT_STEP_MOST_BLOCKS, RT_STEP_ANY_LENGTH};
    struct outputs *seen[4];
    const struct step truth = {.seqs = seqs + SEQUENCES, .rows = SEQUENCES, .q = q};
    assert_int_equal(step_through(one, &truth), 0);
    struct outputs *want = look(one);
    uint32_t limit = 0;
    for (int i = 0; i < 4; i++) {
        const struct step s = {.seqs = seqs, .rows = SEQUENCES, .q = q, .flags = flags[i]};
        const uint32_t got = step_through(both, &s);
        limit = i == 0 ? got : limit;
        assert_int_equal(got, i < 2 ? limit : i == 2 && limit ? LIMIT_OF(q) : 0);
        seen[i] = look(both);
        for (uint32_t r = 0; r < SEQUENCES && i < 3; r++)
            assert_int_equal(rt_seq_rewind(both, seqs[r], lengths[r]), RT_OK);
    }
    near(seen[0], want, SEQUENCES * q);
    same(seen[1], seen[0], SEQUENCES * q);
    near(seen[2], want, SEQUENCES * q);
    same(seen[3], want, SEQUENCES * q);
    for (int i = 0; i < 4; i++)
        free(seen[i]);
    free(want);
    return limit;
}

/* Back and forth over the limit, by growing and by rewinding. */
static void both_sides_agree(void **state)
{
    (void)state;
    static const uint32_t lengths[][SEQUENCES] = {
        {5, 9, BLOCK - 1},                 /* 1, 1, 1 blocks, or 2 */
        {7, 3 * BLOCK - 2, 2 * BLOCK - 1}, /* 1, 3, 2 */
        {8, 3 * BLOCK, 3 * BLOCK - 1},     /* 1, 4, 3 */
        {9, 4 * BLOCK + 1, 4 * BLOCK - 1}, /* above 7 */
        {BLOCK, 9 * BLOCK, 2},             /* above 11 */
        {0, 3 * BLOCK, 10},                /* and back */
    };
    rt_runtime *both = create(RT_SMALL_TILES_AUTO, 0), *one = create(RT_SMALL_TILES_OFF, 0);
    uint32_t small[LIMIT_OF(LONG) + 1] = {0};
    rt_seq seqs[2 * SEQUENCES];
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++)
        for (uint32_t q = 1; q <= LONG; q++) {
            for (uint32_t r = 0; r < SEQUENCES; r++) {
                seqs[r] = open_filled(both, lengths[i][r], r);
                seqs[SEQUENCES + r] = open_filled(one, lengths[i][r], r);
            }
            small[compare_sides(both, one, seqs, lengths[i], q)]++;
            for (uint32_t r = 0; r < SEQUENCES; r++) {
                assert_int_equal(rt_seq_close(both, seqs[r]), RT_OK);
                assert_int_equal(rt_seq_close(one, seqs[SEQUENCES + r]), RT_OK);
            }
        }
    assert_true(small[0] > 0 && small[LIMIT_OF(LONG)] > 1 && small[LEAST_LIMIT_OF(LONG)] > 0);
    rt_destroy(&both);
    rt_destroy(&one);
}

/* Modes without further graphs have none, and bad flags are told. */
static void one_graph_where_one_is_asked_for(void **state)
{
    (void)state;
    rt_runtime *off = create(RT_SMALL_TILES_OFF, 0), *fixed = create(RT_SMALL_TILES_STATIC, 0),
               *invariant = create(RT_SMALL_TILES_AUTO, 1), *both = create(RT_SMALL_TILES_AUTO, 0);
    const rt_seq seq = open_at(off, 1);
    const struct step any = {.seqs = &seq, .rows = 1, .q = 1, .flags = RT_STEP_ANY_LENGTH};
    const struct rt_step_params bad = {
        .struct_size = sizeof(bad), .flags = 15, .rows = 1, .seqs = &seq};
    assert_int_equal(off->captured_count, 6);
    assert_int_equal(fixed->captured_count, 6);
    assert_int_equal(invariant->captured_count, 6);
    assert_int_equal(both->captured_count, GRAPHS);
    assert_int_equal(step_through(off, &any), 0);
    assert_int_equal(rt_step(off, &bad, NULL), RT_ERR_INVALID);
    assert_string_equal(rt_last_error(off)->message, "rt_step: unknown flags 0x8");
    rt_destroy(&both);
    rt_destroy(&invariant);
    rt_destroy(&fixed);
    rt_destroy(&off);
}

/* Without a live row there is no block: idle ranks replay as cheap a graph as there is. */
static void an_idle_batch_has_few_blocks(void **state)
{
    (void)state;
    rt_runtime *rt = create(RT_SMALL_TILES_AUTO, 0);
    const struct rt_step_params idle = {.struct_size = sizeof(idle), .idle_batch = 2};
    uint64_t ticket = 0;
    assert_int_equal(rt_step(rt, &idle, &ticket), RT_OK);
    assert_int_equal(rt_wait(rt, ticket, UINT64_MAX), RT_OK);
    assert_int_equal(replays(rt, true), 1);
    assert_int_equal(replays(rt, false), 0);
    for (uint32_t i = 0; i < rt->captured_count; i++)
        if (rt->captured[i].replays)
            assert_int_equal(rt->captured[i].program.spec.most_blocks, LEAST_LIMIT_OF(1));
    rt_destroy(&rt);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rule_names_the_graph),
#ifndef RT_TEST_EMULATED
        cmocka_unit_test(time_does_not_matter),
#endif
        cmocka_unit_test(both_sides_agree),
        cmocka_unit_test(one_graph_where_one_is_asked_for),
        cmocka_unit_test(an_idle_batch_has_few_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
