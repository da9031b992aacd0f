/* SPDX-License-Identifier: Apache-2.0 */
/* What the audit tells of a library's products: their operands, and which their kernels name. */
#include "tests/unit/audit_bench.h"

/* The callback's kernels as those of a library's product: three numbers by two of two, each operand
 * on a page of its own, of which `word` is what the kernels name. */
#define PRODUCT_AT 0x10000u
#define PAGE 0x100u

struct product_bench {
    struct audit_bench a;
    struct rt_work callback;
    struct rt_matmul_plan plan;
};

static struct rt_matmul *open_product(struct product_bench *p, rt_addr word)
{
    memset(p, 0, sizeof(*p));
    open_bench(&p->a, 0, word);
    build(&p->a);
    struct rt_work *const work = p->a.program.stages[2].work;
    p->callback = *work;
    *work = (struct rt_work){.kind = RT_WORK_MATMUL,
                             .matmul = {.a = PRODUCT_AT,
                                        .b = PRODUCT_AT + PAGE,
                                        .d = PRODUCT_AT + 2 * PAGE,
                                        .bias = PRODUCT_AT + 3 * PAGE,
                                        .workspace = PRODUCT_AT + 4 * PAGE,
                                        .workspace_bytes = PAGE,
                                        .input_dtype = RT_DTYPE_BF16,
                                        .weight_dtype = RT_DTYPE_BF16,
                                        .output_dtype = RT_DTYPE_BF16,
                                        .batch = 1,
                                        .m = 2,
                                        .n = 3,
                                        .k = 2,
                                        .a_row_stride = 2,
                                        .b_row_stride = 2,
                                        .b_column_stride = 1,
                                        .d_row_stride = 3,
                                        .plan = &p->plan}};
    p->a.regions[1] =
        (struct rt_audit_region){.base = PRODUCT_AT, .bytes = 5 * PAGE, .name = "pool"};
    p->a.region_count = 2;
    return &work->matmul;
}

static void close_product(struct product_bench *p)
{
    *p->a.program.stages[2].work = p->callback;
    close_bench(&p->a);
}

/* Words of a library's kernels are numbers, or memory of its own, until they are operands. */
static void test_numbers_of_a_library_are_no_addresses(void **state)
{
    (void)state;
    static const rt_addr words[] = {UINT64_C(0x403020100), UINT64_C(0x0706050403020100),
                                    UINT64_C(0x400000040), UINT64_C(0x7f5a02000000)};
    for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        struct product_bench p;
        (void)open_product(&p, words[i]);
        taken_for_an_address = words[i];
        p.a.capture.bench.d.address_range = knows_one;
        assert_passes(&p.a);
        close_product(&p);
    }
}

/* What the way's kernels named when it was tried, its kernels in the graph name too. */
static void test_a_library_names_its_operands(void **state)
{
    (void)state;
    static const struct {
        enum rt_operand_bit bit;
        const char *name;
    } operands[] = {
        {RT_OPERAND_A, "a"}, {RT_OPERAND_B, "b"}, {RT_OPERAND_D, "d"}, {RT_OPERAND_BIAS, "bias"}};
    struct product_bench p;
    rt_addr freed;
    for (uint32_t i = 0; i < 4; i++) {
        const rt_addr at = PRODUCT_AT + i * PAGE;
        char text[512];
        (void)open_product(&p, at);
        p.plan.named = operands[i].bit;
        assert_passes(&p.a);
        close_product(&p);

        (void)open_product(&p, at + 16); /* another product's, or from another time */
        p.plan.named = operands[i].bit;
        (void)snprintf(text, sizeof(text),
                       "graph (batch 8, query length 1), stage \"after.3\", matmul: none of its "
                       "kernels names %s, 0x%" PRIx64 ", as those of the same way have done",
                       operands[i].name, at);
        assert_fails(&p.a, text);
        p.plan.named = 0; /* a way that has them in tensor maps, say */
        assert_passes(&p.a);
        close_product(&p);
    }
    (void)open_product(&p, 0);
    struct host_bench *const b = &p.a.capture.bench;
    assert_int_equal(b->d.mem_alloc(&b->d, 64, &freed), 0);
    assert_int_equal(b->d.mem_free(&b->d, freed), 0);
    close_product(&p);
    (void)open_product(&p, freed);
    p.plan.named = RT_OPERAND_D;
    assert_fails(&p.a, "graph (batch 8, query length 1), stage \"after.3\", matmul: none of its "
                       "kernels names d, 0x10200, as those of the same way have done");
    close_product(&p);
}

/* To the last byte, of each. */
static void test_operands_of_a_library_are_registered(void **state)
{
    (void)state;
    struct product_bench p;
    struct rt_matmul *m = open_product(&p, 0);
    m->bias = PRODUCT_AT + 5 * PAGE - 4;
    assert_fails(&p.a, "graph (batch 8, query length 1), stage \"after.3\", matmul: bias, 6 bytes "
                       "at 0x104fc, lies in no registered allocation");
    m->bias = 0;
    assert_passes(&p.a);
    m->d = PRODUCT_AT + 5 * PAGE - 12;
    assert_passes(&p.a);
    m->d += 2;
    assert_fails(&p.a, "graph (batch 8, query length 1), stage \"after.3\", matmul: d, 12 bytes at "
                       "0x104f6, lies in no registered allocation");
    m->d = PRODUCT_AT;
    m->workspace += PAGE;
    assert_fails(&p.a, "graph (batch 8, query length 1), stage \"after.3\", matmul: workspace, 256 "
                       "bytes at 0x10500, lies in no registered allocation");
    close_product(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_of_a_library_are_no_addresses),
        cmocka_unit_test(test_a_library_names_its_operands),
        cmocka_unit_test(test_operands_of_a_library_are_registered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
