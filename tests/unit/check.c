/* SPDX-License-Identifier: Apache-2.0 */
#include "replayrt/status.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

static void expect(const char *name, const char *message)
{
    struct rt_error error = {0};
    assert_int_equal(rt_error_set(&error, RT_ERR_FILE, "%s", name), RT_ERR_FILE);
    assert_int_equal(error.status, RT_ERR_FILE);
    assert_string_equal(error.message, message);
    rt_error_set(&error, RT_ERR_FILE, "%s", error.message); /* a message of a message */
    assert_string_equal(error.message, message);
}

/* Names in a message come from outside: they may not steer a terminal or begin a line of a log. */
static void what_steers_a_terminal_is_escaped(void **state)
{
    (void)state;
    expect("a\x1b[31m\nb\tc\x7f: gone", "a\\x1b[31m\\x0ab\\x09c\\x7f: gone");
    expect("Zür\xf0\x9f\xa6\x80 \\x41 ~", "Zür\xf0\x9f\xa6\x80 \\x41 ~");
    expect("\xc2\x80\xc2\x9b\x32J\xc2\x9f\xc2\xa0", "\\xc2\\x80\\xc2\\x9b2J\\xc2\\x9f\xc2\xa0");
    expect("\x9b\x32J\xff", "\\x9b2J\\xff"); /* what is no UTF-8 may be another code's control */
    expect("\xc0\x9b|\xed\xa0\x80|\xe2\x82", "\\xc0\\x9b|\\xed\\xa0\\x80|\\xe2\\x82");
    assert_int_equal(rt_error_set(NULL, RT_ERR_PAGES, "nobody listens"), RT_ERR_PAGES);
}

/* Whatever does not fit is left out whole: no half of an escape or of a character at the end,
 * always a NUL. */
static void a_long_message_ends_in_one_piece(void **state)
{
    (void)state;
    static const struct {
        const char *text, *shown;
    } ends[] = {{"\n", "\\x0a"},
                {"\xe2\x82\xac", "\xe2\x82\xac"},
                {"\xf0\x9f\xa6\x80", "\xf0\x9f\xa6\x80"}};
    for (size_t e = 0; e < sizeof(ends) / sizeof(ends[0]); e++)
        for (size_t plain = 480; plain < 520; plain++) {
            char text[800] = "";
            memset(text, 'x', plain);
            for (size_t at = plain; at + 5 < sizeof(text); at += strlen(ends[e].text))
                memcpy(text + at, ends[e].text, strlen(ends[e].text) + 1);
            struct rt_error error;
            memset(&error, 0xa5, sizeof(error));
            rt_error_set(&error, RT_ERR_FILE, "%s", text);
            const char *end = memchr(error.message, '\0', sizeof(error.message));
            assert_non_null(end);
            const size_t room = sizeof(error.message) - 1, one = strlen(ends[e].shown);
            const size_t kept = plain < room ? plain : room;
            const size_t length = (size_t)(end - error.message);
            assert_int_equal(length, kept + (room - kept) / one * one);
            assert_true(length == kept || !strcmp(end - one, ends[e].shown));
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_steers_a_terminal_is_escaped),
        cmocka_unit_test(a_long_message_ends_in_one_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
