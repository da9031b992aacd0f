/* SPDX-License-Identifier: Apache-2.0 */
/* What rt_config_check lets pass is planned, and what it refuses is refused: chunks, rows beside
 * them and pieces of context, about and above their limits, absorbed and expanded. */
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CONFIGURATIONS 600u
#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static uint32_t below(uint64_t *chance, uint32_t bound)
{
    return (uint32_t)((fixture_random(chance) >> 32) % bound);
}

static void draw_prompts(uint64_t *chance, struct rt_config *c)
{
    static const uint32_t chunks[] = {1,    2,    170,  171,   172,   512,   4095,
                                      4096, 4097, 8192, 16384, 32768, 65536, 100000};
    static const uint32_t pieces[] = {0, 1, 15, 64, 128, 2048, 8192, 1000000, UINT32_MAX};
    c->chunk_count = below(chance, 4) ? 1 : 0;
    c->chunks[0] = chunks[below(chance, COUNT(chunks))];
    if (c->chunk_count && below(chance, 2)) {
        c->chunks[1] = c->chunks[0] + below(chance, 9000);
        c->chunk_count = 2;
    }
    c->prefill_rows = below(chance, 2) ? below(chance, 2 * RT_MAX_PREFILL_ROWS) : 0;
    c->mixed_row_count = below(chance, 2);
    c->mixed_rows[0] = 1 + below(chance, 2 * c->max_sequences);
    c->context_piece = pieces[below(chance, COUNT(pieces))];
}

static struct rt_config draw(uint64_t *chance)
{
    static const uint32_t lengths[] = {64, 100, 4096, 65536, 131072, 1000000};
    struct rt_config c;
    fixture_config(&c);
    strcpy(c.device, "host");
    c.layer = below(chance, 2);
    c.geometry.heads = 16;
    c.geometry.kv_lora_rank = 512;
    c.geometry.qk_rope_head_dim = 64;
    c.block.hidden_size = 64;
    c.block.q_lora_rank = 64;
    c.block.qk_nope_head_dim = below(chance, 4) ? 128 : 320; /* too wide to be expanded */
    c.block.v_head_dim = 128;
    c.max_length = lengths[below(chance, COUNT(lengths))];
    c.max_sequences = 1 + below(chance, 300);
    c.page_size = 64;
    c.pages = 20000;
    draw_prompts(chance, &c);
    return c;
}

static void check_and_plan_agree(void **state)
{
    (void)state;
    static const char *const devices[] = {"host", "h200"};
    uint64_t chance = 11;
    uint32_t good = 0, refused = 0;
    for (uint32_t i = 0; i < CONFIGURATIONS; i++) {
        const struct rt_config c = draw(&chance);
        struct rt_error checked = {0}, planned = {0};
        rt_plan *plan = NULL;
        const bool passes = rt_config_check(&c, &checked) == RT_OK;
        const bool served = rt_plan_create(&c, devices[i % 2], &plan, &planned) == RT_OK;
        rt_plan_destroy(&plan);
        if (passes != served)
            fail_msg("configuration %u on %s: checked \"%s\", planned \"%s\"", i, devices[i % 2],
                     checked.message, planned.message);
        good += passes;
        refused += !passes;
    }
    assert_true(good > 50 && refused > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(check_and_plan_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
