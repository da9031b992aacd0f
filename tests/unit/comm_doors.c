/* SPDX-License-Identifier: Apache-2.0 */
/* How a group of ranks begins: by a file that loses its name when all are there. */
#include "tests/unit/comm_crew.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SHORT_NS UINT64_C(300000000)

static void nap(long ms)
{
    (void)nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

/* Group after group of the same name, the last one still there: none finds another's file. */
static enum rt_status meet_again(struct crew *crew, struct rt_comm *c, struct rt_error *err)
{
    struct rt_comm last = {0}, next;
    enum rt_status status = RT_OK;
    for (uint32_t i = 0; i < 50 && status == RT_OK; i++) {
        status = rt_comm_meet(crew->path, c->rank, crew->ranks, CREW_LIMIT_NS, &next, err);
        rt_comm_close(&last);
        last = next;
    }
    rt_comm_close(&last);
    return status;
}

static void test_groups_of_one_name(void **state)
{
    (void)state;
    struct crew crew;
    crew_begin(&crew, 3);
    crew_succeed(&crew, meet_again);
    assert_int_equal(access(crew.path, F_OK), -1);
}

static pid_t start_rank(const struct crew *crew, uint32_t rank)
{
    struct rt_comm c;
    const pid_t pid = fork();
    if (pid == 0)
        _exit((int)rt_comm_meet(crew->path, rank, 2, CREW_LIMIT_NS, &c, NULL));
    return pid;
}

static void await_rank(const struct crew *crew, uint32_t rank)
{
    while (access(crew->path, F_OK) != 0)
        nap(1);
    const struct rt_board door = {.file = open(crew->path, O_RDWR)};
    while (!rt_board_holds(&door, rank))
        nap(1);
    assert_int_equal(close(door.file), 0);
    nap(50); /* and until it waits for the others */
}

/* As a signal's handler takes it, while all are there and rank 0 is about to. */
static void test_a_name_that_is_gone(void **state)
{
    (void)state;
    struct crew crew;
    int status[2];
    crew_begin(&crew, 2);
    const pid_t first = start_rank(&crew, 0);
    await_rank(&crew, 0);
    assert_int_equal(kill(first, SIGSTOP), 0);
    const pid_t second = start_rank(&crew, 1);
    await_rank(&crew, 1);
    assert_int_equal(unlink(crew.path), 0);
    assert_int_equal(kill(first, SIGCONT), 0);
    assert_int_equal(waitpid(first, &status[0], 0), first);
    assert_int_equal(waitpid(second, &status[1], 0), second);
    assert_int_equal(WEXITSTATUS(status[0]), RT_OK);
    assert_int_equal(WEXITSTATUS(status[1]), RT_OK);
    assert_int_equal(access(crew.path, F_OK), -1);
}

static void test_a_file_of_somebody_else(void **state)
{
    (void)state;
    static const char words[] = "not to be lost";
    char kept[sizeof(words)] = "";
    struct crew crew;
    struct rt_comm c;
    struct rt_error err = {.status = RT_OK};
    crew_begin(&crew, 1);
    FILE *file = fopen(crew.path, "w+");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(rt_comm_meet(crew.path, 0, 1, SHORT_NS, &c, &err), RT_OK); /* it is empty */
    rt_comm_close(&c);

    file = fopen(crew.path, "w+");
    assert_non_null(file);
    assert_true(fputs(words, file) >= 0 && fflush(file) == 0);
    assert_int_equal(rt_comm_meet(crew.path, 0, 1, SHORT_NS, &c, &err), RT_ERR_FILE);
    crew_assert_story(
        &err, crew.path,
        "is no group's file, or another version's (0x20746f6e): must be empty, or not be "
        "there");
    rewind(file);
    assert_non_null(fgets(kept, sizeof(kept), file));
    assert_string_equal(kept, words);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(unlink(crew.path), 0);
}

static void test_doors_that_stay_shut(void **state)
{
    (void)state;
    struct crew crew;
    struct rt_comm c;
    struct rt_error err = {.status = RT_OK};
    crew_begin(&crew, 2);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) { /* waits for rank 1 until it is killed */
        (void)rt_comm_meet(crew.path, 0, 2, UINT64_C(60000000000), &c, &err);
        _exit(0);
    }
    struct rt_board seen = {0};
    while (access(crew.path, F_OK) != 0)
        nap(1);
    const struct rt_board door = {.file = open(crew.path, O_RDWR)};
    while (!rt_board_holds(&door, 0))
        nap(1);
    assert_int_equal(close(door.file), 0);
    assert_int_equal(rt_board_open(crew.path, 0, 2, SHORT_NS, &seen, &err), RT_ERR_INVALID);
    crew_assert_story(&err, crew.path, "rank 0 of 2 is there already");
    assert_int_equal(rt_board_open(crew.path, 2, 3, SHORT_NS, &seen, &err), RT_ERR_INVALID);
    crew_assert_story(&err, crew.path, "is a group of 2 ranks, rank 2 is of one of 3");
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    assert_int_equal(unlink(crew.path), 0);

    assert_int_equal(rt_comm_meet("no/such/folder", 0, 2, SHORT_NS, &c, &err), RT_ERR_FILE);
    crew_assert_story(&err, "no/such/folder", "opening failed: No such file or directory");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups_of_one_name),
        cmocka_unit_test(test_a_name_that_is_gone),
        cmocka_unit_test(test_a_file_of_somebody_else),
        cmocka_unit_test(test_doors_that_stay_shut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
