/* SPDX-License-Identifier: Apache-2.0 */
/* Whatever makes an object from nothing is cut short at each of its allocations and driver calls in
 * turn: a code and a sentence come back, nothing is given, nothing is left on the device. What is
 * left on the host is seen where this runs under AddressSanitizer or valgrind. */
#include "replayrt/decoder.h"
#include "replayrt/kv_ops.h"
#include "replayrt/prefill_ops.h"
#include "tests/support/fail_driver.h"
#include "tests/support/fixture.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The linker sends the library's allocations here. */
static uint64_t until_failure; /* 0: none fails */

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);

static bool fails(void)
{
    return until_failure && --until_failure == 0;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

static char config_path[] = "/tmp/replayrt-fail-XXXXXX";

/* Each makes its object and destroys it again. */

static int no_work(void *user, const struct rt_stage_context *context)
{
    (void)user;
    (void)context;
    return 0;
}

static enum rt_status make_runtime(struct rt_error *error)
{
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    const struct rt_create_params params = {.struct_size = sizeof(params),
                                            .config = &config,
                                            .stages = {no_work, no_work, no_work, no_work}};
    rt_runtime *rt = NULL;
    const enum rt_status status = rt_create(&params, &rt, error);
    assert_int_equal(rt != NULL, status == RT_OK);
    rt_destroy(&rt);
    return status;
}

static enum rt_status make_plan(struct rt_error *error)
{
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    rt_plan *plan = NULL;
    const enum rt_status status = rt_plan_create(&config, NULL, &plan, error);
    assert_int_equal(plan != NULL, status == RT_OK);
    rt_plan_destroy(&plan);
    return status;
}

static enum rt_status make_sizes(struct rt_error *error)
{
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    struct rt_sizes sizes = {.struct_size = sizeof(sizes)};
    return rt_sizes(&config, &sizes, error);
}

static enum rt_status make_ops(struct rt_error *error)
{
    rt_ops *ops = NULL;
    const enum rt_status status = rt_ops_create("host", &ops, error);
    assert_int_equal(ops != NULL, status == RT_OK);
    rt_ops_destroy(&ops);
    return status;
}

/* Two weights behind a norm: by the library that is three pieces of work. */
static enum rt_status multiply(rt_ops *ops, enum rt_projections projections)
{
    static _Alignas(256) uint16_t numbers[4096];
    static _Alignas(256) unsigned char y[4096];
    const uint64_t in = (uintptr_t)numbers, out = (uintptr_t)y;
    const struct rt_product_shape shape = {.struct_size = sizeof(shape),
                                           .batch = 1,
                                           .vectors = 2,
                                           .k = 16,
                                           .weights = {{.rows = 8}, {.rows = 24}},
                                           .normed = 1,
                                           .projections = projections};
    const struct rt_product_args args = {.struct_size = sizeof(args),
                                         .x = in,
                                         .y = out,
                                         .weights = {in, in},
                                         .norm_weight = in,
                                         .workspace = out + 2048};
    rt_product *product = NULL;
    enum rt_status status = rt_product_create(ops, &shape, &product);
    assert_int_equal(product != NULL, status == RT_OK);
    if (status == RT_OK)
        status = rt_product_run(product, &args, NULL);
    rt_product_destroy(&product);
    return status;
}

static enum rt_status put_own_product(rt_ops *ops)
{
    return multiply(ops, RT_PROJECTIONS_OWN);
}

static enum rt_status put_library_product(rt_ops *ops)
{
    return multiply(ops, RT_PROJECTIONS_CUBLASLT);
}

/* The ends of a decoder, on rows that are all padding: six launches, three of which are one
 * operator's. */
static enum rt_status put_ends(rt_ops *ops)
{
    static _Alignas(256) unsigned char in[4096], out[32768];
    const uint64_t read = (uintptr_t)in, written = (uintptr_t)out;
    const struct rt_token_rows rows = {
        .rows = 1, .query_len = 1, .lengths = read, .positions = read};
    const struct rt_embed_args embed = {.struct_size = sizeof(embed),
                                        .rows = rows,
                                        .table = read,
                                        .tokens = read,
                                        .hidden = written,
                                        .vocab = 1,
                                        .width = 8};
    const struct rt_experts_shape mlp = {.tokens = 1, .hidden = 8, .width = 8, .shared = 1};
    const struct rt_experts_up_args up = {.struct_size = sizeof(up),
                                          .shape = mlp,
                                          .x = written,
                                          .h = written + 256,
                                          .gate[1] = {.address = read},
                                          .up[1] = {.address = read}};
    const struct rt_take_rows_args take = {.struct_size = sizeof(take),
                                           .rows = 1,
                                           .x_rows = 1,
                                           .width = 8,
                                           .x = written,
                                           .index = read,
                                           .out = written + 512};
    const struct rt_sample_args sample = {.struct_size = sizeof(sample),
                                          .vocab = 8,
                                          .rows = rows,
                                          .logits = read,
                                          .tokens = read,
                                          .accepted = written + 1024,
                                          .sampled = written + 1280,
                                          .lines = read,
                                          .workspace = written + 2048};
    RT_TRY(rt_embed(ops, &embed, NULL));
    RT_TRY(rt_experts_up(ops, &up, NULL));
    RT_TRY(rt_take_rows(ops, &take, NULL));
    return rt_sample(ops, &sample, NULL);
}

/* A dense MLP of many tokens: three launches, two of which are one operator's. */
static enum rt_status put_mlp(rt_ops *ops)
{
    enum { TOKENS = 33, NUMBERS = TOKENS * 8 };
    static _Alignas(256) uint16_t in[NUMBERS], h[NUMBERS], out[NUMBERS];
    static _Alignas(256) float scratch[NUMBERS];
    const uint64_t read = (uintptr_t)in;
    const struct rt_experts_shape mlp = {.tokens = TOKENS, .hidden = 8, .width = 8, .shared = 1};
    const struct rt_experts_up_args up = {.struct_size = sizeof(up),
                                          .shape = mlp,
                                          .x = read,
                                          .h = (uintptr_t)h,
                                          .gate[1] = {.address = read},
                                          .up[1] = {.address = read}};
    const struct rt_experts_down_args down = {.struct_size = sizeof(down),
                                              .shape = mlp,
                                              .rows = {.rows = TOKENS, .query_len = 1},
                                              .h = (uintptr_t)h,
                                              .out = (uintptr_t)out,
                                              .down[1] = {.address = read},
                                              .scratch = (uintptr_t)scratch};
    RT_TRY(rt_experts_up(ops, &up, NULL));
    return rt_experts_down(ops, &down, NULL);
}

/* What chunks of a context have besides attention: three launches. */
static enum rt_status put_pieces(rt_ops *ops)
{
    static _Alignas(256) unsigned char in[4096], out[4096];
    const uint64_t read = (uintptr_t)in, written = (uintptr_t)out;
    const struct rt_kv_gather_args gather = {.struct_size = sizeof(gather),
                                             .rows = 1,
                                             .count = 1,
                                             .width = 8,
                                             .page_size = 1,
                                             .pages = 1,
                                             .kv = read,
                                             .first = read,
                                             .out = written};
    const struct rt_mla_merge_args merge = {.struct_size = sizeof(merge),
                                            .pieces = 2,
                                            .tokens = 1,
                                            .heads = 1,
                                            .v_dim = 8,
                                            .in = read,
                                            .in_lse = read,
                                            .out = written};
    const struct rt_kv_pages pages = {
        .page_size = 1, .max_blocks = 1, .pages = 1, .kv = read, .block_table = read};
    struct rt_kv_convert_args convert = {.struct_size = sizeof(convert),
                                         .rows = 1,
                                         .d_qk = 576,
                                         .d_v = 512,
                                         .max_length = 1,
                                         .lengths = read,
                                         .from = pages,
                                         .to = pages};
    convert.to.kv = written;
    RT_TRY(rt_kv_convert(ops, &convert, NULL));
    RT_TRY(rt_kv_gather(ops, &gather, NULL));
    return rt_mla_merge(ops, &merge, NULL);
}

static enum rt_status make_put(enum rt_status (*put)(rt_ops *ops), struct rt_error *error)
{
    rt_ops *ops = NULL;
    enum rt_status status = rt_ops_create("host", &ops, error);
    if (status != RT_OK)
        return status;
    status = put(ops);
    if (status != RT_OK)
        *error = *rt_ops_last_error(ops);
    rt_ops_destroy(&ops);
    return status;
}

static enum rt_status make_own_product(struct rt_error *error)
{
    return make_put(put_own_product, error);
}

static enum rt_status make_library_product(struct rt_error *error)
{
    return make_put(put_library_product, error);
}

static enum rt_status make_ends(struct rt_error *error)
{
    return make_put(put_ends, error);
}

static enum rt_status make_mlp(struct rt_error *error)
{
    return make_put(put_mlp, error);
}

static enum rt_status make_pieces(struct rt_error *error)
{
    return make_put(put_pieces, error);
}

static char model_path[] = "/tmp/replayrt-fail-model-XXXXXX";
static const char model_text[] =
    "{\"model_type\":\"deepseek_v2\",\"hidden_size\":16,\"vocab_size\":24,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":1,\"kv_lora_rank\":256,\"q_lora_rank\":null,\"qk_nope_head_dim\":8,"
    "\"qk_rope_head_dim\":32,\"v_head_dim\":8,\"intermediate_size\":16,\"moe_intermediate_size\":8,"
    "\"first_k_dense_replace\":1,\"n_routed_experts\":2,\"n_shared_experts\":1,"
    "\"num_experts_per_tok\":1,\"n_group\":1,\"topk_group\":1,\"topk_method\":\"greedy\","
    "\"norm_topk_prob\":false,\"routed_scaling_factor\":1.0,\"rms_norm_eps\":1e-6,"
    "\"rope_theta\":10000.0,\"tie_word_embeddings\":false}";

/* A whole model of random weights, and a token of it. */
static enum rt_status decode(rt_decoder *d)
{
    rt_runtime *rt = rt_decoder_runtime(d);
    rt_seq seq;
    const struct rt_seq_params params = {.struct_size = sizeof(params), .last_token = 3};
    const struct rt_step_params step = {
        .struct_size = sizeof(step), .rows = 1, .query_len = 1, .seqs = &seq};
    float logits[24];
    RT_TRY(rt_seq_open(rt, &params, &seq));
    const struct rt_sampling warm = {.temperature = 1.0f, .top_p = 1.0f}; /* other than it begins */
    RT_TRY(rt_decoder_sample(d, seq, &warm));
    RT_TRY(rt_step(rt, &step, NULL));
    return rt_decoder_read_logits(d, 0, 1, 0, logits);
}

static enum rt_status make_decoder(struct rt_error *error)
{
    struct rt_model model = {.struct_size = sizeof(model)};
    struct rt_config config;
    rt_checkpoint *checkpoint = NULL;
    rt_decoder *d = NULL;
    fixture_config(&config);
    strcpy(config.device, "host");
    RT_TRY(rt_model_read(model_path, &model, error));
    RT_TRY(rt_checkpoint_random(model_path, 1, &checkpoint, error));
    const struct rt_decoder_params params = {.struct_size = sizeof(params),
                                             .config = &config,
                                             .model = &model,
                                             .checkpoint = checkpoint};
    enum rt_status status = rt_decoder_create(&params, &d, error);
    assert_int_equal(d != NULL, status == RT_OK);
    if (status == RT_OK) {
        status = decode(d);
        if (status != RT_OK)
            *error = *(rt_decoder_last_error(d)->status ? rt_decoder_last_error(d)
                                                        : rt_last_error(rt_decoder_runtime(d)));
    }
    rt_decoder_destroy(&d);
    rt_checkpoint_close(&checkpoint);
    return status;
}

static enum rt_status make_config(struct rt_error *error)
{
    struct rt_config config;
    return rt_config_load(config_path, &config, error);
}

typedef enum rt_status (*make_fn)(struct rt_error *error);

/* What rt_create allocates of the device, by what it is called where it does not fit. */
static struct want {
    const char *name;
    uint64_t bytes;
    bool told;
} wants[] = {{.name = "the pinned host memory"}, {.name = "the arena"}, {.name = "the KV pool"}};
#define WANTS (sizeof(wants) / sizeof(wants[0]))

static void size_wants(void)
{
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    struct rt_sizes sizes = {.struct_size = sizeof(sizes)};
    assert_int_equal(rt_sizes(&config, &sizes, NULL), RT_OK);
    wants[0].bytes = sizes.mapped_bytes;
    wants[1].bytes = sizes.arena_bytes;
    wants[2].bytes = sizes.pool_bytes;
}

static bool says(const char *message, const char *name, uint64_t bytes)
{
    char words[128];
    (void)snprintf(words, sizeof(words), "%s of %.3f GiB (%" PRIu64 " bytes) does not fit: ", name,
                   (double)bytes / (1 << 30), bytes);
    return strncmp(message, words, strlen(words)) == 0;
}

/* Cuts `make` short at that allocation or driver call; true once it is past the end. */
static bool cut_short(make_fn make, uint64_t memory, uint64_t call)
{
    struct rt_error error = {0};
    fail_driver_arm(call);
    until_failure = memory;
    const enum rt_status status = make(&error);
    const bool past = call ? !fail_driver_reached() : until_failure > 0;
    until_failure = 0;
    fail_driver_arm(0);
    assert_int_equal(fail_driver_live(), 0);
    if (past) {
        assert_int_equal(status, RT_OK);
        return true;
    }
    if (status == RT_OK) /* a release that failed: nobody is left to act on it */
        return false;
    assert_int_equal(error.status, status);
    assert_true(error.message[0] != '\0');
    for (size_t i = 0; i < WANTS; i++)
        wants[i].told |= says(error.message, wants[i].name, wants[i].bytes);
    if (memory && status != RT_ERR_NOMEM && status != RT_ERR_DEVICE_MEMORY)
        fail_msg("allocation %u: %s: %s", (unsigned)memory, rt_status_string(status),
                 error.message);
    return false;
}

/* What is made, and how often it allocates and calls the driver at least. */
static const struct maker {
    make_fn make;
    uint64_t allocations, calls;
} makers[] = {
    {make_runtime, 50, 50},
    {make_plan, 5, 3},
    {make_sizes, 2, 3},
    {make_ops, 2, 3},
    {make_config, 2, 0},
    {make_own_product, 3, 8},
    {make_library_product, 5, 30},
    {make_ends, 2, 3 + 6 + 2 * 4},
    {make_mlp, 2, 3 + 3 + 2 * 2},
    {make_pieces, 2, 3 + 2 + 2 * 2},
    {make_decoder, 80, 200},
};
#define MAKERS (sizeof(makers) / sizeof(makers[0]))

static void every_allocation(void **state)
{
    (void)state;
    size_wants();
    for (size_t i = 0; i < MAKERS; i++) {
        uint64_t n = 1;
        while (!cut_short(makers[i].make, n, 0))
            n++;
        assert_true(n > makers[i].allocations);
    }
    for (size_t i = 0; i < WANTS; i++)
        if (!wants[i].told)
            fail_msg("nobody said that %s does not fit", wants[i].name);
}

static void a_pool_larger_than_the_memory(void **state)
{
    (void)state;
    struct rt_config config;
    fixture_config(&config);
    strcpy(config.device, "host");
    config.max_sequences = 65536;
    config.max_length = 32767;
    config.page_size = 128;
    config.pages = 2147483647;
    const struct rt_create_params params = {.struct_size = sizeof(params), .config = &config};
    struct rt_error error = {0};
    rt_runtime *rt = NULL;
    assert_int_equal(rt_create(&params, &rt, &error), RT_ERR_DEVICE_MEMORY);
    assert_null(rt);
    const uint64_t token_bytes = (256 + 32) * sizeof(uint16_t);
    if (!says(error.message, "the KV pool",
              config.geometry.layers * config.pages * 128 * token_bytes))
        fail_msg("\"%s\" does not say how large the pool is", error.message);
}

static void every_driver_call(void **state)
{
    (void)state;
    for (size_t i = 0; i < MAKERS; i++) {
        uint64_t n = 1;
        while (makers[i].calls && !cut_short(makers[i].make, 0, n))
            n++;
        assert_true(n >= makers[i].calls);
    }
}

static bool write_text(char *path, const char *text)
{
    const int fd = mkstemp(path);
    const ssize_t bytes = (ssize_t)strlen(text);
    return fd >= 0 && write(fd, text, (size_t)bytes) == bytes && close(fd) == 0;
}

static int write_configs(void **state)
{
    (void)state;
    static const char text[] = "geometry: {heads: 3, kv_lora_rank: 256, qk_rope_head_dim: 32, "
                               "layers: 2, softmax_scale: 0.1}\ndevice: host\n";
    return write_text(config_path, text) && write_text(model_path, model_text) ? 0 : -1;
}

static int remove_configs(void **state)
{
    (void)state;
    return remove(config_path) | remove(model_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation),
        cmocka_unit_test(every_driver_call),
        cmocka_unit_test(a_pool_larger_than_the_memory),
    };
    return cmocka_run_group_tests(tests, write_configs, remove_configs);
}
