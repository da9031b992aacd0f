/* SPDX-License-Identifier: Apache-2.0 */
/* Vectors that lie apart, by arithmetic on strides: against a look at every byte. */
#include "runtime/strided.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define BASE 64
#define BYTES 1024 /* what two tensors here can reach */

static uint64_t chance = 17;

static uint32_t below(uint32_t n)
{
    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((chance >> 33) % n);
}

static struct rt_strided random_tensor(const char *name)
{
    return (struct rt_strided){.name = name,
                               .address = BASE + below(24),
                               .bytes = 1 + below(4),
                               .count = {1 + below(3), 1 + below(3), 1 + below(2)},
                               .stride = {below(40), below(24), below(12)},
                               .stride_name = {"first", "second", "third"}};
}

/* How often each byte is a vector's; true where none is twice. */
static bool paint(const struct rt_strided *s, unsigned char painted[BYTES])
{
    bool apart = true;
    for (uint32_t i = 0; i < s->count[0]; i++)
        for (uint32_t j = 0; j < s->count[1]; j++)
            for (uint32_t k = 0; k < s->count[2]; k++)
                for (uint64_t b = 0; b < s->bytes; b++)
                    apart &= painted[s->address + i * s->stride[0] + j * s->stride[1] +
                                     k * s->stride[2] + b]++ == 0;
    return apart;
}

/* What is taken for apart is; nested strides, as every tensor in use has them, are taken. */
static void vectors_of_one(void **state)
{
    (void)state;
    uint32_t taken = 0, refused = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        const struct rt_strided s = random_tensor("x");
        unsigned char painted[BYTES] = {0};
        const bool apart = paint(&s, painted);
        const bool said = rt_strided_check("op", &s, NULL) == RT_OK;
        if (said && !apart)
            fail_msg("case %u: vectors overlap and are taken", i);
        taken += said;
        refused += !said && apart; /* strides that interlock without one being within another */
    }
    assert_true(taken > 10000 && refused < taken / 4);
}

/* Two rows of vectors that lie alike: neither more nor less is refused. */
static void two_that_lie_alike(void **state)
{
    (void)state;
    uint32_t apart_count = 0, overlapping = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        struct rt_strided two[2] = {random_tensor("x"), {.name = "y"}};
        unsigned char painted[BYTES] = {0};
        two[0].count[1] = two[0].count[2] = 1;
        two[0].count[0] += below(8);
        if (rt_strided_check("op", &two[0], NULL) != RT_OK)
            continue;
        two[1] = two[0];
        two[1].address = BASE + below(300);
        (void)paint(&two[0], painted);
        const bool apart = paint(&two[1], painted);
        struct rt_error err = {.status = RT_OK};
        const bool said = rt_strided_check_apart("op", two, 2, &err) == RT_OK;
        if (said != apart)
            fail_msg("case %u: %s, and are %sapart", i, said ? "taken" : err.message,
                     apart ? "" : "not ");
        apart_count += apart;
        overlapping += !apart;
    }
    assert_true(apart_count > 1000 && overlapping > 1000);
}

/* Of two others what is refused overlaps; and always what begins at the same place. */
static void two_others(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 100000; i++) {
        struct rt_strided two[2] = {random_tensor("x"), random_tensor("y")};
        unsigned char painted[BYTES] = {0};
        if (rt_strided_check("op", &two[0], NULL) != RT_OK ||
            rt_strided_check("op", &two[1], NULL) != RT_OK)
            continue;
        (void)paint(&two[0], painted);
        const bool apart = paint(&two[1], painted);
        const bool said = rt_strided_check_apart("op", two, 2, NULL) == RT_OK;
        if (!said && apart)
            fail_msg("case %u: apart, and refused", i);
        if (said && two[0].address == two[1].address)
            fail_msg("case %u: one address, and taken", i);
    }
}

static void what_leads_out_of_memory(void **state)
{
    (void)state;
    struct rt_error err = {.status = RT_OK};
    struct rt_strided s = {.name = "x",
                           .address = 16,
                           .bytes = 16,
                           .count = {1u << 31, 1u << 31, 1},
                           .stride = {UINT64_C(1) << 41, 16, 0},
                           .stride_name = {"rows", "tokens", "heads"}};
    assert_int_equal(rt_strided_check("op", &s, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, "op: 2147483648 times rows of x, 2199023255552 bytes, lead "
                                     "out of all memory");
    s.count[0] = 2;
    assert_int_equal(rt_strided_check("op", &s, &err), RT_OK);
    s.stride[1] = 15;
    assert_int_equal(rt_strided_check("op", &s, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, "op: tokens of x leads 15 bytes on, of which 16 are taken: "
                                     "vectors overlap");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_one),
        cmocka_unit_test(two_that_lie_alike),
        cmocka_unit_test(two_others),
        cmocka_unit_test(what_leads_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
