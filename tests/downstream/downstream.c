/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program of somebody else's, built against an installed copy by a plain compiler. Also compiled
 * as C++17: the headers promise both. Prints nothing on success; the exit status is the verdict.
 */
#include <replayrt/block_ops.h>
#include <replayrt/model_ops.h>
#include <replayrt/ops.h>
#include <replayrt/rt.h>

#include <stdio.h>
#include <string.h>

static int fail(const char *what, const struct rt_error *error)
{
    fprintf(stderr, "%s: %s: %s\n", what, rt_status_string(error->status), error->message);
    return 1;
}

static int version_matches(void)
{
    char expected[32];
    snprintf(expected, sizeof(expected), "%d.%d.%d", RT_VERSION_MAJOR, RT_VERSION_MINOR,
             RT_VERSION_PATCH);
    if (strcmp(rt_version(), expected) == 0)
        return 1;
    fprintf(stderr, "the library says %s, its header %s\n", rt_version(), expected);
    return 0;
}

int main(void)
{
    if (!version_matches())
        return 1;

    struct rt_config config;
    rt_config_default(&config);
    config.geometry.heads = 16;
    config.geometry.kv_lora_rank = 512;
    config.geometry.qk_rope_head_dim = 64;
    config.geometry.layers = 2;
    config.geometry.softmax_scale = 0.1352;
    config.max_length = 256;
    config.pages = 8;
    strcpy(config.device, "host");

    struct rt_error error;
    memset(&error, 0, sizeof(error));
    struct rt_create_params params;
    memset(&params, 0, sizeof(params));
    params.struct_size = sizeof(params);
    params.config = &config;
    rt_runtime *runtime = NULL;
    if (rt_create(&params, &runtime, &error) != RT_OK)
        return fail("rt_create", &error);
    rt_destroy(&runtime);

    struct rt_rope_bytes bytes;
    memset(&bytes, 0, sizeof(bytes));
    bytes.struct_size = sizeof(bytes);
    if (rt_rope_size(&config.block.rope, 64, 256, &bytes, &error) != RT_OK)
        return fail("rt_rope_size", &error);

    rt_ops *ops = NULL;
    if (rt_ops_create("host", &ops, &error) != RT_OK)
        return fail("rt_ops_create", &error);
    struct rt_product_shape shape;
    memset(&shape, 0, sizeof(shape));
    shape.struct_size = sizeof(shape);
    shape.batch = 1;
    shape.vectors = 2;
    shape.k = 64;
    shape.weights[0].rows = 24;
    rt_product *product = NULL;
    if (rt_product_create(ops, &shape, &product) != RT_OK)
        return fail("rt_product_create", rt_ops_last_error(ops));
    rt_product_destroy(&product);
    struct rt_experts_shape mlp;
    memset(&mlp, 0, sizeof(mlp));
    mlp.tokens = 1;
    mlp.hidden = mlp.width = 64;
    mlp.shared = 1;
    struct rt_experts_info info;
    memset(&info, 0, sizeof(info));
    info.struct_size = sizeof(info);
    if (rt_ops_overlap(ops, 1) != RT_OK || rt_experts_get_info(ops, &mlp, &info) != RT_OK)
        return fail("rt_experts_get_info", rt_ops_last_error(ops));
    uint64_t scratch = 0;
    if (rt_sample_workspace(1, 1, 32000, &scratch, &error) != RT_OK)
        return fail("rt_sample_workspace", &error);
    rt_ops_destroy(&ops);
    return runtime || ops; /* both are null again */
}
