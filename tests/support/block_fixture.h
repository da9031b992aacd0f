/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_BLOCK_FIXTURE_H
#define RT_TESTS_SUPPORT_BLOCK_FIXTURE_H

/* Whole blocks for the small runtime of fixture.h: random weights in one host allocation. */
#include "replayrt/layer.h"

#include <stdbool.h>

struct block_fixture {
    struct rt_config config;
    rt_weights *weights;
    uint16_t *numbers; /* what all weights are slices of */
};

/* fixture_config with layer: hidden 32, q_lora_rank 24, P 8, V 16. */
void block_config(struct rt_config *config);
/* All weights of all layers bound; `config` null: block_config's. */
void block_open(struct block_fixture *b, const struct rt_config *config, uint64_t seed);
/* Binds the i-th weight of all layers with its numbers column by column; UINT32_MAX: every matrix.
 * False: there is no such weight, or it is a vector. What it is worth is as before. */
#define BLOCK_ALL UINT32_MAX
bool block_lay_across(struct block_fixture *b, uint32_t i);
void block_close(struct block_fixture *b);

/* What a checkpoint calls the i-th weight that the configuration needs, and its shape; false: there
 * are fewer. */
bool block_weight(const struct rt_config *config, uint32_t i, const char **name, uint64_t *rows,
                  uint64_t *columns);

#endif
