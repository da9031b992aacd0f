/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file of any bytes is refused with a sentence, or gives a good configuration: as
 * YAML, and as JSON. */
#include "config/config.h"
#include "tests/fuzz/fuzz.h"

static void read_source(const struct rt_source *source)
{
    /* The model's file is not opened: whatever it is called, it is this. */
    const struct rt_model_shape model = {
        .geometry = {.heads = 128,
                     .kv_lora_rank = 512,
                     .qk_rope_head_dim = 64,
                     .layers = 61,
                     .softmax_scale = 0.1352337788608801},
        .block = {.hidden_size = 7168, .qk_nope_head_dim = 128, .v_head_dim = 128}};
    struct rt_config_draft draft;
    struct rt_config config;
    struct rt_error err = {.message = ""};
    memset(&config, FUZZ_FILL, sizeof(config));
    enum rt_status status = rt_config_draft_parse(source, &draft, &err);
    if (status == RT_OK) {
        status =
            rt_config_draft_finish(source, &draft, draft.model_path ? &model : NULL, &config, &err);
        rt_config_draft_free(&draft);
    }
    if (status == RT_OK) {
        fuzz_expect(rt_config_check(&config, NULL) == RT_OK, "what is read is good");
    } else {
        fuzz_expect_refusal(status, &err);
        fuzz_expect_untouched(&config, sizeof(config));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct rt_source yaml = {.text = (const char *)data, .bytes = bytes, .name = "fuzz"};
    const struct rt_source json = {.text = (const char *)data, .bytes = bytes, .name = "fuzz.json"};
    read_source(&yaml);
    read_source(&json);
    return 0;
}
