/* SPDX-License-Identifier: Apache-2.0 */
/* Ranks of a command: which device each has, how they end, and how a command does while a thread is
 * left in a library: with its words and its code. */
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
#include <time.h>
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

/* ---- how those that were started end --------------------------------------------------------- */

/* Of four ranks each started one does its part, and does not return. */
static void begin_crew(struct rank_crew *crew, void (*part)(uint32_t rank))
{
    assert_int_equal(rank_crew_begin(4, "host", NULL, crew), 0);
    if (crew->rank > 0)
        part(crew->rank);
    assert_int_equal(crew->started_count, 3);
}

static double seconds(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void end_by_rank(uint32_t rank)
{
    if (rank == 3)
        (void)raise(SIGKILL);
    _exit(rank == 2 ? 4 : 0);
}

static void end_well(uint32_t rank)
{
    (void)rank;
    _exit(0);
}

static void test_how_they_end(void **state)
{
    struct rank_crew crew;
    (void)state;
    begin_crew(&crew, end_well);
    assert_true(rank_crew_end(&crew, false));
    assert_true(rank_crew_end(&crew, false)); /* of nobody any more */
    begin_crew(&crew, end_by_rank);
    assert_false(rank_crew_end(&crew, false));
    (void)signal(SIGCHLD, SIG_IGN); /* inherited: who ends is nobody's child */
    begin_crew(&crew, end_well);
    assert_true(rank_crew_end(&crew, false));
}

/* Two are stopped, and hear no SIGTERM; one does not care for it. */
static void be_stuck(uint32_t rank)
{
    if (rank == 3)
        (void)signal(SIGTERM, SIG_IGN);
    (void)raise(SIGSTOP);
    for (;;)
        (void)pause();
}

static void test_who_does_not_end(void **state)
{
    struct rank_crew crew;
    pid_t pids[3];
    (void)state;
    begin_crew(&crew, be_stuck);
    memcpy(pids, crew.started, sizeof(pids));
    for (int i = 0; i < 3; i++) {
        siginfo_t info;
        assert_int_equal(waitid(P_PID, (id_t)pids[i], &info, WSTOPPED | WNOWAIT), 0);
    }
    assert_int_equal(kill(pids[2], SIGCONT), 0);
    const double begun = seconds();
    assert_true(rank_crew_end(&crew, true)); /* rank 0 has told of its own failure */
    assert_true(seconds() - begun < 8);
    for (int i = 0; i < 3; i++)
        assert_int_equal(kill(pids[i], 0), -1);
}

/* ---- what they leave ------------------------------------------------------------------------- */

/* As a group that never was complete leaves it. */
static void make_file(const char *path)
{
    FILE *const file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
}

static bool is_gone_within(const char *path, int ms)
{
    while (access(path, F_OK) == 0 && ms-- > 0)
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    return access(path, F_OK) != 0;
}

/* Rank 1 of a command whose rank 0 dies. */
static _Noreturn void die_before_the_other(int to)
{
    struct rank_crew crew;
    if (rank_crew_begin(2, "host", NULL, &crew) != 0)
        _exit(99);
    if (crew.rank == 0) {
        make_file(crew.path);
        if (write(to, crew.path, sizeof(crew.path)) == (ssize_t)sizeof(crew.path))
            (void)raise(SIGKILL);
        _exit(99);
    }
    while (getppid() == crew.first)
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    (void)rank_crew_end(&crew, true);
    _exit(1);
}

static void test_no_file_is_left(void **state)
{
    struct rank_crew crew;
    char path[sizeof(crew.path)];
    int ends[2], status = 0;
    (void)state;
    begin_crew(&crew, end_well);
    make_file(crew.path);
    assert_true(rank_crew_end(&crew, true));
    assert_true(is_gone_within(crew.path, 0));

    assert_int_equal(pipe(ends), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        die_before_the_other(ends[1]);
    assert_int_equal(read(ends[0], path, sizeof(path)), sizeof(path));
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    assert_true(is_gone_within(path, 5000));
    assert_int_equal(close(ends[0]), 0);
    assert_int_equal(close(ends[1]), 0);
}

/* Both ranks have come to the file, and wait. */
static _Noreturn void wait_for_a_signal(int to)
{
    struct rank_crew crew;
    if (setpgid(0, 0) != 0 || signal(SIGHUP, SIG_IGN) == SIG_ERR ||
        rank_crew_begin(2, "host", NULL, &crew) != 0)
        _exit(99);
    if (crew.rank == 0)
        make_file(crew.path);
    if (write(to, crew.path, sizeof(crew.path)) != (ssize_t)sizeof(crew.path))
        _exit(99);
    for (;;)
        (void)pause();
}

/* As a terminal sends it, to all of them; what is ignored ends nobody. */
static void test_no_file_is_left_by_a_signal(void **state)
{
    static const int numbers[] = {SIGINT, SIGTERM};
    (void)state;
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        char path[sizeof(((struct rank_crew *)0)->path)];
        int ends[2], status = 0;
        assert_int_equal(pipe(ends), 0);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
            wait_for_a_signal(ends[1]);
        for (int rank = 0; rank < 2; rank++)
            assert_int_equal(read(ends[0], path, sizeof(path)), sizeof(path));
        assert_int_equal(kill(-pid, SIGHUP), 0);
        assert_int_equal(access(path, F_OK), 0);
        assert_int_equal(kill(-pid, numbers[i]), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == numbers[i]);
        assert_true(is_gone_within(path, 5000));
        assert_int_equal(close(ends[0]), 0);
        assert_int_equal(close(ends[1]), 0);
    }
}

/* A launcher's ranks have a name that the next ones may have, too. */
static void test_a_launchers_file_stays(void **state)
{
    struct rank_crew crew;
    (void)state;
    assert_int_equal(setenv("OMPI_COMM_WORLD_RANK", "0", 1), 0);
    assert_int_equal(setenv("OMPI_COMM_WORLD_SIZE", "1", 1), 0);
    assert_int_equal(rank_crew_begin(1, "host", NULL, &crew), 0);
    assert_true(crew.first == 0 && crew.rank == 0 && crew.started_count == 0);
    make_file(crew.path);
    assert_true(rank_crew_end(&crew, true));
    assert_int_equal(unlink(crew.path), 0);
    assert_int_equal(unsetenv("OMPI_COMM_WORLD_RANK"), 0);
    assert_int_equal(unsetenv("OMPI_COMM_WORLD_SIZE"), 0);
}

/* ---- devices --------------------------------------------------------------------------------- */

/* The number of one GPU cannot be that of all ranks; nobody is started for it. */
static void test_one_gpu_is_refused(void **state)
{
    struct rank_crew crew;
    (void)state;
    assert_int_equal(rank_crew_begin(2, "cuda:1", NULL, &crew), 2); /* EXIT_USAGE */
    assert_true(crew.started_count == 0 && crew.first == 0);
    assert_true(rank_crew_end(&crew, true));
}

static void expect_device(const struct rank_crew *crew, const char *asked, const char *expected)
{
    char device[32];
    (void)snprintf(device, sizeof(device), "%s", asked);
    rank_crew_device(crew, device, sizeof(device));
    assert_string_equal(device, expected);
}

static void test_devices(void **state)
{
    const struct rank_crew crew = {.rank = 3, .ranks = 4, .device = 2};
    (void)state;
    expect_device(&crew, "auto", "cuda:2");
    expect_device(&crew, "cuda:7", "cuda:2");
    expect_device(&crew, "host", "host");
}

int main(void)
{
    (void)unsetenv("RANK");
    (void)unsetenv("OMPI_COMM_WORLD_RANK");
    (void)unsetenv("PMI_RANK");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_exit_handler_runs),
        cmocka_unit_test(test_how_they_end),
        cmocka_unit_test(test_who_does_not_end),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_no_file_is_left),
        cmocka_unit_test(test_one_gpu_is_refused),
        cmocka_unit_test(test_a_launchers_file_stays),
        cmocka_unit_test(test_no_file_is_left_by_a_signal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
