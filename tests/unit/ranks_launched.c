/* SPDX-License-Identifier: Apache-2.0 */
/* What launchers say of a rank, and what they cannot mean. */
#include "replayrt/ranks.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static const char *const all_names[] = {"RANK",
                                        "WORLD_SIZE",
                                        "LOCAL_WORLD_SIZE",
                                        "MASTER_PORT",
                                        "PMI_RANK",
                                        "PMI_SIZE",
                                        "MPI_LOCALNRANKS",
                                        "CUDA_VISIBLE_DEVICES",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "OMPI_COMM_WORLD_LOCAL_SIZE"};

/* "NAME=value NAME=value", and nothing else of these names. */
static void say(const char *words)
{
    char text[256], *rest = text, *word;
    for (size_t i = 0; i < sizeof(all_names) / sizeof(all_names[0]); i++)
        assert_int_equal(unsetenv(all_names[i]), 0);
    (void)snprintf(text, sizeof(text), "%s", words);
    while ((word = strtok_r(rest, " ", &rest))) {
        char *const equals = strchr(word, '=');
        assert_non_null(equals);
        *equals = '\0';
        assert_int_equal(setenv(word, equals + 1, 1), 0);
    }
}

static struct rt_ranks_launch asked(const char *words)
{
    struct rt_ranks_launch l = {.struct_size = sizeof(l)};
    struct rt_error err = {.status = RT_OK};
    say(words);
    if (rt_ranks_launched(getenv, &l, &err) != RT_OK)
        fail_msg("%s: %s", words, err.message);
    assert_int_equal(l.struct_size, sizeof(l));
    return l;
}

static void test_nobody(void **state)
{
    (void)state;
    const struct rt_ranks_launch l = asked("WORLD_SIZE=2 MASTER_PORT=9 CUDA_VISIBLE_DEVICES=3");
    assert_int_equal(l.ranks, 0);
    assert_string_equal(l.path, "");
    assert_string_equal(l.said, "");
}

static void expect_path(const struct rt_ranks_launch *l, const char *format, long number)
{
    char name[64], end[96];
    (void)snprintf(name, sizeof(name), format, number);
    (void)snprintf(end, sizeof(end), "/replayrt-%ld-%s", (long)getuid(), name);
    assert_true(strlen(l->path) > strlen(end));
    assert_string_equal(l->path + strlen(l->path) - strlen(end), end);
}

static void test_launchers(void **state)
{
    (void)state;
    struct rt_ranks_launch l = asked("RANK=1 WORLD_SIZE=4 LOCAL_WORLD_SIZE=4 MASTER_PORT=29500");
    assert_true(l.rank == 1 && l.ranks == 4 && l.device == 1);
    assert_string_equal(l.said, "RANK=1 of WORLD_SIZE=4");
    expect_path(&l, "%ld", 29500);
    l = asked("OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3 OMPI_COMM_WORLD_LOCAL_SIZE=3");
    assert_true(l.rank == 2 && l.ranks == 3 && l.device == 2);
    assert_string_equal(l.said, "OMPI_COMM_WORLD_RANK=2 of OMPI_COMM_WORLD_SIZE=3");
    expect_path(&l, "of-%ld", (long)getppid());
    l = asked("PMI_RANK=0 PMI_SIZE=2 MASTER_PORT=7");
    assert_true(l.rank == 0 && l.ranks == 2);
    expect_path(&l, "%ld", 7);
    l = asked("OMPI_COMM_WORLD_RANK=4294967294 OMPI_COMM_WORLD_SIZE=4294967295");
    assert_string_equal(l.said,
                        "OMPI_COMM_WORLD_RANK=4294967294 of OMPI_COMM_WORLD_SIZE=4294967295");
    /* Under mpirun torchrun's names are the ones of who is nearer. */
    l = asked("RANK=0 WORLD_SIZE=2 MASTER_PORT=5 PMI_RANK=7 PMI_SIZE=8");
    assert_true(l.rank == 0 && l.ranks == 2);
}

static void test_devices(void **state)
{
    (void)state;
    assert_int_equal(asked("PMI_RANK=3 PMI_SIZE=4 CUDA_VISIBLE_DEVICES=0,1,2,3").device, 3);
    assert_int_equal(asked("PMI_RANK=3 PMI_SIZE=4 CUDA_VISIBLE_DEVICES=3").device, 0);
    assert_int_equal(asked("PMI_RANK=3 PMI_SIZE=4 CUDA_VISIBLE_DEVICES=GPU-8a2b").device, 0);
    /* It sees none, and is to be refused by its own number. */
    assert_int_equal(asked("PMI_RANK=3 PMI_SIZE=4 CUDA_VISIBLE_DEVICES=").device, 3);
}

static void refused(const char *words, const char *story)
{
    struct rt_ranks_launch l = {.struct_size = sizeof(l)}, before = l;
    struct rt_error err = {.status = RT_OK};
    say(words);
    assert_int_equal(rt_ranks_launched(getenv, &l, &err), RT_ERR_INVALID);
    assert_string_equal(err.message, story);
    assert_memory_equal(&l, &before, sizeof(l));
}

static void test_refused(void **state)
{
    struct rt_error err = {.status = RT_OK};
    struct rt_ranks_launch l = {.struct_size = 2};
    (void)state;
    refused("RANK=x WORLD_SIZE=2 MASTER_PORT=9",
            "RANK=x in the environment: expected a number from 0 to 4294967295");
    refused("RANK=0 MASTER_PORT=9",
            "WORLD_SIZE= in the environment: expected a number from 0 to 4294967295");
    refused("RANK=0 WORLD_SIZE=-2 MASTER_PORT=9",
            "WORLD_SIZE=-2 in the environment: expected a number from 0 to 4294967295");
    refused("RANK=4294967296 WORLD_SIZE=2 MASTER_PORT=9",
            "RANK=4294967296 in the environment: expected a number from 0 to 4294967295");
    refused("RANK=2 WORLD_SIZE=2 MASTER_PORT=9",
            "RANK=2 of WORLD_SIZE=2 in the environment: no such rank");
    refused("RANK=0 WORLD_SIZE=0 MASTER_PORT=9",
            "RANK=0 of WORLD_SIZE=0 in the environment: no such rank");
    refused("RANK=0 WORLD_SIZE=2",
            "MASTER_PORT= in the environment: expected a number from 0 to 65535");
    refused("PMI_RANK=0 PMI_SIZE=2 MASTER_PORT=65536",
            "MASTER_PORT=65536 in the environment: expected a number from 0 to 65535");
    refused("PMI_RANK=0 PMI_SIZE=4 MPI_LOCALNRANKS=2",
            "MPI_LOCALNRANKS=2 of PMI_SIZE=4: ranks are of one machine");
    refused("PMI_RANK=0 PMI_SIZE=4 MPI_LOCALNRANKS=4x",
            "MPI_LOCALNRANKS=4x in the environment: expected a number from 0 to 4294967295");
    assert_int_equal(rt_ranks_launched(NULL, &l, &err), RT_ERR_INVALID);
    assert_int_equal(rt_ranks_launched(getenv, NULL, &err), RT_ERR_INVALID);
    assert_int_equal(rt_ranks_launched(getenv, &l, &err), RT_ERR_INVALID);
}

/* A caller of a time when it told less. */
static void test_an_older_caller(void **state)
{
    struct rt_ranks_launch l = {.struct_size = 16, .path = "mine"};
    struct rt_error err = {.status = RT_OK};
    (void)state;
    say("PMI_RANK=1 PMI_SIZE=4");
    assert_int_equal(rt_ranks_launched(getenv, &l, &err), RT_OK);
    assert_true(l.struct_size == 16 && l.rank == 1 && l.ranks == 4 && l.device == 1);
    assert_string_equal(l.path, "mine");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nobody),          cmocka_unit_test(test_launchers),
        cmocka_unit_test(test_devices),         cmocka_unit_test(test_refused),
        cmocka_unit_test(test_an_older_caller),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
