/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_EXPECT_H
#define RT_TESTS_UNIT_EXPECT_H

/* cmocka as its own manual includes it, and one check that all tests of messages share. */
#include "replayrt/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* `what` was tried and gave `got` and `err`: the code must be `status`, also in the struct, and the
 * message must have each of the `count` parts in it, up to a null. */
static inline void expect(const char *what, enum rt_status got, const struct rt_error *err,
                          enum rt_status status, const char *const *parts, size_t count)
{
    if (got != status || err->status != status)
        fail_msg("%s\n%s: %s", what, rt_status_string(got), err->message);
    for (size_t i = 0; i < count && parts[i]; i++)
        if (!strstr(err->message, parts[i]))
            fail_msg("%s\nno \"%s\" in: %s", what, parts[i], err->message);
}

#endif
