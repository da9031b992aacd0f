/* SPDX-License-Identifier: Apache-2.0 */
/* What launchers of processes tell each of them. */
#include "replayrt/ranks.h"

#include "common/struct_size.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* getenv, or what the caller has in its place. */
typedef char *(*environment_fn)(const char *name);

/* In words of the environment. */
static const struct launcher {
    const char *rank, *ranks, *ranks_here;
} launchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"},                                     /* torchrun */
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"}, /* Open MPI */
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"},                                    /* MPICH */
};

/* The first that has said something; null: nobody has. */
static const struct launcher *find_launcher(environment_fn get)
{
    for (size_t i = 0; i < sizeof(launchers) / sizeof(launchers[0]); i++)
        if (get(launchers[i].rank))
            return &launchers[i];
    return NULL;
}

static enum rt_status read_number(environment_fn get, const char *name, uint32_t most,
                                  uint32_t *out, struct rt_error *err)
{
    const char *const text = get(name);
    char *end = NULL;
    errno = 0;
    const unsigned long value = text && *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
    RT_REQUIRE(end && !*end && !errno && value <= most, err, RT_ERR_INVALID,
               "%s=%.80s in the environment: expected a number from 0 to %" PRIu32, name,
               text ? text : "", most);
    *out = (uint32_t)value;
    return RT_OK;
}

/* A name that all ranks come to and nobody else: the port is the launcher's alone as long as it
 * runs. mpirun gives none, but what starts the ranks of a machine is one process. In memory where
 * there is such a place, for the file is written all the time. */
static enum rt_status name_meeting(environment_fn get, const struct launcher *by,
                                   struct rt_ranks_launch *l, struct rt_error *err)
{
    const char *const folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    const bool has_port = by == launchers || get("MASTER_PORT");
    uint32_t port = 0;
    if (has_port)
        RT_TRY(read_number(get, "MASTER_PORT", UINT16_MAX, &port, err));
    (void)snprintf(l->path, sizeof(l->path), "%s/replayrt-%ld-%s%ld", folder, (long)getuid(),
                   has_port ? "" : "of-", has_port ? (long)port : (long)getppid());
    return RT_OK;
}

/* Ranks of several machines have no memory together. */
static enum rt_status check_machine(environment_fn get, const struct launcher *by, uint32_t ranks,
                                    struct rt_error *err)
{
    uint32_t here = 0;
    if (get(by->ranks_here))
        RT_TRY(read_number(get, by->ranks_here, UINT32_MAX, &here, err));
    RT_REQUIRE(here == 0 || here == ranks, err, RT_ERR_INVALID,
               "%s=%" PRIu32 " of %s=%" PRIu32 ": ranks are of one machine", by->ranks_here, here,
               by->ranks, ranks);
    return RT_OK;
}

static bool sees_one_device(environment_fn get)
{
    const char *const visible = get("CUDA_VISIBLE_DEVICES");
    return visible && *visible && !strchr(visible, ',');
}

static enum rt_status ask(environment_fn get, const struct launcher *by, struct rt_ranks_launch *l,
                          struct rt_error *err)
{
    RT_TRY(read_number(get, by->ranks, UINT32_MAX, &l->ranks, err));
    RT_TRY(read_number(get, by->rank, UINT32_MAX, &l->rank, err));
    (void)snprintf(l->said, sizeof(l->said), "%s=%" PRIu32 " of %s=%" PRIu32, by->rank, l->rank,
                   by->ranks, l->ranks);
    RT_REQUIRE(l->rank < l->ranks, err, RT_ERR_INVALID, "%s in the environment: no such rank",
               l->said);
    RT_TRY(name_meeting(get, by, l, err));
    RT_TRY(check_machine(get, by, l->ranks, err));
    l->device = sees_one_device(get) ? 0 : l->rank;
    return RT_OK;
}

enum rt_status rt_ranks_launched(char *(*environment)(const char *name),
                                 struct rt_ranks_launch *out, struct rt_error *error)
{
    struct rt_ranks_launch mine = {.ranks = 0};
    RT_REQUIRE(environment, error, RT_ERR_INVALID, "rt_ranks_launched: environment is null");
    RT_CHECK_STRUCT(out, error);
    const struct launcher *const by = find_launcher(environment);
    if (by)
        RT_TRY(ask(environment, by, &mine, error));
    rt_struct_write(out, &mine, sizeof(mine));
    return RT_OK;
}
