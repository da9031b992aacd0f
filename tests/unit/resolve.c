/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/abi/attend.h"
#include "kernels/abi/project.h"
#include "kernels/op.h"
#include "tests/support/device_caps.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* What a test asks for: the request's format is made of it. */
struct wanted {
    uint32_t heads, q_len, d_qk, d_v, page_size;
    enum rt_kv_layout kv_layout;
    enum rt_backend backend;
    uint32_t small_tile_rows;
};

static struct wanted request(uint32_t heads, uint32_t q_len, enum rt_backend backend)
{
    return (struct wanted){.heads = heads,
                           .d_qk = 576,
                           .d_v = 512,
                           .q_len = q_len,
                           .page_size = 64,
                           .kv_layout = RT_KV_BF16,
                           .backend = backend};
}

static enum rt_status ask(const struct rt_device_caps *caps, const struct wanted *w,
                          enum rt_op_id op, struct rt_variant *out, struct rt_error *err)
{
    struct rt_kv_format kv;
    if (!rt_kv_format_make(w->kv_layout, RT_PRECISION_BF16, w->d_qk, w->d_v, &kv))
        kv = (struct rt_kv_format){.layout = w->kv_layout, .d_qk = w->d_qk, .d_v = w->d_v};
    const struct rt_op_request r = {.caps = caps,
                                    .kv = &kv,
                                    .heads = w->heads,
                                    .q_len = w->q_len,
                                    .page_size = w->page_size,
                                    .backend = w->backend,
                                    .small_tile_rows = w->small_tile_rows};
    return rt_op_resolve(op, &r, out, err);
}

static struct rt_variant resolve(const struct rt_device_caps *caps, struct wanted r)
{
    struct rt_variant choice = {0};
    struct rt_error err = {0};
    if (ask(caps, &r, RT_OP_ATTEND, &choice, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_int_not_equal(choice.backend, RT_BACKEND_AUTO);
    assert_true(choice.reason[0] != '\0');
    assert_int_equal(choice.op, RT_OP_ATTEND);
    assert_true(choice.m_tiles * choice.tile_rows >= r.heads * r.q_len);
    assert_true((choice.m_tiles - 1) * choice.tile_rows < r.heads * r.q_len);
    assert_true(choice.parts >= 1 && choice.min_blocks >= 1);
    return choice;
}

static void refuse(const struct rt_device_caps *caps, struct wanted r, enum rt_status status,
                   const char *words)
{
    struct rt_variant choice = {.parts = 77};
    struct rt_error err = {0};
    assert_int_equal(ask(caps, &r, RT_OP_ATTEND, &choice, &err), status);
    if (!strstr(err.message, words))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    assert_int_equal(choice.parts, 77);
}

static void test_tile_by_query_rows(void **state)
{
    (void)state;
    static const struct {
        uint32_t heads, q_len, tile_rows;
    } cases[] = {{1, 1, 16},  {16, 1, 16}, {8, 2, 16},  {17, 1, 32},
                 {16, 2, 32}, {33, 1, 64}, {64, 1, 64}, {128, 8, 64}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rt_variant c =
            resolve(&h200, request(cases[i].heads, cases[i].q_len, RT_BACKEND_GENERIC));
        assert_int_equal(c.tile_rows, cases[i].tile_rows);
        assert_int_equal(c.backend, RT_BACKEND_GENERIC);
    }
}

/* Blocks that run at once, spread over the tiles; never none. */
static void test_parts(void **state)
{
    (void)state;
    struct rt_variant one = resolve(&h200, request(64, 1, RT_BACKEND_GENERIC));
    assert_int_equal(one.m_tiles, 1);
    assert_true(one.parts == 132 || one.parts == 264);
    struct rt_variant many = resolve(&h200, request(128, 8, RT_BACKEND_GENERIC));
    assert_int_equal(many.m_tiles, 16);
    assert_int_equal(many.parts, one.parts / 16);
    struct rt_device_caps tiny = h200;
    tiny.sm_count = 1;
    assert_int_equal(resolve(&tiny, request(128, 8, RT_BACKEND_GENERIC)).parts, 1);
}

/* What a launch of so many rows is of; nothing else about it is another. */
static void expect_launch(const struct rt_variant *c, uint32_t heads, uint32_t q_len, uint32_t rows,
                          const char *entry)
{
    const struct rt_kernels none = {.cc = 90};
    const struct rt_attend_params p = {.q.head_stride = 576,
                                       .q.token_stride = 576 * (int64_t)heads,
                                       .q.row_stride = 576 * (int64_t)heads * q_len,
                                       .out.head_stride = 512,
                                       .out.token_stride = 512 * (int64_t)heads,
                                       .out.row_stride = 512 * (int64_t)heads * q_len,
                                       .lse.head_stride = 1,
                                       .lse.token_stride = heads,
                                       .lse.row_stride = (int64_t)heads * q_len,
                                       .kv.page_stride_bytes = 2 * 64 * 576,
                                       .kv.token_stride_bytes = 2 * 576,
                                       .kv.page_size = 64,
                                       .kv.max_blocks = 9,
                                       .kv.pages = 100,
                                       .rows.count = rows,
                                       .rows.q_len = q_len,
                                       .heads = heads,
                                       .d_qk = 576,
                                       .d_v = 512,
                                       .scale = 0.1f,
                                       .schedule.part_count = c->parts};
    struct rt_work work;
    struct rt_error err = {0};
    if (rt_op_build(&none, c, &p, sizeof(p), &work, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(work.launch.entry, entry);
    assert_int_equal(work.launch.grid[0], c->m_tiles);
    assert_int_equal(work.launch.grid[1], c->parts);
    assert_int_equal(work.launch.block[0], c->threads);
    assert_int_equal(work.launch.smem_bytes, c->smem_bytes);
    const bool shares = strcmp(entry, "rt_mla_sm90_576x512_c64") == 0; /* as compiled into it */
    assert_int_equal(work.launch.cluster_x, shares ? 2 : 1);
    assert_int_equal(work.launch.own_cluster, shares);
}

/* Of 576/512, and where tiles are two by two; from half as many rows as there are parts on. */
static void test_shared_keys(void **state)
{
    (void)state;
    static const struct {
        uint32_t heads, q_len, rows; /* 0: never */
    } cases[] = {{128, 1, 33}, {65, 1, 33}, {64, 2, 33}, {128, 2, 17},
                 {64, 1, 0},   {43, 3, 0},  {16, 1, 0},  {32, 1, 0}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct wanted r = request(cases[i].heads, cases[i].q_len, RT_BACKEND_SM90);
        const struct rt_variant c = resolve(&h200, r);
        assert_int_equal(c.many_entry != NULL, cases[i].rows > 0);
        assert_int_equal(strstr(c.reason, "two share keys") != NULL, cases[i].rows > 0);
        if (cases[i].rows == 0)
            continue;
        assert_string_equal(c.entry, "rt_mla_sm90_576x512_m64");
        assert_string_equal(c.many_entry, "rt_mla_sm90_576x512_c64");
        assert_int_equal(c.many_rows, cases[i].rows);
        for (uint32_t rows = c.many_rows - 1; rows <= c.many_rows + 1; rows++)
            expect_launch(&c, r.heads, r.q_len, rows, rows < c.many_rows ? c.entry : c.many_entry);
        r.d_qk = 512;
        assert_null(resolve(&h200, r).many_entry);
        r = request(cases[i].heads, cases[i].q_len, RT_BACKEND_GENERIC);
        assert_null(resolve(&h200, r).many_entry);
    }
}

/* Of 576/512 over e4m3 and up to 16 query rows a tile, from half as many rows as parts on. */
static void test_three_workers(void **state)
{
    (void)state;
    static const enum rt_kv_layout layouts[] = {RT_KV_FP8_TENSOR, RT_KV_FP8_TOKEN, RT_KV_V32};
    static const struct {
        uint32_t heads, q_len;
        const char *entry[2]; /* of one scale a token, and of tiles; null: never */
    } cases[] = {
        {16, 1, {"rt_mla_quant_sm90_576x512_t16_one", "rt_mla_quant_sm90_576x512_t16_tiles"}},
        {8, 1, {"rt_mla_quant_sm90_576x512_t8_one", "rt_mla_quant_sm90_576x512_t8_tiles"}},
        {1, 8, {"rt_mla_quant_sm90_576x512_t8_one", "rt_mla_quant_sm90_576x512_t8_tiles"}},
        {5, 3, {"rt_mla_quant_sm90_576x512_t16_one", "rt_mla_quant_sm90_576x512_t16_tiles"}},
        {17, 1, {NULL, NULL}},
        {128, 1, {NULL, NULL}}};
    for (size_t i = 0; i < 3 * sizeof(cases) / sizeof(cases[0]); i++) {
        struct wanted r = request(cases[i / 3].heads, cases[i / 3].q_len, RT_BACKEND_AUTO);
        struct rt_variant c = {0};
        struct rt_error err = {0};
        r.kv_layout = layouts[i % 3];
        const char *entry = cases[i / 3].entry[r.kv_layout == RT_KV_V32];
        assert_int_equal(ask(&h200, &r, RT_OP_ATTEND_QUANT, &c, &err), RT_OK);
        assert_int_equal(strstr(c.reason, ", three workers from batch 66 on") != NULL,
                         entry != NULL);
        assert_int_equal(c.threads, cases[i / 3].heads == 128 ? 512 : 384);
        assert_string_equal(rt_attend_entry(&c, 65), c.entry);
        assert_int_equal(rt_attend_threads(&c, 65), c.threads);
        assert_string_equal(rt_attend_entry(&c, 66), entry ? entry : c.entry);
        assert_int_equal(rt_attend_threads(&c, 66), entry ? 512 : c.threads);
        assert_int_equal(rt_attend_cluster(&c, 66), 1);
        r.d_qk = 320;
        r.d_v = 256;
        assert_int_equal(ask(&h200, &r, RT_OP_ATTEND_QUANT, &c, &err), RT_OK);
        assert_null(c.many_entry);
    }
}

/* However few parts a small tile leaves: none where a graph is of few blocks. */
static void test_small_tiles_have_two_workers(void **state)
{
    (void)state;
    static const uint32_t heads[] = {9, 16, 17, 32, 33, 64, 65, 128};
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        struct wanted r = request(heads[i], 1, RT_BACKEND_AUTO);
        struct rt_variant c = {0};
        struct rt_error err = {0};
        r.kv_layout = RT_KV_FP8_TOKEN;
        for (uint32_t tile = 8; tile <= (heads[i] <= 16 ? 8u : 16u); tile *= 2) {
            r.small_tile_rows = tile;
            assert_int_equal(ask(&h200, &r, RT_OP_ATTEND_QUANT, &c, &err), RT_OK);
            assert_int_equal(c.tile_rows, tile);
            assert_null(c.many_entry);
            assert_string_equal(rt_attend_entry(&c, 4096), c.entry);
        }
    }
}

/* A device with less shared memory gets the largest tile that it has room for. */
static void test_small_shared_memory(void **state)
{
    (void)state;
    struct rt_variant c = resolve(&l40, request(128, 1, RT_BACKEND_GENERIC));
    assert_int_equal(c.tile_rows, 16);
    assert_true(c.smem_bytes <= l40.smem_optin_bytes);
    struct wanted narrow = request(128, 1, RT_BACKEND_GENERIC);
    narrow.d_qk = 288;
    narrow.d_v = 256;
    assert_true(resolve(&l40, narrow).tile_rows > 16);

    struct rt_device_caps none = l40;
    none.smem_optin_bytes = 48 * 1024;
    refuse(&none, request(1, 1, RT_BACKEND_GENERIC), RT_ERR_UNSUPPORTED, "49152");
}

static void test_host(void **state)
{
    (void)state;
    struct rt_variant c = resolve(&host, request(20, 2, RT_BACKEND_AUTO));
    assert_int_equal(c.backend, RT_BACKEND_GENERIC);
    assert_int_equal(c.tile_rows, 64);
    assert_int_equal(c.parts, 8);
    assert_int_equal(resolve(&host, request(128, 1, RT_BACKEND_GENERIC)).parts, 4);
    refuse(&host, request(16, 1, RT_BACKEND_SM90), RT_ERR_UNSUPPORTED, "host device");
}

static void test_backends(void **state)
{
    (void)state;
    struct rt_variant c = resolve(&l40, request(16, 1, RT_BACKEND_AUTO));
    assert_int_equal(c.backend, RT_BACKEND_GENERIC);
    assert_non_null(strstr(c.reason, "8.9"));
    refuse(&l40, request(16, 1, RT_BACKEND_SM90), RT_ERR_UNSUPPORTED, "8.9");
    struct rt_device_caps old = h200;
    old.cc = 75;
    refuse(&old, request(16, 1, RT_BACKEND_AUTO), RT_ERR_UNSUPPORTED, "7.5");
    refuse(&old, request(16, 1, RT_BACKEND_GENERIC), RT_ERR_UNSUPPORTED, "7.5");
    refuse(&h200, request(16, 1, (enum rt_backend)9), RT_ERR_UNSUPPORTED, "9");
    assert_string_equal(rt_backend_name(RT_BACKEND_GENERIC), "generic");
    assert_string_equal(rt_backend_name(RT_BACKEND_SM90), "sm90");
}

/* Every other operator is one kernel everywhere, from the first device that the library serves. */
static void test_plain_operators(void **state)
{
    (void)state;
    const struct wanted w = request(16, 1, RT_BACKEND_AUTO);
    struct rt_device_caps old = h200;
    old.cc = 75;
    for (int op = 0; op < RT_OP_COUNT; op++) {
        struct rt_variant v = {.parts = 77};
        struct rt_error err = {0};
        if (op == RT_OP_ATTEND_QUANT || op == RT_OP_SPARSE_ATTEND_QUANT) /* of other layouts */
            continue;
        assert_int_equal(ask(&old, &w, (enum rt_op_id)op, &v, &err), RT_ERR_UNSUPPORTED);
        assert_int_equal(v.parts, 77);
        if (!strstr(err.message, "7.5"))
            fail_msg("\"%s\" does not say 7.5", err.message);
        if (op == RT_OP_ATTEND || op == RT_OP_SPARSE_ATTEND)
            continue;
        assert_int_equal(ask(&host, &w, (enum rt_op_id)op, &v, NULL), RT_OK);
        assert_int_equal(v.op, op);
        /* Of few query rows. */
        const char *kernel = op == RT_OP_REDUCE ? "reduce_beside" : rt_op_name((enum rt_op_id)op);
        assert_string_equal(v.entry + strlen("rt_"), kernel);
    }
}

/* A product whose weights lie along k, one behind the other; rows1 0: there is one. */
static struct rt_project_params product(uint32_t m, uint32_t k, uint32_t rows0, uint32_t rows1)
{
    const struct rt_weight_view w = {.row_stride = k, .column_stride = 1};
    struct rt_project_params p = {.x.row_stride = k, .w = {w, w}, .batch = 1, .m = m, .k = k};
    p.y.row_stride = rows0 + rows1;
    p.w[0].rows = rows0;
    p.w[1].rows = rows1;
    return p;
}

static struct rt_project_params across(struct rt_project_params p)
{
    for (int i = 0; i < 2; i++) {
        p.w[i].row_stride = 1;
        p.w[i].column_stride = p.w[i].rows;
    }
    return p;
}

static struct rt_project_params normed(struct rt_project_params p)
{
    p.norm = (struct rt_norm_view){.weight = (const uint16_t *)256, .scale = 1, .width = p.k};
    return p;
}

/* What resolves is built, by the kernel that was resolved. */
static struct rt_variant expect_project(const struct rt_device_caps *caps,
                                        const struct rt_project_params *p, enum rt_backend backend,
                                        const char *entry)
{
    const struct rt_op_request r = {.caps = caps, .backend = backend, .product = p};
    const struct rt_kernels kernels = {.cc = caps->cc};
    struct rt_variant choice = {0};
    struct rt_work work;
    struct rt_error err = {0};
    if (rt_op_resolve(RT_OP_PROJECT, &r, &choice, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(choice.entry, entry);
    assert_int_equal(choice.backend, strstr(entry, "sm90") ? RT_BACKEND_SM90 : RT_BACKEND_GENERIC);
    assert_true(choice.reason[0] != '\0');
    if (rt_op_build(&kernels, &choice, p, sizeof(*p), &work, &err) != RT_OK)
        fail_msg("%s", err.message);
    assert_string_equal(work.launch.entry, entry);
    assert_true(work.launch.smem_bytes <= choice.smem_bytes);
    return choice;
}

/* By vectors, by a block's share of the rows, and by how the weight lies. */
static void test_project(void **state)
{
    (void)state;
    const struct rt_op_request nothing = {.caps = &h200};
    const struct rt_project_params qkv_a = product(1, 7168, 1536, 576);
    const struct rt_project_params q_b = normed(product(9, 1536, 3072, 0));
    const struct rt_project_params out = product(16, 2048, 7168, 0);
    struct rt_project_params keys = across(product(8, 128, 512, 0));
    struct rt_variant choice = {0};
    keys.batch = 16;
    assert_int_equal(rt_op_resolve(RT_OP_PROJECT, &nothing, &choice, NULL), RT_OK);
    assert_string_equal(choice.entry, "rt_project");
    (void)expect_project(&h200, &qkv_a, RT_BACKEND_AUTO, "rt_project_sm90_along8x1");
    (void)expect_project(&h200, &q_b, RT_BACKEND_AUTO, "rt_project_sm90_along16x2");
    (void)expect_project(&h200, &out, RT_BACKEND_AUTO, "rt_project_sm90_along16x4");
    (void)expect_project(&h200, &out, RT_BACKEND_SM90, "rt_project_sm90_along16x4");
    (void)expect_project(&h200, &out, RT_BACKEND_GENERIC, "rt_project");
    const uint32_t keys_blocks =
        expect_project(&h200, &keys, RT_BACKEND_AUTO, "rt_project_sm90_across8").parts;
    assert_int_equal(keys_blocks, 132);
    (void)expect_project(&l40, &qkv_a, RT_BACKEND_AUTO, "rt_project");
    (void)expect_project(&host, &qkv_a, RT_BACKEND_AUTO, "rt_project");
}

/* Blocks an SM: of 40 MiB along k one, of more two; across k one to three, by their tiles. */
static void test_project_blocks(void **state)
{
    (void)state;
    static const uint32_t heads[] = {16, 32, 33, 64, 128}, blocks[] = {132, 132, 264, 396, 396};
    const struct rt_project_params most = product(1, 2048, 10240, 0);
    const struct rt_project_params more = product(1, 2048, 10241, 0);
    const struct rt_project_params out = product(8, 16384, 7168, 0);
    struct rt_project_params keys = across(product(8, 128, 512, 0));
    const char *along = "rt_project_sm90_along8x4";
    assert_int_equal(expect_project(&h200, &most, RT_BACKEND_AUTO, along).parts, 132);
    assert_int_equal(expect_project(&h200, &more, RT_BACKEND_AUTO, along).parts, 264);
    along = "rt_project_sm90_along8x2"; /* 27.2 rows a block */
    assert_int_equal(expect_project(&h200, &out, RT_BACKEND_AUTO, along).parts, 264);
    for (size_t i = 0; i < sizeof(heads) / sizeof(heads[0]); i++) {
        keys.batch = heads[i];
        const char *across8 = "rt_project_sm90_across8";
        assert_int_equal(expect_project(&h200, &keys, RT_BACKEND_AUTO, across8).parts, blocks[i]);
    }
    keys.m = 9;
    const char *across16 = "rt_project_sm90_across16";
    assert_int_equal(expect_project(&h200, &keys, RT_BACKEND_AUTO, across16).parts, 132);
}

/* More vectors than few: the more of them, the fewer blocks may read them all. */
static void test_project_many(void **state)
{
    (void)state;
    const struct rt_project_params q_b = product(32, 1536, 3072, 0);
    const struct rt_project_params q_b64 = product(64, 1536, 3072, 0);
    const struct rt_project_params out = product(17, 2048, 7168, 0);
    const struct rt_project_params two = product(64, 7168, 1536, 576);
    struct rt_project_params values = product(33, 512, 128, 0),
                             keys = across(product(64, 128, 512, 0));
    values.batch = keys.batch = 16;
    values.x.batch_stride = keys.x.batch_stride = 512;
    values.w[0].batch_stride = keys.w[0].batch_stride = 512 * 128;
    struct rt_variant choice =
        expect_project(&h200, &q_b, RT_BACKEND_AUTO, "rt_project_sm90_many64x32");
    assert_int_equal(choice.parts, 96);
    choice = expect_project(&h200, &q_b64, RT_BACKEND_AUTO, "rt_project_sm90_many64x64");
    assert_int_equal(choice.parts, 48);
    choice = expect_project(&h200, &out, RT_BACKEND_SM90, "rt_project_sm90_many64x64");
    assert_int_equal(choice.parts, 112);
    (void)expect_project(&h200, &two, RT_BACKEND_AUTO, "rt_project_sm90_many64x64");
    choice = expect_project(&h200, &values, RT_BACKEND_AUTO, "rt_project_sm90_many64x32");
    assert_int_equal(choice.parts, 64);
    (void)expect_project(&h200, &keys, RT_BACKEND_AUTO, "rt_project_sm90_many64x64_across");
    (void)expect_project(&h200, &out, RT_BACKEND_GENERIC, "rt_project");
    (void)expect_project(&l40, &out, RT_BACKEND_AUTO, "rt_project");
}

/* As many parts of k as leave no SM idle, and no more: of these rows, of that many numbers. */
static void test_project_parts(void **state)
{
    (void)state;
    static const uint16_t number;
    const struct {
        uint32_t k, rows[2], parts;
    } cases[] = {{7168, {1536, 576}, 4},   {7168, {1536, 640}, 2}, {7168, {64 * 66, 0}, 2},
                 {7168, {64 * 132, 0}, 1}, {512, {64, 0}, 4},      {256, {64, 0}, 2},
                 {384, {64, 0}, 1},        {136, {64, 0}, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct rt_project_params p = product(64, cases[i].k, cases[i].rows[0], cases[i].rows[1]);
        assert_int_equal(rt_project_parts(&h200, &p), cases[i].parts);
        p.w[0].bias = &number;
        assert_int_equal(rt_project_parts(&h200, &p), 1);
    }
}

/* auto falls back and says why, generic takes it, sm90 is refused in the same words. */
static void only_generic(const struct rt_project_params *p, const char *words)
{
    const struct rt_op_request r = {.caps = &h200, .backend = RT_BACKEND_SM90, .product = p};
    struct rt_variant refused = {.parts = 77};
    struct rt_error err = {0};
    assert_int_equal(rt_op_resolve(RT_OP_PROJECT, &r, &refused, &err), RT_ERR_UNSUPPORTED);
    assert_int_equal(refused.parts, 77);
    if (!strstr(err.message, words) || !strstr(err.message, "backend sm90"))
        fail_msg("\"%s\" does not say \"%s\"", err.message, words);
    const struct rt_variant choice = expect_project(&h200, p, RT_BACKEND_AUTO, "rt_project");
    if (!strstr(choice.reason, words) || !strstr(choice.reason, "generic; not sm90"))
        fail_msg("\"%s\" does not say \"%s\"", choice.reason, words);
    (void)expect_project(&h200, p, RT_BACKEND_GENERIC, "rt_project");
}

/* All that the Hopper kernels' build could refuse is known to the resolver. */
static void test_project_falls_back(void **state)
{
    (void)state;
    struct rt_project_params p = across(normed(product(4, 1536, 3072, 0)));
    only_generic(&p, "without a norm");
    p = across(product(4, 7168, 1536, 576));
    only_generic(&p, "not two of 1536 and 576 rows");
    p = product(65, 2048, 7168, 0);
    only_generic(&p, "up to 64 vectors, not 65");
    p = normed(product(17, 1536, 3072, 0));
    only_generic(&p, "more than 16 vectors, 17, only without a norm");
    p = product(17, 2048, 7168, 0);
    p.x.row_stride = 0;
    only_generic(&p, "x row stride above 0, not 0");
    p = product(17, 2048, 7168, 64);
    p.w[1].row_stride = -2048;
    only_generic(&p, "weight stride above 0, not -2048");
    p = product(16, 2052, 7168, 0);
    only_generic(&p, "a multiple of 8 numbers, not 2052");
    p = normed(product(16, 40000, 7168, 0));
    only_generic(&p, "no room for 16 vectors of 40000");
    p = product(3, 2048, 7168, 0);
    p.x.base = (void *)24;
    only_generic(&p, "x is at 0x18, not 16-byte aligned");
    p = product(3, 2048, 7168, 0);
    p.x.row_stride = 2052;
    only_generic(&p, "x row stride in elements is 2052");
    p = normed(product(3, 2048, 7168, 0));
    p.norm.weight = (const uint16_t *)8;
    only_generic(&p, "norm is at 0x8");
    p = product(3, 2048, 7168, 64);
    p.w[1].base = (const uint16_t *)8;
    only_generic(&p, "weight is at 0x8");
    p = product(3, 2048, 7168, 64);
    p.w[1].row_stride = 2052;
    only_generic(&p, "weight row stride in elements is 2052");
    p = across(product(3, 2048, 7164, 0));
    only_generic(&p, "weight row stride in elements is 7164");
    p = product(3, 2048, 7168, 0);
    p.is_f32 = 1;
    only_generic(&p, "f32");
}

/* What no kernel takes is refused whatever is asked for. */
static void test_no_product(void **state)
{
    (void)state;
    struct rt_project_params bad[4];
    for (int i = 0; i < 4; i++)
        bad[i] = product(3, 2048, 512, 64);
    bad[0].m = 0;
    bad[1].w[1].row_stride = 1;
    bad[1].w[1].column_stride = 64;
    bad[2].norm = (struct rt_norm_view){.weight = (const uint16_t *)256, .width = 1024};
    bad[3].batch = INT32_MAX;
    for (int i = 0; i < 12; i++) {
        struct rt_variant choice;
        const struct rt_op_request r = {
            .caps = &h200, .backend = (enum rt_backend)(i / 4), .product = &bad[i % 4]};
        assert_int_equal(rt_op_resolve(RT_OP_PROJECT, &r, &choice, NULL), RT_ERR_INVALID);
    }
}

static void test_refused_requests(void **state)
{
    (void)state;
    struct wanted r = request(16, 1, RT_BACKEND_AUTO);
    r.d_qk = 640;
    refuse(&h200, r, RT_ERR_GEOMETRY, "576/512, 320/256, 288/256, 512/512");
    r.d_qk = 576;
    r.d_v = 256;
    refuse(&host, r, RT_ERR_GEOMETRY, "576/256");
    refuse(&h200, request(0, 1, RT_BACKEND_AUTO), RT_ERR_GEOMETRY, "0 heads");
    refuse(&h200, request(129, 1, RT_BACKEND_AUTO), RT_ERR_GEOMETRY, "129 heads");
    refuse(&h200, request(16, 9, RT_BACKEND_AUTO), RT_ERR_UNSUPPORTED, "length 9");
    refuse(&h200, request(16, 0, RT_BACKEND_AUTO), RT_ERR_UNSUPPORTED, "length 0");
    r = request(16, 1, RT_BACKEND_AUTO);
    r.page_size = 48;
    refuse(&h200, r, RT_ERR_UNSUPPORTED, "page size 48");
    r.page_size = 64;
    r.kv_layout = (enum rt_kv_layout)17;
    refuse(&h200, r, RT_ERR_UNSUPPORTED, "layout 17");
}

/* What is chosen is in the registry, with the shared memory that the choice says. */
static void test_choices_exist(void **state)
{
    (void)state;
    static const uint32_t geometry[][2] = {{576, 512}, {320, 256}, {288, 256}, {512, 512}};
    uint32_t count;
    const struct rt_kernel_entry *entries = rt_kernel_entries(&count);
    for (uint32_t heads = 1; heads <= RT_MAX_HEADS; heads++)
        for (size_t g = 0; g < 4; g++) {
            struct wanted r = request(heads, 1 + heads % 8, RT_BACKEND_AUTO);
            r.d_qk = geometry[g][0];
            r.d_v = geometry[g][1];
            struct rt_variant c = resolve(heads % 2 ? &h200 : &l40, r);
            uint32_t i = 0;
            while (i < count && strcmp(entries[i].entry, c.entry) != 0)
                i++;
            assert_true(i < count);
            assert_int_equal(entries[i].smem_bytes, c.smem_bytes);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tile_by_query_rows),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_shared_keys),
        cmocka_unit_test(test_three_workers),
        cmocka_unit_test(test_small_tiles_have_two_workers),
        cmocka_unit_test(test_small_shared_memory),
        cmocka_unit_test(test_host),
        cmocka_unit_test(test_backends),
        cmocka_unit_test(test_plain_operators),
        cmocka_unit_test(test_project),
        cmocka_unit_test(test_project_blocks),
        cmocka_unit_test(test_project_falls_back),
        cmocka_unit_test(test_project_many),
        cmocka_unit_test(test_project_parts),
        cmocka_unit_test(test_no_product),
        cmocka_unit_test(test_refused_requests),
        cmocka_unit_test(test_choices_exist),
    };
    return cmocka_run_group_tests_name("resolve", tests, NULL, NULL);
}
