/* SPDX-License-Identifier: Apache-2.0 */
/* Every family's weights by name, against recorded checkpoints; what a checkpoint may lack, and how
 * a wrong one is told. */
#include "models/places.h"
#include "tests/models/place_rig.h"
#include "tests/models/scratch.h"

#include <stdlib.h>

/* ---- names ----------------------------------------------------------------------------------- */

/* Each needed place is a tensor of the file and each tensor a place's; of experts in one tensor,
 * 3 * experts places are two tensors. */
static void expect_all(const char *name, uint32_t fused_layers)
{
    char path[512];
    struct rt_error err = {.status = RT_OK};
    (void)snprintf(path, sizeof(path), GOLDEN "%s", name);
    const struct rt_model m = read_model(path);
    rt_places *p = make_places(&m);
    rt_checkpoint *c = open_good(path);
    uint64_t needed = 0;
    if (rt_places_check(p, c, &err) != RT_OK)
        fail_msg("%s", err.message);
    for (uint32_t i = 0; i < rt_places_count(p); i++) {
        struct rt_place place = {.struct_size = sizeof(place)};
        assert_int_equal(rt_places_at(p, i, &place, &err), RT_OK);
        needed += place.needed;
        if (place.expert && place.kind < RT_PLACE_EXPERT_GATE)
            fail_msg("%s has an expert", place.name);
    }
    assert_int_equal(needed - (uint64_t)fused_layers * (3 * m.moe.experts - 2),
                     rt_checkpoint_count(c));
    rt_checkpoint_close(&c);
    rt_places_destroy(&p);
    assert_null(p);
}

static void test_names(void **state)
{
    (void)state;
    expect_all("deepseek_v2", 0);
    expect_all("deepseek_v3", 0);
    expect_all("glm4_moe_lite", 0);
    expect_all("minicpm3", 0);
    expect_all("mistral4", 2);
    expect_all("youtu", 0);
}

/* Published models by their published sizes, which add up to the parameters of their names. */
static void test_sizes(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        uint64_t parameters;
    } models[] = {{"deepseek_v2_lite", 15706484224},
                  {"deepseek_v2", 235741434880},
                  {"deepseek_v3", 671026419200}};
    struct rt_place place = {.struct_size = sizeof(place)};
    for (size_t m = 0; m < COUNT(models); m++) {
        char path[512];
        (void)snprintf(path, sizeof(path), RT_TEST_DATA "/models/%s.json", models[m].name);
        const struct rt_model model = read_model(path);
        rt_places *p = make_places(&model);
        uint64_t elements = 0;
        for (uint32_t i = 0; rt_places_at(p, i, &place, NULL) == RT_OK; i++)
            elements += place.needed ? place.rows * place.columns : 0;
        if (elements != models[m].parameters)
            fail_msg("%s has %llu parameters", models[m].name, (unsigned long long)elements);
        assert_int_equal(rt_places_at(p, rt_places_count(p) - 3, &place, NULL), RT_OK);
        rt_places_destroy(&p);
    }
    assert_string_equal(place.name, "model.layers.60.mlp.shared_experts.down_proj.weight");
    assert_int_equal(place.kind, RT_PLACE_SHARED_DOWN);
    assert_int_equal(place.layer, 60);
    assert_int_equal(place.rows, 7168);
    assert_int_equal(place.columns, 2048);
}

static void test_tied(void **state)
{
    (void)state;
    struct rt_model m = read_model(GOLDEN "youtu");
    rt_places *p = make_places(&m);
    const uint32_t count = rt_places_count(p);
    rt_places_destroy(&p);
    m.tied = 1;
    p = make_places(&m);
    assert_int_equal(rt_places_count(p), count - 1);
    struct rt_place last = {.struct_size = sizeof(last)};
    assert_int_equal(rt_places_at(p, count - 2, &last, NULL), RT_OK);
    assert_int_equal(last.kind, RT_PLACE_FINAL_NORM);
    assert_int_equal(rt_places_at(p, count - 1, &last, NULL), RT_ERR_INVALID);
    rt_places_destroy(&p);
}

/* ---- one by one or all in one ---------------------------------------------------------------- */

/* A checkpoint of mistral4, whose experts are all in one tensor, with them one by one. */
static void write_single(const rt_places *p, const rt_checkpoint *c)
{
    const uint32_t count = rt_places_count(p);
    struct scratch_tensor *tensors = calloc(count, sizeof(*tensors));
    struct rt_place *places = calloc(count, sizeof(*places));
    char(*shapes)[RT_SHAPE_TEXT_BYTES] = calloc(count, sizeof(*shapes));
    size_t used = 0;
    assert_true(tensors && places && shapes);
    for (uint32_t i = 0; i < count; i++) {
        struct rt_place *place = &places[used];
        place->struct_size = sizeof(*place);
        assert_int_equal(rt_places_at(p, i, place, NULL), RT_OK);
        if (!place->needed)
            continue;
        const uint64_t elements = place->rows * place->columns;
        float *values = malloc(elements * sizeof(*values));
        assert_non_null(values);
        assert_int_equal(rt_places_copy(p, c, i, 0, place->rows, RT_DTYPE_F32, values, NULL),
                         RT_OK);
        const bool vector = rt_place_is_vector(place);
        const uint64_t shape[2] = {vector ? place->columns : place->rows, place->columns};
        rt_shape_text(vector ? 1 : 2, shape, shapes[used]);
        tensors[used] = (struct scratch_tensor){place->name, "F32", shapes[used], values,
                                                elements * sizeof(*values)};
        used++;
    }
    scratch_safetensors("model.safetensors", tensors, used);
    for (size_t i = 0; i < used; i++)
        free((void *)(uintptr_t)tensors[i].values);
    free(tensors);
    free(places);
    free(shapes);
}

static void test_fused_and_single(void **state)
{
    (void)state;
    const struct rt_model m = read_model(GOLDEN "mistral4");
    struct rt_error err = {.status = RT_OK};
    rt_places *p = make_places(&m);
    rt_checkpoint *fused = open_good(GOLDEN "mistral4");
    scratch_make();
    write_single(p, fused);
    rt_checkpoint *single = open_good(scratch_path(""));
    if (rt_places_check(p, single, &err) != RT_OK)
        fail_msg("%s", err.message);
    uint32_t experts = 0;
    for (uint32_t i = 0; i < rt_places_count(p); i++) {
        struct rt_place place = {.struct_size = sizeof(place)};
        uint16_t a[64 * 64], b[64 * 64];
        assert_int_equal(rt_places_at(p, i, &place, NULL), RT_OK);
        if (place.kind < RT_PLACE_EXPERT_GATE || place.kind > RT_PLACE_EXPERT_DOWN)
            continue;
        experts++;
        assert_int_equal(rt_places_copy(p, fused, i, 3, 7, RT_DTYPE_BF16, a, NULL), RT_OK);
        assert_int_equal(rt_places_copy(p, single, i, 3, 7, RT_DTYPE_BF16, b, NULL), RT_OK);
        assert_memory_equal(a, b, 7 * place.columns * 2);
        assert_int_equal(rt_places_copy(p, fused, i, place.rows, 1, RT_DTYPE_BF16, a, &err),
                         RT_ERR_INVALID);
        assert_non_null(strstr(err.message, "1 rows from"));
    }
    assert_int_equal(experts, 2 * 3 * m.moe.experts);
    /* Where the two are, and in which order, is known by the file itself. */
    struct rt_stored_tensor t = {.struct_size = sizeof(t)};
    uint16_t up[64];
    assert_int_equal(
        rt_checkpoint_find(fused, "model.layers.0.mlp.experts.gate_up_proj", 0, NULL, &t, NULL),
        RT_OK);
    uint32_t index = 0;
    struct rt_place place = {.struct_size = sizeof(place)};
    while (rt_places_at(p, index, &place, NULL) == RT_OK &&
           (place.kind != RT_PLACE_EXPERT_UP || place.expert != 2))
        index++;
    assert_int_equal(rt_places_copy(p, fused, index, 0, 1, RT_DTYPE_BF16, up, NULL), RT_OK);
    const uint32_t row = 2 * (2 * m.moe.intermediate_size) + m.moe.intermediate_size;
    assert_memory_equal(up, (const char *)t.data + (size_t)row * 64 * 2, sizeof(up));
    rt_checkpoint_close(&single);
    rt_checkpoint_close(&fused);
    rt_places_destroy(&p);
    scratch_remove();
}

/* The text model of one that has other parts too, under both kinds of names. */
static void expect_below(const char *folder, bool in_front)
{
    const struct rt_model m = read_model(folder);
    struct rt_error err = {.status = RT_OK};
    rt_places *p = make_places(&m);
    rt_checkpoint *c = open_good(folder);
    struct scratch_tensor *tensors = calloc(c->count, sizeof(*tensors));
    struct renamed {
        char name[128], shape[RT_SHAPE_TEXT_BYTES];
    } *renamed = calloc(c->count, sizeof(*renamed));
    uint16_t a[64], b[64];
    assert_true(tensors && renamed);
    for (size_t i = 0; i < c->count; i++) {
        const struct rt_stored_entry *t = &c->entries[i];
        const bool is_head = strcmp(t->name, "lm_head.weight") == 0;
        (void)snprintf(renamed[i].name, sizeof(renamed[i].name), "%s%s",
                       in_front  ? "language_model."
                       : is_head ? ""
                                 : "model.language_model.",
                       in_front || is_head ? t->name : t->name + strlen("model."));
        rt_shape_text(t->rank, t->shape, renamed[i].shape);
        tensors[i] =
            (struct scratch_tensor){renamed[i].name, t->dtype, renamed[i].shape, t->data, t->bytes};
    }
    scratch_make();
    scratch_safetensors("model.safetensors", tensors, c->count);
    rt_checkpoint *below = open_good(scratch_path(""));
    if (rt_places_check(p, below, &err) != RT_OK)
        fail_msg("%s", err.message);
    for (uint32_t i = 0; i < 3; i++) { /* embedding, a norm, attention */
        assert_int_equal(rt_places_copy(p, c, i, 0, 1, RT_DTYPE_BF16, a, NULL), RT_OK);
        assert_int_equal(rt_places_copy(p, below, i, 0, 1, RT_DTYPE_BF16, b, NULL), RT_OK);
        assert_memory_equal(a, b, 2 * 48);
    }
    rt_checkpoint_close(&below);
    rt_checkpoint_close(&c);
    rt_places_destroy(&p);
    scratch_remove();
    free(tensors);
    free(renamed);
}

static void test_below(void **state)
{
    (void)state;
    expect_below(GOLDEN "mistral4", true);
    expect_below(GOLDEN "mistral4", false);
}

/* Only this family's padding, and only in the embedding. */
static void test_zero_token(void **state)
{
    (void)state;
    struct rt_model m = read_model(GOLDEN "youtu");
    assert_int_equal(m.zero_token, 2);
    rt_places *p = make_places(&m);
    rt_checkpoint *c = open_good(GOLDEN "youtu");
    static const uint16_t zeros[64];
    uint16_t rows[4 * 64], kept[4 * 64];
    assert_int_equal(
        rt_checkpoint_copy(c, "model.embed_tokens.weight", 1, 4, RT_DTYPE_BF16, kept, NULL), RT_OK);
    assert_int_equal(rt_places_copy(p, c, 0, 1, 4, RT_DTYPE_BF16, rows, NULL), RT_OK);
    assert_memory_equal(rows, kept, sizeof(zeros));
    assert_memory_equal(rows + 64, zeros, sizeof(zeros));
    assert_memory_equal(rows + 128, kept + 128, 2 * sizeof(zeros));
    assert_true(memcmp(kept + 64, zeros, sizeof(zeros)) != 0);
    assert_int_equal(rt_places_copy(p, c, 0, 3, 2, RT_DTYPE_BF16, rows, NULL), RT_OK);
    assert_memory_equal(rows, kept + 128, 2 * sizeof(zeros));
    rt_checkpoint_close(&c);
    rt_places_destroy(&p);
}

/* ---- what is wrong --------------------------------------------------------------------------- */

/* A copy of the recorded checkpoint of DeepSeek-V3 with one tensor changed or left out. */
static void expect_wrong(const char *name, const char *dtype, const char *shape, size_t bytes,
                         const char *words)
{
    const struct rt_model m = read_model(GOLDEN "deepseek_v3");
    struct rt_error err = {.status = RT_OK};
    rt_places *p = make_places(&m);
    rt_checkpoint *c = open_good(GOLDEN "deepseek_v3");
    const size_t count = c->count;
    struct scratch_tensor *tensors = calloc(count, sizeof(*tensors));
    char(*shapes)[RT_SHAPE_TEXT_BYTES] = calloc(count, sizeof(*shapes));
    size_t used = 0;
    assert_true(tensors && shapes);
    for (size_t i = 0; i < count; i++) {
        const struct rt_stored_entry *t = &c->entries[i];
        const bool is_it = strcmp(t->name, name) == 0;
        if (is_it && !dtype)
            continue;
        rt_shape_text(t->rank, t->shape, shapes[i]);
        tensors[used++] =
            (struct scratch_tensor){t->name, is_it ? dtype : t->dtype, is_it ? shape : shapes[i],
                                    t->data, is_it ? bytes : t->bytes};
    }
    scratch_make();
    scratch_safetensors("model.safetensors", tensors, used);
    rt_checkpoint *wrong = open_good(scratch_path(""));
    expect(name, rt_places_check(p, wrong, &err), &err, RT_ERR_FILE, &words, 1);
    rt_checkpoint_close(&wrong);
    rt_checkpoint_close(&c);
    rt_places_destroy(&p);
    scratch_remove();
    free(tensors);
    free(shapes);
}

static void test_wrong(void **state)
{
    (void)state;
    expect_wrong(
        "model.norm.weight", NULL, NULL, 0,
        ": has no tensor model.norm.weight; 1 of the 41 weights of a deepseek_v3 model are "
        "missing or wrong");
    expect_wrong("model.layers.1.mlp.gate.e_score_correction_bias", "F32", "[1]", 4,
                 "e_score_correction_bias has shape [1], expected [4]; 1 of the 41");
    expect_wrong("model.norm.weight", "BF16", "[1, 64]", 128,
                 "model.norm.weight has shape [1, 64], expected [64]");
    expect_wrong("lm_head.weight", "BF16", "[64, 256]", 32768,
                 "lm_head.weight has shape [64, 256], expected [256, 64]");
    expect_wrong("model.layers.0.self_attn.q_b_proj.weight", "F8_E4M3", "[768, 48]", 36864,
                 "q_b_proj.weight has dtype F8_E4M3, expected BF16, F16 or F32; 1 of the 41");
    expect_wrong("model.layers.1.mlp.experts.3.down_proj.weight", NULL, NULL, 0,
                 "has no tensor model.layers.1.mlp.experts.3.down_proj.weight; 1 of the 41");
}

/* A model that says so has them; without q_lora_rank there is no q_a_proj, and q_proj has none. */
static void test_attention_bias(void **state)
{
    (void)state;
    struct rt_model m = read_model(GOLDEN "deepseek_v3");
    struct rt_error err = {.status = RT_OK};
    m.attention_bias = 1;
    for (int lora = 1; lora >= 0; lora--) {
        uint32_t biases = 0;
        m.block.q_lora_rank = lora ? m.block.q_lora_rank : 0;
        rt_places *p = make_places(&m);
        for (uint32_t i = 0; i < rt_places_count(p); i++) {
            struct rt_place place = {.struct_size = sizeof(place)};
            assert_int_equal(rt_places_at(p, i, &place, NULL), RT_OK);
            const bool is_bias = strstr(place.name, "_proj") && strstr(place.name, ".bias");
            biases += is_bias && place.needed;
        }
        assert_int_equal(biases, (2 + lora) * m.layers);
        rt_places_destroy(&p);
    }
    m = read_model(GOLDEN "deepseek_v3");
    m.attention_bias = 1;
    rt_places *p = make_places(&m);
    rt_checkpoint *c = open_good(GOLDEN "deepseek_v3");
    assert_int_equal(rt_places_check(p, c, &err), RT_ERR_FILE);
    if (!strstr(err.message, "has no tensor model.layers.0.self_attn.q_a_proj.bias; "))
        fail_msg("%s", err.message);
    rt_checkpoint_close(&c);
    rt_places_destroy(&p);
}

/* A checkpoint of another family lacks most; the first is named, and all are counted. */
static void test_other_family(void **state)
{
    (void)state;
    const struct rt_model m = read_model(GOLDEN "mistral4");
    struct rt_error err = {.status = RT_OK};
    uint16_t out[64];
    rt_places *p = make_places(&m);
    rt_checkpoint *c = open_good(GOLDEN "minicpm3");
    assert_int_equal(rt_places_check(p, c, &err), RT_ERR_FILE);
    if (!strstr(err.message,
                "kv_a_proj_with_mqa.weight has shape [288, 64], expected [320, 64]; 40 of "
                "the "))
        fail_msg("%s", err.message);
    uint32_t router = 0;
    struct rt_place place = {.struct_size = sizeof(place)};
    while (rt_places_at(p, router, &place, NULL) == RT_OK && place.kind != RT_PLACE_ROUTER)
        router++;
    assert_int_equal(rt_places_copy(p, c, router, 0, 1, RT_DTYPE_BF16, out, &err), RT_ERR_FILE);
    assert_non_null(strstr(err.message, "has no tensor model.layers.0.mlp.gate.weight"));
    rt_checkpoint_close(&c);
    rt_places_destroy(&p);
}

static void test_bad_models(void **state)
{
    (void)state;
    const struct rt_model good = read_model(GOLDEN "deepseek_v3");
    struct rt_model bad[15];
    static const char *const words[] = {
        "model->layers is 0: must be 1 to 1024",
        "model->layers is 1025",
        "model->vocab_size is 0: must be 1 to 16777216",
        "model->moe.experts is 4097: must be 1 to 4096",
        "layer 1 of the model has an MLP of size 0",
        "layer 0 of the model has an MLP of size 0",
        "model->zero_token is 256: must be 0 to 255, below vocab_size",
        "model->family has no NUL among its 28 characters",
        "model->hidden_size is 72: must be block.hidden_size, 64",
        "model->eos is -1: must be 0 to 255, below vocab_size",
        "model->moe.groups is 3: must divide moe.experts, 4",
        "model->moe.scoring is 7: must be 0 to 1",
        "model->moe_layers[0] is 2: must be 0 or 1",
        "model->moe.experts is 4096, 524288 in all layers: must be at most 262144 there",
        "model->attention_bias is 2: must be 0 to 1"};
    for (size_t i = 0; i < COUNT(bad); i++)
        bad[i] = good;
    bad[0].layers = 0;
    bad[1].layers = 1025;
    bad[2].vocab_size = 0;
    bad[3].moe.experts = 4097;
    bad[4].moe.experts = 0;
    bad[5].intermediate_size = 0;
    bad[6].has_zero_token = 1;
    bad[6].zero_token = 256;
    memset(bad[7].family, 'x', sizeof(bad[7].family));
    bad[8].hidden_size = 72;
    bad[9].eos_count = 1;
    bad[9].eos[0] = -1;
    bad[10].moe.groups = 3;
    bad[11].moe.scoring = (enum rt_scoring)7;
    bad[12].moe_layers[0] = 2;
    bad[13].layers = 128;
    bad[13].moe.experts = 4096;
    memset(bad[13].moe_layers, 1, sizeof(bad[13].moe_layers));
    bad[14].attention_bias = 2;
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct rt_error err = {.status = RT_OK};
        rt_places *p = NULL;
        expect(words[i], rt_places_create(&bad[i], &p, &err), &err, RT_ERR_INVALID, &words[i], 1);
        assert_null(p);
    }
    struct rt_place place = {.struct_size = sizeof(place)};
    assert_int_equal(rt_places_create(NULL, NULL, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_places_count(NULL), 0);
    assert_int_equal(rt_places_at(NULL, 0, &place, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_places_check(NULL, NULL, NULL), RT_ERR_INVALID);
    assert_int_equal(rt_places_copy(NULL, NULL, 0, 0, 0, RT_DTYPE_BF16, NULL, NULL),
                     RT_ERR_INVALID);
    rt_places_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_tied),
        cmocka_unit_test(test_below),
        cmocka_unit_test(test_fused_and_single),
        cmocka_unit_test(test_zero_token),
        cmocka_unit_test(test_wrong),
        cmocka_unit_test(test_other_family),
        cmocka_unit_test(test_attention_bias),
        cmocka_unit_test(test_bad_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
