/* SPDX-License-Identifier: Apache-2.0 */
/* Who multiplies: every limit of auto, and one beside it. */
#include "runtime/multiply.h"
#include "tests/support/device_caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#define LIMIT (UINT64_C(40) << 20)

struct asked {
    uint32_t vectors;
    uint64_t weight_bytes, rows;
    bool streams;
    bool library;
    const char *words;
    uint32_t heads, k; /* 0: one, of one number */
};

static void expect(enum rt_projections projections, const struct rt_device_caps *caps,
                   const struct asked *a, const char *only_own)
{
    const struct rt_multiplication product = {.vectors = a->vectors,
                                              .heads = a->heads ? a->heads : 1,
                                              .vector_bytes = 2 * (a->k ? a->k : 1),
                                              .weight_bytes = a->weight_bytes,
                                              .rows = a->rows,
                                              .streams = a->streams,
                                              .only_own = only_own};
    const char *reason = NULL;
    assert_int_equal(rt_multiply_by_library(projections, caps, &product, &reason), a->library);
    if (!strstr(reason, a->words))
        fail_msg("\"%s\" does not say \"%s\"", reason, a->words);
}

/* Of an H200 with the library. */
static void test_auto(void **state)
{
    (void)state;
    static const struct asked cases[] = {
        {1, LIMIT, 99999, true, false, "few vectors"},
        {16, LIMIT, 99999, false, false, "few vectors"},
        {17, LIMIT, 1, false, true, "many vectors"},
        {17, LIMIT, 8449, true, false, "short vectors", 1, 3855},
        {17, LIMIT, 8449, true, true, "many vectors", 1, 3856},
        {17, LIMIT, 8448, true, false, "short vectors", 1, 7710},
        {17, LIMIT, 8448, true, true, "many vectors", 1, 7711},
        {17, LIMIT + 1, 1, true, true, "a large weight", 1, 2048},
        {32, LIMIT, 99999, true, false, "short vectors", 1, 2048},
        {32, LIMIT, 99999, true, true, "many vectors", 1, 2049},
        {32, LIMIT, 1, true, false, "short vectors", 1, 4096},
        {32, LIMIT, 1, true, true, "many vectors", 1, 4097},
        {32, LIMIT, 1, true, false, "short vectors", 32, 128},
        {32, LIMIT, 1, true, true, "many vectors", 33, 128},
        {64, LIMIT, 99999, true, false, "short vectors", 1, 1024},
        {64, LIMIT, 99999, true, true, "many vectors", 1, 1025},
        {64, LIMIT, 7168, true, false, "short vectors", 1, 2048},
        {64, LIMIT, 7168, true, true, "many vectors", 1, 2049},
        {64, LIMIT, 1, true, false, "short vectors", 16, 128},
        {65, LIMIT, 1, true, true, "many vectors", 1, 128},
        {1, LIMIT + 1, 256 * 132, true, false, "few vectors"},
        {1, LIMIT + 1, 256 * 132 + 1, true, true, "a large weight"},
        {8, 16384 * 7168 * 2, 7168, true, false, "few vectors"},
        {9, 16384 * 7168 * 2, 7168, true, true, "a large weight"},
        {8, 16384 * 7168 * 2, 7168, false, true, "a large weight"},
    };
    struct rt_device_caps caps = h200;
    caps.has_blas = true;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        expect(RT_PROJECTIONS_AUTO, &caps, &cases[i], NULL);
}

/* What is asked for, what cannot be otherwise, and devices that have no choice. */
static void test_no_choice(void **state)
{
    (void)state;
    const struct asked few = {1, 1, 1, true, false, ""}, many = {64, LIMIT + 1, 1, true, true, ""};
    struct asked a = many;
    struct rt_device_caps caps = h200;
    a.library = false;
    a.words = "there is no cuBLASLt";
    expect(RT_PROJECTIONS_AUTO, &caps, &a, NULL);
    caps.has_blas = true;
    a.words = "because";
    expect(RT_PROJECTIONS_AUTO, &caps, &a, "because");
    a.words = "asked for";
    expect(RT_PROJECTIONS_OWN, &caps, &a, NULL);
    a.words = "plain C on the host device";
    expect(RT_PROJECTIONS_AUTO, &host, &a, NULL);
    a = few;
    a.library = true;
    a.words = "asked for";
    expect(RT_PROJECTIONS_CUBLASLT, &caps, &a, NULL);
    expect(RT_PROJECTIONS_CUBLASLT, &host, &a, NULL);
    caps = l40;
    caps.has_blas = true;
    a.words = "no kernel of our own is tuned";
    expect(RT_PROJECTIONS_AUTO, &caps, &a, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_auto),
        cmocka_unit_test(test_no_choice),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
