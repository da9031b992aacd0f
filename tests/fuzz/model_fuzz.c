/* SPDX-License-Identifier: Apache-2.0 */
/* A model's config.json of any bytes is refused with a sentence, or gives a geometry served here:
 * as JSON, and as YAML. */
#include "config/geometry.h"
#include "config/model.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

static void read_source(const struct rt_source *source)
{
    struct rt_geometry g;
    struct rt_block block;
    struct rt_error err = {.message = ""};
    memset(&g, FUZZ_FILL, sizeof(g));
    memset(&block, FUZZ_FILL, sizeof(block));
    enum rt_status status = rt_model_parse(source, &g, &block, &err);
    if (status == RT_OK) {
        fuzz_expect(g.heads >= 1 && g.layers >= 1, "heads and layers are there");
        fuzz_expect(g.softmax_scale > 0.0 && isfinite(g.softmax_scale), "the scale is a scale");
        fuzz_expect(rt_geometry_is_served(g.kv_lora_rank, g.qk_rope_head_dim), "it is served");
    } else {
        fuzz_expect_refusal(status, &err);
        fuzz_expect_untouched(&g, sizeof(g));
        fuzz_expect_untouched(&block, sizeof(block));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    const struct rt_source json = {.text = (const char *)data, .bytes = bytes, .name = "fuzz.json"};
    const struct rt_source yaml = {.text = (const char *)data, .bytes = bytes, .name = "fuzz"};
    read_source(&json);
    read_source(&yaml);
    return 0;
}
