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

/* Neither more nor less is refused. */
static void two_others(void **state)
{
    (void)state;
    uint32_t apart_count = 0, interlocked = 0;
    for (uint32_t i = 0; i < 100000; i++) {
        struct rt_strided two[2] = {random_tensor("x"), random_tensor("y")};
        unsigned char painted[BYTES] = {0};
        two[1].address += below(40);
        if (below(2))
            two[1].stride[0] = two[0].stride[0];
        if (rt_strided_check("op", &two[0], NULL) != RT_OK ||
            rt_strided_check("op", &two[1], NULL) != RT_OK)
            continue;
        (void)paint(&two[0], painted);
        const bool apart = paint(&two[1], painted);
        const bool said = rt_strided_check_apart("op", two, 2, NULL) == RT_OK;
        if (said != apart)
            fail_msg("case %u: %s, and are %sapart", i, said ? "taken" : "refused",
                     apart ? "" : "not ");
        apart_count += apart;
        interlocked += apart && two[1].address < two[0].address + two[0].stride[0];
    }
    assert_true(apart_count > 1000 && interlocked > 1000);
}

/* What is read may be the same, and over itself; what is written may be neither. */
static void what_is_only_read(void **state)
{
    (void)state;
    struct rt_error err = {.status = RT_OK};
    struct rt_strided three[3] = {
        {.name = "out", .address = 0x1000, .bytes = 16, .count = {4}, .stride = {64}},
        {.name = "q", .address = 0x1010, .bytes = 32, .count = {4, 9}, .stride = {64, 0}},
        {.name = "k", .address = 0x1010, .bytes = 32, .count = {4, 9}, .stride = {64, 0}},
    };
    assert_int_equal(rt_strided_check_written("op", three, 1, 3, &err), RT_OK);
    assert_int_equal(rt_strided_check_written("op", three, 2, 3, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, "op: q = 0x1010 up to 0x10f0 and k = 0x1010 up to 0x10f0 "
                                     "overlap: must lie apart");
    three[2].address++;
    three[2].bytes = 48;
    assert_int_equal(rt_strided_check_written("op", three, 1, 3, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, "op: out = 0x1000 up to 0x10d0 and k = 0x1011 up to 0x1101 "
                                     "overlap: must lie apart");
}

/* Columns of a buffer of a thousand million vectors are told apart in no time. */
static void many_vectors(void **state)
{
    (void)state;
    struct rt_strided two[2] = {
        {.name = "a",
         .address = 0,
         .bytes = 16,
         .count = {1u << 20, 8, 128},
         .stride = {1u << 20, 1u << 16, 64}},
        {.name = "b",
         .address = 16,
         .bytes = 48,
         .count = {1u << 20, 8, 128},
         .stride = {1u << 20, 1u << 16, 64}},
    };
    assert_int_equal(rt_strided_check_apart("op", two, 2, NULL), RT_OK);
    two[1].bytes++;
    assert_int_equal(rt_strided_check_apart("op", two, 2, NULL), RT_ERR_INVALID);
    two[0].stride[0] = UINT64_C(1) << 45; /* the last half of them is in no memory */
    two[1] = (struct rt_strided){.name = "b", .address = UINT64_C(3) << 62, .bytes = 48};
    assert_int_equal(rt_strided_check_apart("op", two, 2, NULL), RT_ERR_INVALID);
    two[1].address += 16;
    assert_int_equal(rt_strided_check_apart("op", two, 2, NULL), RT_OK);
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
    const struct rt_strided one = {.name = "x", .address = UINT64_MAX - 15, .bytes = 16};
    assert_int_equal(rt_strided_check("op", &one, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, "op: x = 0xfffffffffffffff0, of 16 bytes, leads out of all "
                                     "memory");
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
        cmocka_unit_test(vectors_of_one), cmocka_unit_test(two_that_lie_alike),
        cmocka_unit_test(two_others),     cmocka_unit_test(what_is_only_read),
        cmocka_unit_test(many_vectors),   cmocka_unit_test(what_leads_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
