/* SPDX-License-Identifier: Apache-2.0 */
#include "common/check.h"

#include "examples/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

typedef enum rt_status (*tell_fn)(struct rt_error *error, enum rt_status status, const char *format,
                                  ...);

static const tell_fn tellers[] = {(rt_fail), problem};
#define TELLERS (sizeof(tellers) / sizeof(tellers[0]))

/* Names in a message come from outside: they may not steer a terminal or begin a line of a log. */
static void control_characters_are_escaped(void **state)
{
    (void)state;
    for (size_t i = 0; i < TELLERS; i++) {
        struct rt_error error = {0};
        assert_int_equal(tellers[i](&error, RT_ERR_FILE, "%s: gone", "a\x1b[31m\nb\tc\x7f"),
                         RT_ERR_FILE);
        assert_int_equal(error.status, RT_ERR_FILE);
        assert_string_equal(error.message, "a\\x1b[31m\\x0ab\\x09c\\x7f: gone");
        tellers[i](&error, RT_ERR_FILE, "%s", "Zür\xf0\x9f\xa6\x80 \\x41 ~");
        assert_string_equal(error.message, "Zür\xf0\x9f\xa6\x80 \\x41 ~");
        tellers[i](&error, RT_ERR_FILE, "%s", error.message); /* a message of a message */
        assert_string_equal(error.message, "Zür\xf0\x9f\xa6\x80 \\x41 ~");
        assert_int_equal(tellers[i](NULL, RT_ERR_PAGES, "nobody listens"), RT_ERR_PAGES);
    }
}

/* Whatever does not fit is left out whole: no half of an escape at the end, always a NUL. */
static void a_long_message_ends_in_one_piece(void **state)
{
    (void)state;
    for (size_t i = 0; i < TELLERS; i++)
        for (size_t plain = 480; plain < 520; plain++) {
            char text[600];
            memset(text, 'x', plain);
            memset(text + plain, '\n', sizeof(text) - plain - 1);
            text[sizeof(text) - 1] = '\0';
            struct rt_error error;
            memset(&error, 0xa5, sizeof(error));
            tellers[i](&error, RT_ERR_FILE, "%s", text);
            const char *end = memchr(error.message, '\0', sizeof(error.message));
            assert_non_null(end);
            const size_t length = (size_t)(end - error.message);
            const size_t room = sizeof(error.message) - 1;
            const size_t kept = plain < room ? plain : room;
            assert_int_equal(length, kept + (room - kept) / 4 * 4);
            assert_true(length == kept || !strcmp(end - 4, "\\x0a"));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_characters_are_escaped),
        cmocka_unit_test(a_long_message_ends_in_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
