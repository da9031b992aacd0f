/* SPDX-License-Identifier: Apache-2.0 */
/* Products on CUDA, with stand-ins for the driver's library and for cuBLASLt. */
#include "graphs/audit.h"
#include "graphs/dump.h"

#include "runtime/fastest.h"
#include "tests/unit/blas_bench.h"

#include <stdio.h>

static void assert_names(const struct rt_error *err, const char *part)
{
    if (!strstr(err->message, part))
        fail_msg("\"%s\" does not contain \"%s\"", err->message, part);
}

/* ---- what the library is asked ---- */

static void assert_layout(const struct fake_layout *l, cudaDataType type, uint64_t rows,
                          uint64_t columns, int64_t pitch, int32_t batch, int64_t batch_stride)
{
    assert_int_equal(l->type, type);
    assert_int_equal(l->rows, rows);
    assert_int_equal(l->columns, columns);
    assert_int_equal(l->pitch, pitch);
    assert_int_equal(l->batch, batch);
    assert_int_equal(l->batch_stride, batch_stride);
}

static void assert_operation(cublasOperation_t weight, const void *bias, int32_t bias_type)
{
    const struct fake_operation *const o = &fake_blas.asked.operation;
    assert_int_equal(o->compute, CUBLAS_COMPUTE_32F);
    assert_int_equal(o->scale, CUDA_R_32F);
    assert_int_equal(o->trans_a, weight);
    assert_int_equal(o->trans_b, CUBLAS_OP_N);
    assert_int_equal(o->epilogue, bias ? CUBLASLT_EPILOGUE_BIAS : CUBLASLT_EPILOGUE_DEFAULT);
    assert_ptr_equal(o->bias, bias);
    assert_int_equal(o->bias_type, bias_type);
}

static void assert_preference(uint64_t workspace, uint32_t a, uint32_t b, uint32_t d)
{
    const struct fake_preference *const p = &fake_blas.preference;
    assert_int_equal(p->workspace_bytes, workspace);
    assert_int_equal(p->reductions, CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
    assert_int_equal(p->align_a, a);
    assert_int_equal(p->align_b, b);
    assert_int_equal(p->align_c, d);
    assert_int_equal(p->align_d, d);
}

/* Asks, and leaves what was asked in fake_blas. */
static void ask(struct blas_bench *b, const struct rt_matmul *m, uint32_t most)
{
    struct rt_matmul_plan *plan = blas_bench_prepare(b, m, most);
    assert_int_equal(fake_blas.most, most);
    assert_int_equal(fake_blas.objects, 4);
    assert_int_equal(b->d.matmul_release(&b->d, plan), 0);
    assert_int_equal(fake_blas.objects, 0);
}

static void test_plain_product(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    m.a_row_stride = 24;
    m.d_row_stride = 10;
    m.workspace_bytes = 12345;
    ask(&b, &m, 7);
    assert_operation(CUBLAS_OP_T, NULL, -1);
    assert_layout(&fake_blas.asked.a, CUDA_R_16BF, 8, 6, 8, 1, 0);
    assert_layout(&fake_blas.asked.b, CUDA_R_16BF, 8, 4, 24, 1, 0);
    assert_layout(&fake_blas.asked.d, CUDA_R_16BF, 6, 4, 10, 1, 0);
    assert_preference(12345, 16, 16, 4);

    m.output_dtype = RT_DTYPE_F32; /* of one row the strides are nothing */
    m.m = 1;
    m.a_row_stride = m.d_row_stride = 0;
    m.a += 2;
    m.workspace_bytes = 0;
    ask(&b, &m, 1);
    assert_layout(&fake_blas.asked.b, CUDA_R_16BF, 8, 1, 8, 1, 0);
    assert_layout(&fake_blas.asked.d, CUDA_R_32F, 6, 1, 6, 1, 0);
    assert_preference(0, 16, 2, 256);
    blas_bench_close(&b);
}

static void test_f32_product(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    struct rt_matmul m = blas_bench_product(&b, 3, 5, 4);
    m.input_dtype = m.weight_dtype = m.output_dtype = RT_DTYPE_F32;
    m.bias = b.mem + BIAS_AT + 4;
    ask(&b, &m, 1);
    assert_operation(CUBLAS_OP_T, (const void *)(uintptr_t)m.bias, CUDA_R_32F);
    assert_layout(&fake_blas.asked.a, CUDA_R_32F, 4, 5, 4, 1, 0);
    assert_layout(&fake_blas.asked.b, CUDA_R_32F, 4, 3, 4, 1, 0);
    assert_layout(&fake_blas.asked.d, CUDA_R_32F, 5, 3, 5, 1, 0);
    assert_preference(0, 16, 16, 4);
    blas_bench_close(&b);
}

/* As W_UK: a head's weight [k, n] takes its part of q, the result lies in q's wider rows. */
static void test_batched_product_of_a_weight_across(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    struct rt_matmul m = blas_bench_product(&b, 2, 6, 4);
    m.batch = 3;
    m.a_batch_stride = 4;
    m.a_row_stride = 12;
    m.b_batch_stride = 32;
    m.b_row_stride = 1;
    m.b_column_stride = 8;
    m.d_batch_stride = 8;
    m.d_row_stride = 24;
    ask(&b, &m, 3);
    assert_operation(CUBLAS_OP_N, NULL, -1);
    assert_layout(&fake_blas.asked.a, CUDA_R_16BF, 6, 4, 8, 3, 32);
    assert_layout(&fake_blas.asked.b, CUDA_R_16BF, 4, 2, 12, 3, 4);
    assert_layout(&fake_blas.asked.d, CUDA_R_16BF, 6, 2, 24, 3, 8);
    assert_preference(0, 16, 8, 16);
    blas_bench_close(&b);
}

static void test_bias(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    m.bias = b.mem + BIAS_AT;
    ask(&b, &m, 1);
    assert_operation(CUBLAS_OP_T, (const void *)(uintptr_t)m.bias, CUDA_R_16BF);
    blas_bench_close(&b);
}

static void assert_prepare_fails(struct blas_bench *b, const struct rt_matmul *m, int code)
{
    struct rt_matmul_plan *plan = NULL;
    assert_int_equal(b->d.matmul_prepare(&b->d, m, 4, &plan), code);
    assert_null(plan);
    assert_int_equal(fake_blas.objects, 0);
}

static void test_refused_products(void **state)
{
    (void)state;
    struct blas_bench b;
    struct rt_matmul_plan *plan = NULL;
    blas_bench_open(&b);
    const struct rt_matmul good = blas_bench_product(&b, 4, 6, 8);
    struct rt_matmul m = good;
    m.input_dtype = RT_DTYPE_F32;
    assert_prepare_fails(&b, &m, RT_CUDA_PRODUCT_DTYPES);
    m.output_dtype = RT_DTYPE_F32;
    assert_prepare_fails(&b, &m, RT_CUDA_PRODUCT_DTYPES);
    m.weight_dtype = RT_DTYPE_F32;
    m.output_dtype = RT_DTYPE_BF16;
    assert_prepare_fails(&b, &m, RT_CUDA_PRODUCT_DTYPES);
    m = good;
    m.output_dtype = RT_DTYPE_F32;
    m.bias = b.mem + BIAS_AT;
    assert_prepare_fails(&b, &m, RT_CUDA_PRODUCT_DTYPES);
    struct rt_error err = {.status = RT_OK};
    assert_int_equal(RT_DRV(&b.d, &err, matmul_prepare, (&b.d, &m, 1, &plan)), RT_ERR_DRIVER);
    assert_names(&err, "matmul_prepare failed: RT_CUDA_PRODUCT_DTYPES (2001000): cuBLASLt is given "
                       "bf16 by bf16 to bf16 or f32, or f32 throughout, and a bias where the "
                       "result has its dtype [unit/blas.c:");
    m = good;
    m.a_row_stride = 7;
    assert_prepare_fails(&b, &m, CUDA_ERROR_INVALID_VALUE);
    m = good;
    m.m = 0;
    assert_prepare_fails(&b, &m, CUDA_ERROR_INVALID_VALUE);
    assert_prepare_fails(&b, NULL, CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(b.d.matmul_prepare(&b.d, &good, 0, &plan), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(b.d.matmul_prepare(&b.d, &good, INT32_MAX + 1u, &plan),
                     CUDA_ERROR_INVALID_VALUE);
    blas_bench_close(&b);
}

/* ---- ways ---- */

static void test_ways_and_their_text(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    static const struct fake_way ways[] = {
        {.number = 66, .tile = 15, .stages = 36, .cluster = 3, .workspace_bytes = 1 << 20},
        {.number = 1, .state = CUBLAS_STATUS_NOT_SUPPORTED},
        {.number = 21, .tile = 393, .stages = 16, .split = 5, .workspace_bytes = 1258291},
        {.number = 2, .workspace_bytes = 4 << 20}, /* more than there is */
        {.number = 3, .tile = 9999, .stages = 29, .cluster = 999, .workspace_bytes = 16},
        {.number = 4, .split = 1, .swizzle = 1, .option = 12, .stages = 25, .cluster = 1}};
    static const char *const texts[] = {
        "algo 66, tile 64x64, stages 128xauto, cluster 2x1, 1.0 MiB workspace",
        "algo 21, tile 128x8, stages 64x4, split-K 5, 1.2 MiB workspace",
        "algo 3, tile number 9999, stages number 29, cluster number 999, 16 bytes workspace",
        "algo 4, stages 32x10, swizzle 1, option 12"};
    memcpy(fake_blas.ways, ways, sizeof(ways));
    fake_blas.way_count = 6;
    struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    m.workspace_bytes = 2 << 20;
    struct rt_matmul_plan *plan = blas_bench_prepare(&b, &m, 100);
    assert_int_equal(plan->candidates, 4);
    assert_int_equal(plan->selected, 0);
    assert_string_equal(plan->text, texts[0]);
    for (uint32_t i = 4; i-- > 0;) {
        assert_int_equal(b.d.matmul_select(&b.d, plan, i), 0);
        assert_int_equal(plan->selected, i);
        assert_string_equal(plan->text, texts[i]);
    }
    assert_int_equal(plan->workspace_bytes, 1 << 20);
    assert_int_equal(b.d.matmul_select(&b.d, plan, 4), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(b.d.matmul_select(&b.d, NULL, 0), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(plan->selected, 0);
    assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
    assert_int_equal(b.d.matmul_release(&b.d, NULL), CUDA_ERROR_INVALID_HANDLE);

    plan = blas_bench_prepare(&b, &m, 3); /* of which one is none */
    assert_int_equal(plan->candidates, 2);
    assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
    blas_bench_close(&b);
}

/* All that tells two ways apart is part of their identity, and nothing else is. */
static void test_ways_and_their_identity(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    static const struct fake_way ways[] = {
        {.number = 66, .tile = 15, .stages = 36, .inner_shape = 4, .cluster = 3, .split = 2},
        {.number = 67, .tile = 15, .stages = 36, .inner_shape = 4, .cluster = 3, .split = 2},
        {.number = 66, .tile = 16, .stages = 36, .inner_shape = 4, .cluster = 3, .split = 2},
        {.number = 66, .tile = 15, .stages = 35, .inner_shape = 4, .cluster = 3, .split = 2},
        {.number = 66, .tile = 15, .stages = 36, .inner_shape = 3, .cluster = 3, .split = 2},
        {.number = 66, .tile = 15, .stages = 36, .inner_shape = 4, .cluster = 2, .split = 2},
        {.number = 66, .tile = 15, .stages = 36, .inner_shape = 4, .cluster = 3, .split = 3}};
    struct fake_way last[] = {ways[0], ways[0], ways[0], ways[0]};
    const struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    uint32_t seen[11][RT_MATMUL_IDENTITY_WORDS];
    last[0].reduction = 2;
    last[1].swizzle = 1;
    last[2].option = 1;
    for (int i = 0; i < 11; i++) {
        fake_blas.ways[0] = i < 7 ? ways[i] : last[i - 7];
        fake_blas.version = i < 10 ? 130100 : 130101;
        struct rt_matmul_plan *plan = blas_bench_prepare(&b, &m, 1);
        memcpy(seen[i], plan->identity, sizeof(seen[i]));
        for (int j = 0; j < i; j++)
            assert_memory_not_equal(seen[j], seen[i], sizeof(seen[i]));
        assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
    }
    fake_blas.version = 130100;
    fake_blas.ways[0] = ways[0];
    struct rt_matmul_plan *plan = blas_bench_prepare(&b, &m, 1);
    assert_memory_equal(plan->identity, seen[0], sizeof(seen[0]));
    assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
    blas_bench_close(&b);
}

/* The numbers of tiles are the header's: ends of the runs, and what the runs leave out. */
static void test_tile_numbers(void **state)
{
    (void)state;
    static const struct {
        uint32_t number;
        const char *text;
    } tiles[] = {{1, "8x8"},         {CUBLASLT_MATMUL_TILE_128x256, "128x256"},
                 {35, "256x32"},     {36, "8x128"},
                 {47, "16x64"},      {58, "16x768"},
                 {71, "32x192"},     {79, "32x768"},
                 {116, "64x192"},    {123, "64x768"},
                 {133, "72x640"},    {151, "96x192"},
                 {176, "128x320"},   {232, "256x192"},
                 {279, "504x64"},    {280, "520x64"},
                 {311, "768x64"},    {312, "64x16"},
                 {392, "64x760"},    {393, "128x8"},
                 {447, "128x512"},   {448, "192x8"},
                 {513, "256x256"},   {556, "448x8"},
                 {588, "576x8"},     {630, "768x80"},
                 {631, "number 631"}};
    struct blas_bench b;
    blas_bench_open(&b);
    const struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    for (size_t i = 0; i < sizeof(tiles) / sizeof(tiles[0]); i++) {
        char text[64];
        fake_blas.ways[0] = (struct fake_way){.number = 7, .tile = tiles[i].number};
        struct rt_matmul_plan *plan = blas_bench_prepare(&b, &m, 1);
        snprintf(text, sizeof(text), "algo 7, tile %s", tiles[i].text);
        assert_string_equal(plan->text, text);
        assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
    }
    blas_bench_close(&b);
}

static void test_no_way(void **state)
{
    (void)state;
    struct blas_bench b;
    struct rt_error err = {.status = RT_OK};
    struct rt_matmul_plan *plan = NULL;
    blas_bench_open(&b);
    const struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    fake_blas.ways[0].workspace_bytes = 1;
    assert_int_equal(RT_DRV(&b.d, &err, matmul_prepare, (&b.d, &m, 1, &plan)), RT_ERR_DRIVER);
    assert_names(&err, "matmul_prepare failed: CUBLAS_STATUS_NOT_SUPPORTED (15): something else [");
    assert_null(plan);
    assert_int_equal(fake_blas.objects, 0);
    blas_bench_close(&b);
}

/* ---- products ---- */

static void test_product_takes_all_it_is_given(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    fake_blas.ways[0].workspace_bytes = 256;
    fake_blas.ways[1] = (struct fake_way){.number = 67, .workspace_bytes = 512};
    fake_blas.way_count = 2;
    struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    m.bias = b.mem + BIAS_AT;
    m.workspace = b.mem + WORKSPACE_AT;
    m.workspace_bytes = 1024;
    struct rt_matmul_plan *plan = blas_bench_prepare(&b, &m, 2);
    m.plan = plan;
    for (uint32_t i = 0; i < 2; i++) { /* another layer's addresses, too */
        assert_int_equal(b.d.matmul_select(&b.d, plan, i), 0);
        m.a += 256 * i;
        m.b += 256 * i;
        m.d += 256 * i;
        m.bias += 256 * i;
        assert_int_equal(b.d.matmul(&b.d, &m, b.s), 0);
        assert_int_equal(fake_blas.way, i);
        assert_ptr_equal(fake_blas.a, (const void *)(uintptr_t)m.b);
        assert_ptr_equal(fake_blas.b, (const void *)(uintptr_t)m.a);
        assert_ptr_equal(fake_blas.c, (const void *)(uintptr_t)m.d);
        assert_ptr_equal(fake_blas.d, (const void *)(uintptr_t)m.d);
        assert_ptr_equal(fake_blas.done.operation.bias, (const void *)(uintptr_t)m.bias);
        assert_ptr_equal(fake_blas.workspace, (const void *)(uintptr_t)m.workspace);
        assert_int_equal(fake_blas.workspace_bytes, 1024);
        assert_true(fake_blas.alpha == 1 && fake_blas.beta == 0);
        assert_ptr_equal(fake_blas.stream, (const void *)b.s);
    }
    assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
    blas_bench_close(&b);
}

static void test_products_without_a_fitting_plan(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    fake_blas.ways[0].workspace_bytes = 256;
    struct rt_matmul good = blas_bench_product(&b, 4, 6, 8);
    good.workspace = b.mem + WORKSPACE_AT;
    good.workspace_bytes = 256;
    struct rt_matmul_plan *plan = blas_bench_prepare(&b, &good, 1);
    assert_int_equal(b.d.matmul(&b.d, &good, b.s), CUDA_ERROR_INVALID_VALUE);
    good.plan = plan;
    struct rt_matmul m = good;
    m.m = 3;
    assert_int_equal(b.d.matmul(&b.d, &m, b.s), CUDA_ERROR_INVALID_VALUE);
    m = good;
    m.workspace_bytes = 255;
    assert_int_equal(b.d.matmul(&b.d, &m, b.s), CUDA_ERROR_INVALID_VALUE);
    assert_int_equal(b.d.matmul(&b.d, NULL, b.s), CUDA_ERROR_INVALID_VALUE);
    assert_null(fake_blas.d);
    assert_int_equal(b.d.matmul(&b.d, &good, b.s), 0);
    struct rt_matmul none = blas_bench_product(&b, 0, 6, 8); /* no work wants no plan */
    fake_blas.d = NULL;
    assert_int_equal(b.d.matmul(&b.d, &none, b.s), 0);
    assert_null(fake_blas.d);
    assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
    blas_bench_close(&b);
}

/* By the library's own reading of what it was told: equal to the host device's. */
static void test_products_agree_with_the_twin(void **state)
{
    (void)state;
    struct blas_bench b;
    blas_bench_open(&b);
    for (int which = 0; which < BLAS_BENCH_SHAPES; which++) {
        struct rt_matmul m = blas_bench_shape(&b, which);
        struct rt_matmul_plan *plan = blas_bench_prepare(&b, &m, 1);
        m.plan = plan;
        assert_int_equal(b.d.matmul(&b.d, &m, b.s), 0);
        assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
        m.plan = NULL;
        blas_bench_assert_twin(&b, &m, which);
    }
    blas_bench_close(&b);
}

/* ---- in a graph ---- */

struct graph_life {
    struct blas_bench b;
    struct rt_matmul_plan *plan;
    struct rt_program program;
    struct rt_graph graph;
};

static void graph_open(struct graph_life *l)
{
    memset(l, 0, sizeof(*l));
    blas_bench_open(&l->b);
    struct rt_work work = {.kind = RT_WORK_MATMUL, .matmul = blas_bench_product(&l->b, 4, 6, 8)};
    l->plan = blas_bench_prepare(&l->b, &work.matmul, 1);
    work.matmul.plan = l->plan;
    l->program = (struct rt_program){
        .spec = {.phase = RT_PHASE_DECODE, .rows = 4, .tokens = 4, .decode_rows = 4}};
    assert_int_equal(rt_program_add(&l->program, "o_proj.0", 0, &work, NULL), RT_OK);
    work.matmul.d += 256;
    assert_int_equal(rt_program_add(&l->program, "o_proj.1", 1, &work, NULL), RT_OK);
    assert_int_equal(rt_graph_build(&l->program, &l->b.d, l->b.s, &l->graph, NULL), RT_OK);
}

static void graph_close(struct graph_life *l)
{
    rt_graph_free(&l->graph, &l->b.d);
    rt_program_free(&l->program);
    assert_int_equal(l->b.d.matmul_release(&l->b.d, l->plan), 0);
    blas_bench_close(&l->b);
}

static void test_capture(void **state)
{
    (void)state;
    struct graph_life l;
    char dot[2048];
    graph_open(&l);
    struct rt_driver *const d = &l.b.d;
    assert_int_equal(l.graph.node_count, 2);
    assert_ptr_equal(fake_blas.stream, (const void *)l.b.s);
    struct rt_audit_region region = {.base = l.b.mem, .bytes = MEM_BYTES, .name = "arena"};
    assert_int_equal(rt_graph_audit(&l.graph, &l.program, d, &region, 1, NULL), RT_OK);
    assert_int_equal(rt_graph_instantiate(&l.graph, d, l.b.s, NULL), RT_OK);
    assert_int_equal(d->graph_launch(d, l.graph.exec, l.b.s), 0);

    /* The operands are looked at whole, and the kernels' words as far as the way had them. */
    struct rt_error err = {.status = RT_OK};
    region.bytes = D_AT;
    assert_int_equal(rt_graph_audit(&l.graph, &l.program, d, &region, 1, &err), RT_ERR_AUDIT);
    assert_names(&err, "stage \"o_proj.0\", matmul: d, 48 bytes at 0x");
    region.bytes = D_AT + 256;
    assert_int_equal(rt_graph_audit(&l.graph, &l.program, d, &region, 1, &err), RT_ERR_AUDIT);
    assert_names(&err, "stage \"o_proj.1\", matmul: d, 48 bytes at 0x");
    region.bytes = MEM_BYTES;
    l.plan->named = RT_OPERAND_D;
    assert_int_equal(rt_graph_audit(&l.graph, &l.program, d, &region, 1, &err), RT_OK);
    l.plan->named = RT_OPERAND_D | RT_OPERAND_B;
    assert_int_equal(rt_graph_audit(&l.graph, &l.program, d, &region, 1, &err), RT_ERR_AUDIT);
    assert_names(&err, "stage \"o_proj.0\", matmul: none of its kernels names b, 0x");
    assert_int_equal(d->matmul_select(d, l.plan, 0), 0);
    assert_int_equal(l.plan->named, 0);

    (void)rt_program_dot(&l.program, dot, sizeof(dot));
    assert_non_null(strstr(dot, "o_proj.0\\nmatmul\\n1 x [4, 8] by [6, 8], bf16 to bf16\\n"
                                "algo 66\""));
    graph_close(&l);
}

static void test_audit_wants_kernels(void **state)
{
    (void)state;
    struct graph_life l;
    struct rt_graph again;
    struct rt_error err = {.status = RT_OK};
    graph_open(&l);
    const struct rt_audit_region region = {.base = l.b.mem, .bytes = MEM_BYTES, .name = "arena"};
    fake_blas.fills = true;
    assert_int_equal(rt_graph_build(&l.program, &l.b.d, l.b.s, &again, NULL), RT_OK);
    assert_int_equal(again.node_count, 4);
    assert_int_equal(rt_graph_audit(&again, &l.program, &l.b.d, &region, 1, &err), RT_ERR_AUDIT);
    assert_names(&err, "stage \"o_proj.0\": memset node, only kernels may be in the graph");
    rt_graph_free(&again, &l.b.d);
    graph_close(&l);
}

/* Trying a way tells which operands its kernels name, d alone here; a graph is held to that. */
static void test_a_trial_sees_what_is_named(void **state)
{
    (void)state;
    struct blas_bench b;
    struct rt_timed_ways timed;
    blas_bench_open(&b);
    struct rt_matmul m = blas_bench_product(&b, 4, 6, 8);
    const struct rt_matmul *const layers[] = {&m};
    fake_blas.ways[1] = (struct fake_way){.number = 67};
    fake_blas.way_count = 2;
    struct rt_matmul_plan *plan = blas_bench_prepare(&b, &m, 2);
    assert_int_equal(rt_fastest_time(&b.d, b.s, layers, 1, plan, &timed, NULL), RT_OK);
    assert_int_equal(timed.count, 2);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(timed.ways[i].named, RT_OPERAND_D);
        assert_int_equal(rt_fastest_pick(&b.d, plan, &timed.ways[i], NULL), RT_OK);
        assert_int_equal(plan->named, RT_OPERAND_D);
        assert_int_equal(plan->selected, i);
        assert_memory_equal(timed.ways[i].identity, plan->identity, sizeof(plan->identity));
    }
    assert_int_equal(b.d.matmul_release(&b.d, plan), 0);
    blas_bench_close(&b);
}

static void test_capture_that_fails_is_ended(void **state)
{
    (void)state;
    struct graph_life l;
    struct rt_graph again;
    struct rt_error err = {.status = RT_OK};
    graph_open(&l);
    const uint64_t alive = l.b.d.probe.live;
    fake_blas.fail_at = fake_blas.calls + 2;
    assert_int_equal(rt_graph_build(&l.program, &l.b.d, l.b.s, &again, &err), RT_ERR_DRIVER);
    assert_names(&err, "stage \"o_proj.1\": matmul failed: CUBLAS_STATUS_INTERNAL_ERROR (14): ");
    assert_int_equal(l.b.d.probe.live, alive);
    graph_close(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_product),
        cmocka_unit_test(test_f32_product),
        cmocka_unit_test(test_batched_product_of_a_weight_across),
        cmocka_unit_test(test_bias),
        cmocka_unit_test(test_refused_products),
        cmocka_unit_test(test_ways_and_their_text),
        cmocka_unit_test(test_ways_and_their_identity),
        cmocka_unit_test(test_tile_numbers),
        cmocka_unit_test(test_no_way),
        cmocka_unit_test(test_product_takes_all_it_is_given),
        cmocka_unit_test(test_products_without_a_fitting_plan),
        cmocka_unit_test(test_products_agree_with_the_twin),
        cmocka_unit_test(test_capture),
        cmocka_unit_test(test_audit_wants_kernels),
        cmocka_unit_test(test_a_trial_sees_what_is_named),
        cmocka_unit_test(test_capture_that_fails_is_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
