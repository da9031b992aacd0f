/* SPDX-License-Identifier: Apache-2.0 */
/* RoPE's table for callers who keep it themselves. */
#include "common/math.h"
#include "common/rope.h"
#include "common/struct_size.h"
#include "replayrt/block_ops.h"

#include <inttypes.h>

/* A configuration's check knows what each field may be, and says so by the field's name. */
static enum rt_status check_rope(const char *op, const struct rt_rope *rope, uint32_t rope_dim,
                                 uint32_t capacity, struct rt_error *err)
{
    struct rt_config c;
    RT_REQUIRE(rope, err, RT_ERR_INVALID, "%s: rope is null", op);
    RT_REQUIRE(rope_dim == 64 || rope_dim == 32 || rope_dim == 0, err, RT_ERR_INVALID,
               "%s: rope_dim %u is not 64, 32 or 0", op, rope_dim);
    RT_REQUIRE(capacity >= 1 && capacity <= RT_MAX_LENGTH, err, RT_ERR_INVALID,
               "%s: capacity %u is not 1..%d", op, capacity, RT_MAX_LENGTH);
    rt_config_default(&c);
    c.geometry = (struct rt_geometry){.heads = 1,
                                      .kv_lora_rank = rope_dim == 32 ? 256 : 512,
                                      .qk_rope_head_dim = rope_dim,
                                      .layers = 1,
                                      .softmax_scale = 1};
    c.max_sequences = 1;
    c.layer = 1;
    c.block.hidden_size = c.block.qk_nope_head_dim = c.block.v_head_dim = 8;
    c.block.rope = *rope;
    struct rt_error story = {.status = RT_OK};
    if (rt_config_check(&c, &story) == RT_OK)
        return RT_OK;
    /* Of an argument, not of a configuration. */
    return rt_fail(err, RT_ERR_INVALID, "%s: %s", op, story.message);
}

static bool turns(const struct rt_rope *rope, uint32_t rope_dim)
{
    return rope_dim > 0 && rope->type != RT_ROPE_NONE;
}

enum rt_status rt_rope_size(const struct rt_rope *rope, uint32_t rope_dim, uint32_t capacity,
                            struct rt_rope_bytes *out, struct rt_error *error)
{
    RT_CHECK_STRUCT(out, error);
    RT_TRY(check_rope(__func__, rope, rope_dim, capacity, error));
    const uint64_t positions = capacity;
    const struct rt_rope_bytes mine = {
        .table = turns(rope, rope_dim) ? positions * rope_dim * sizeof(float) : 0,
        .query_scale = rope->query_scale_beta > 0.0 ? positions * sizeof(float) : 0,
    };
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}

enum rt_status rt_rope_fill(const struct rt_rope *rope, uint32_t rope_dim, uint32_t capacity,
                            uint32_t first, uint32_t count, float *table, float *query_scale,
                            struct rt_error *error)
{
    double speeds[RT_MAX_ROPE_PAIRS];
    RT_TRY(check_rope(__func__, rope, rope_dim, capacity, error));
    RT_REQUIRE(first <= capacity && count <= capacity - first, error, RT_ERR_INVALID,
               "rt_rope_fill: positions %u..%" PRIu64 " are not below the capacity, %u", first,
               (uint64_t)first + count, capacity);
    RT_REQUIRE(table || !turns(rope, rope_dim), error, RT_ERR_INVALID,
               "rt_rope_fill: table is null");
    RT_REQUIRE(query_scale || !(rope->query_scale_beta > 0.0), error, RT_ERR_INVALID,
               "rt_rope_fill: query_scale is null");
    if (turns(rope, rope_dim)) {
        rt_rope_speeds(rope, rope_dim, capacity, speeds);
        rt_rope_rows(rope, speeds, rope_dim / 2, first, count, table);
    }
    for (uint32_t i = 0; rope->query_scale_beta > 0.0 && i < count; i++)
        query_scale[i] = (float)rt_rope_query_scale(rope, first + i);
    return RT_OK;
}
