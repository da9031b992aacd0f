/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/support/block_fixture.h"

#include "common/bf16.h"
#include "tests/support/fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST_ELEMENTS (UINT64_C(1) << 24) /* mostly untouched */

void block_config(struct rt_config *config)
{
    fixture_config(config);
    config->layer = 1;
    config->block.hidden_size = 32;
    config->block.q_lora_rank = 24;
    config->block.qk_nope_head_dim = 8;
    config->block.v_head_dim = 16;
}

bool block_weight(const struct rt_config *c, uint32_t i, const char **name, uint64_t *rows,
                  uint64_t *columns)
{
    const struct rt_block *b = &c->block;
    const uint64_t heads = c->geometry.heads, rope = c->geometry.qk_rope_head_dim;
    const uint64_t q = heads * (b->qk_nope_head_dim + rope), latent = c->geometry.kv_lora_rank;
    const struct {
        bool there;
        const char *name;
        uint64_t rows, columns;
    } all[] = {
        {b->q_lora_rank > 0, "q_a_proj.weight", b->q_lora_rank, b->hidden_size},
        {b->q_lora_rank > 0, "q_a_layernorm.weight", 1, b->q_lora_rank},
        {b->q_lora_rank > 0, "q_b_proj.weight", q, b->q_lora_rank},
        {b->q_lora_rank == 0, "q_proj.weight", q, b->hidden_size},
        {true, "kv_a_proj_with_mqa.weight", latent + rope, b->hidden_size},
        {true, "kv_a_layernorm.weight", 1, latent},
        {true, "kv_b_proj.weight", heads * (b->qk_nope_head_dim + b->v_head_dim), latent},
        {true, "o_proj.weight", b->hidden_size, heads * b->v_head_dim},
        {c->input_norm, "input_layernorm.weight", 1, b->hidden_size},
    };
    for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
        if (!all[k].there || i-- > 0)
            continue;
        *name = all[k].name;
        *rows = all[k].rows;
        *columns = all[k].columns;
        return true;
    }
    return false;
}

/* What a weight takes of the numbers. */
static uint64_t room(const struct rt_weight *w)
{
    return (w->rows * w->columns + 127) / 128 * 128;
}

void block_open(struct block_fixture *b, const struct rt_config *config, uint64_t seed)
{
    struct rt_error err = {.status = RT_OK};
    uint64_t at = 0;
    if (config)
        b->config = *config;
    else
        block_config(&b->config);
    b->numbers = aligned_alloc(256, MOST_ELEMENTS * sizeof(*b->numbers));
    assert_non_null(b->numbers);
    assert_int_equal(rt_weights_create(&b->config, &b->weights, &err), RT_OK);
    for (uint32_t layer = 0; layer < b->config.geometry.layers; layer++) {
        const char *name;
        struct rt_weight w = {.struct_size = sizeof(w), .dtype = RT_DTYPE_BF16};
        for (uint32_t i = 0; block_weight(&b->config, i, &name, &w.rows, &w.columns); i++) {
            w.address = (uintptr_t)(b->numbers + at);
            for (uint64_t k = 0; k < w.rows * w.columns; k++)
                b->numbers[at + k] = rt_float_to_bf16((float)(int32_t)fixture_random(&seed) *
                                                      (0.2f / 2147483648.0f));
            at += room(&w);
            assert_true(at <= MOST_ELEMENTS);
            if (rt_weights_bind(b->weights, layer, name, &w, &err) != RT_OK)
                fail_msg("%s", err.message);
        }
    }
}

static void transpose(uint16_t *numbers, uint64_t rows, uint64_t columns)
{
    uint16_t *old = malloc(rows * columns * sizeof(*old));
    assert_non_null(old);
    memcpy(old, numbers, rows * columns * sizeof(*old));
    for (uint64_t k = 0; k < rows * columns; k++)
        numbers[k % columns * rows + k / columns] = old[k];
    free(old);
}

bool block_lay_across(struct block_fixture *b, uint32_t i)
{
    struct rt_error err = {.status = RT_OK};
    uint64_t at = 0;
    uint32_t laid = 0;
    for (uint32_t layer = 0; layer < b->config.geometry.layers; layer++) {
        const char *name;
        struct rt_weight w = {.struct_size = sizeof(w), .dtype = RT_DTYPE_BF16};
        for (uint32_t n = 0; block_weight(&b->config, n, &name, &w.rows, &w.columns);
             at += room(&w), n++) {
            if (w.rows == 1 || (i != n && i != BLOCK_ALL))
                continue;
            transpose(b->numbers + at, w.rows, w.columns);
            w.address = (uintptr_t)(b->numbers + at);
            w.row_stride = 1;
            w.column_stride = (int64_t)w.rows;
            if (rt_weights_bind(b->weights, layer, name, &w, &err) != RT_OK)
                fail_msg("%s", err.message);
            laid++;
        }
    }
    return laid > 0;
}

void block_close(struct block_fixture *b)
{
    rt_weights_destroy(&b->weights);
    free(b->numbers);
    b->numbers = NULL;
}
