/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_SUPPORT_OP_RIG_H
#define RT_TESTS_SUPPORT_OP_RIG_H

/*
 * Rigs of operators' tests: a struct of tensors that begins with `rt_ops *ops`, of the host device
 * or of one that is emulated; and what an operator says where it refuses. For programs with cmocka.
 */
#include "replayrt/ops.h"
#include "tests/support/mistake.h"

#include <stdlib.h>
#include <string.h>

static inline uint64_t at(const void *pointer)
{
    return (uintptr_t)pointer;
}

/* Zeros, 256-byte aligned, and the handle. */
static inline void *op_rig_new(size_t bytes)
{
    rt_ops **rig = aligned_alloc(256, (bytes + 255) / 256 * 256);
    assert_non_null(rig);
    memset(rig, 0, bytes);
    assert_int_equal(rt_ops_create("host", rig, NULL), RT_OK);
    return rig;
}

static inline int op_rig_free(void **state)
{
    rt_ops **rig = *state;
    rt_ops_destroy(rig);
    free(rig);
    return 0;
}
#define OP_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, op_rig_free)

static inline void refused(rt_ops *ops, enum rt_status status, const char *words)
{
    assert_int_equal(status, RT_ERR_INVALID);
    assert_int_equal(rt_ops_last_error(ops)->status, status);
    const char *message = rt_ops_last_error(ops)->message;
    if (!strstr(message, words))
        fail_msg("\"%s\" does not say \"%s\"", message, words);
}

typedef enum rt_status (*op_fn)(rt_ops *ops, const void *args);

/* Arguments that are good but for any one of the mistakes; none at all, and no handle. */
static inline void refuse_all(rt_ops *ops, op_fn op, const void *good, size_t bytes,
                              const struct mistake *bad, size_t count)
{
    unsigned char args[512];
    assert_true(bytes <= sizeof(args));
    for (size_t i = 0; i < count; i++) {
        memcpy(args, good, bytes);
        memcpy(args + bad[i].member, &bad[i].value, bad[i].bytes);
        refused(ops, op(ops, args), bad[i].words);
    }
    refused(ops, op(ops, NULL), "args is null");
    assert_int_equal(op(NULL, good), RT_ERR_INVALID);
}
#define REFUSE_ALL(ops, op, good, bad)                                                             \
    refuse_all((ops), (op), &(good), sizeof(good), (bad), sizeof(bad) / sizeof((bad)[0]))

#endif
