/* SPDX-License-Identifier: Apache-2.0 */
/* How a command ends while a thread is left in a library: with its words and its code. */
#include "tools/rank_crew.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* As an exit handler that takes a library apart under its threads. */
static void crash(void)
{
    (void)raise(SIGSEGV);
}

/* The words are in the stream's buffer alone when it leaves. */
static void leave(int to, bool at_once)
{
    FILE *const out = fdopen(to, "w");
    if (!out || atexit(crash) != 0)
        _exit(99);
    (void)fputs("what it said", out);
    if (at_once)
        rank_crew_leave(3);
    exit(3);
}

static int status_of(bool at_once, char said[32])
{
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        leave(ends[1], at_once);
    assert_int_equal(close(ends[1]), 0);
    const ssize_t bytes = read(ends[0], said, 31);
    assert_true(bytes >= 0);
    said[bytes] = '\0';
    assert_int_equal(close(ends[0]), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void test_no_exit_handler_runs(void **state)
{
    char said[32];
    (void)state;
    (void)signal(SIGSEGV, SIG_DFL); /* a sanitizer's would make an exit code of it */
    const int exited = status_of(false, said);
    assert_true(WIFSIGNALED(exited) && WTERMSIG(exited) == SIGSEGV); /* the handler is one */
    const int left = status_of(true, said);
    assert_true(WIFEXITED(left) && WEXITSTATUS(left) == 3);
    assert_string_equal(said, "what it said");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_exit_handler_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
