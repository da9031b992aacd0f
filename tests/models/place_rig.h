/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_MODELS_PLACE_RIG_H
#define RT_TESTS_MODELS_PLACE_RIG_H

/* Recorded models, their places and checkpoints, which are good: else the test fails. */
#include "models/places.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GOLDEN RT_TEST_DATA "/golden/tiny_"

static inline struct rt_model read_model(const char *path)
{
    struct rt_model m = {.struct_size = sizeof(m)};
    struct rt_error err = {.status = RT_OK};
    if (rt_model_read(path, &m, &err) != RT_OK)
        fail_msg("%s", err.message);
    return m;
}

static inline rt_places *make_places(const struct rt_model *m)
{
    rt_places *p = NULL;
    struct rt_error err = {.status = RT_OK};
    if (rt_places_create(m, &p, &err) != RT_OK)
        fail_msg("%s", err.message);
    return p;
}

static inline rt_checkpoint *open_good(const char *path)
{
    rt_checkpoint *c = NULL;
    struct rt_error err = {.status = RT_OK};
    if (rt_checkpoint_open(path, &c, &err) != RT_OK)
        fail_msg("%s", err.message);
    return c;
}

#endif
