/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/rank_crew.h"

#include "tools/complain.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How long rank 0 waits for the end of those that it has started: of their own accord, behind a
 * SIGTERM, and behind a SIGKILL. */
#define ENDS_MS 30000
#define TERMINATED_MS 2000
#define KILLED_MS 5000

/* In memory where there is such a place: the ranks' file is written all the time. */
static const char *folder(void)
{
    return access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

/* ---- a launcher's ---------------------------------------------------------------------------- */

/* False after a message: it is there and no number up to `most`. */
static bool read_number(const char *name, uint32_t most, uint32_t *out)
{
    const char *const text = getenv(name);
    char *end = NULL;
    errno = 0;
    const unsigned long value = text && *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : 0;
    if (!end || *end || errno || value > most) {
        complain("%s=%s in the environment: expected a number from 0 to %" PRIu32, name,
                 text ? text : "", most);
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

/* What launchers say of a rank. */
static const struct launcher {
    const char *rank, *size, *local_size;
} launchers[] = {
    {"RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"},                                     /* torchrun */
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"}, /* Open MPI */
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"},                                    /* MPICH */
};

/* The first that has said something; null: nobody has. */
static const struct launcher *find_launcher(void)
{
    for (size_t i = 0; i < sizeof(launchers) / sizeof(launchers[0]); i++)
        if (getenv(launchers[i].rank))
            return &launchers[i];
    return NULL;
}

/* A name that all ranks come to and nobody else: the port is the launcher's alone as long as it
 * runs. mpirun gives none, but what starts the ranks of a machine is one process. */
static bool name_meeting(const struct launcher *by, struct rank_crew *crew)
{
    uint32_t port = 0;
    const bool has_port = by == launchers || getenv("MASTER_PORT");
    if (has_port && !read_number("MASTER_PORT", UINT16_MAX, &port))
        return false;
    (void)snprintf(crew->path, sizeof(crew->path), "%s/replayrt-%ld-%s%ld", folder(),
                   (long)getuid(), has_port ? "" : "of-", has_port ? (long)port : (long)getppid());
    return true;
}

static bool join(const struct launcher *by, uint32_t ranks, struct rank_crew *crew)
{
    uint32_t world = 0, here = 0;
    if (!read_number(by->size, UINT32_MAX, &world) ||
        !read_number(by->rank, UINT32_MAX, &crew->rank) || !name_meeting(by, crew))
        return false;
    if (getenv(by->local_size) && !read_number(by->local_size, UINT32_MAX, &here))
        return false;
    if (here && here != world) {
        complain("%s=%" PRIu32 " of %s=%" PRIu32 ": ranks are of one machine", by->local_size, here,
                 by->size, world);
        return false;
    }
    if (world != ranks || crew->rank >= world) {
        complain("--ranks %" PRIu32 ", but this is %s=%" PRIu32 " of %s=%" PRIu32, ranks, by->rank,
                 crew->rank, by->size, world);
        return false;
    }
    return true;
}

/* ---- our own --------------------------------------------------------------------------------- */

/* Rank 0's words are enough: the others' go nowhere, but for what they complain of. */
static bool be_silent(void)
{
    return freopen("/dev/null", "w", stdout) != NULL;
}

static bool start(struct rank_crew *crew)
{
    crew->first = getpid();
    (void)snprintf(crew->path, sizeof(crew->path), "%s/replayrt-%ld", folder(), (long)getpid());
    for (uint32_t rank = 1; rank < crew->ranks; rank++) {
        (void)fflush(NULL);
        const pid_t pid = fork();
        if (pid < 0) {
            complain("rank %" PRIu32 " of %" PRIu32 " cannot be started: %s", rank, crew->ranks,
                     strerror(errno));
            return false;
        }
        if (pid == 0) {
            crew->rank = rank;
            crew->started_count = 0;
            return be_silent();
        }
        crew->started[crew->started_count++] = pid;
    }
    return true;
}

/* ---- either ---------------------------------------------------------------------------------- */

/* Events around every exchange of a graph let NCCL order exchanges of several streams. Here all are
 * on one stream, and each costs a microsecond on the device and one of the launch. */
static bool want_one_stream(void)
{
    return setenv("NCCL_GRAPH_MIXING_SUPPORT", "0", 0) == 0;
}

bool rank_crew_begin(uint32_t ranks, struct rank_crew *crew)
{
    *crew = (struct rank_crew){.ranks = ranks};
    if (!want_one_stream()) {
        complain("the environment has no room for NCCL_GRAPH_MIXING_SUPPORT: %s", strerror(errno));
        return false;
    }
    const struct launcher *const by = find_launcher();
    crew->launched = by != NULL;
    return by ? join(by, ranks, crew) : start(crew);
}

/* Of ranks that were started here all see the same GPUs. */
static bool sees_one_alone(const struct rank_crew *crew)
{
    const char *const visible = crew->launched ? getenv("CUDA_VISIBLE_DEVICES") : NULL;
    return visible && *visible && !strchr(visible, ',');
}

void rank_crew_device(const struct rank_crew *crew, char *device, size_t bytes)
{
    if (strcmp(device, "host") != 0)
        (void)snprintf(device, bytes, "cuda:%" PRIu32, sees_one_alone(crew) ? 0 : crew->rank);
}

/* False: it is still there. status: its exit status; -1 where there is nobody to wait for. */
static bool ends_within(pid_t pid, uint32_t limit_ms, int *status)
{
    for (uint32_t ms = 0;; ms++) {
        const pid_t ended = waitpid(pid, status, WNOHANG);
        if (ended < 0 && errno != EINTR)
            *status = -1;
        if (ended > 0 || *status == -1)
            return true;
        if (ms == limit_ms)
            return false;
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* Who is stopped, or deep in a driver, hears nothing else. */
static void kill_one(pid_t pid)
{
    int status = 0;
    (void)kill(pid, SIGKILL);
    (void)ends_within(pid, KILLED_MS, &status);
}

/* False after a message: it has not ended well, and nobody knows of it yet. */
static bool see_off(uint32_t rank, pid_t pid)
{
    int status = 0;
    if (!ends_within(pid, ENDS_MS, &status)) {
        complain("rank %" PRIu32 " has not ended within %d s of rank 0's end: it is killed", rank,
                 ENDS_MS / 1000);
        kill_one(pid);
        return false;
    }
    if (status != 0 && WIFSIGNALED(status))
        complain("rank %" PRIu32 " was ended by signal %d", rank, WTERMSIG(status));
    else if (status != 0)
        complain("rank %" PRIu32 " has failed with exit code %d", rank, WEXITSTATUS(status));
    return status == 0;
}

/* A group that never was complete leaves its file, whose name, a process's number, is nobody
 * else's: rank 0 takes it away behind all others, or who has lost rank 0. */
static void clear_up(const struct rank_crew *crew)
{
    if (crew->first && (crew->rank == 0 || getppid() != crew->first))
        (void)unlink(crew->path);
}

bool rank_crew_end(struct rank_crew *crew, bool failed)
{
    bool good = true;
    int status = 0;
    uint32_t patience_ms = TERMINATED_MS; /* of all of them together */
    for (uint32_t i = 0; failed && i < crew->started_count; i++)
        (void)kill(crew->started[i], SIGTERM);
    for (uint32_t i = 0; i < crew->started_count; i++)
        if (!failed)
            good &= see_off(i + 1, crew->started[i]);
        else if (!ends_within(crew->started[i], patience_ms, &status)) {
            kill_one(crew->started[i]);
            patience_ms = 0;
        }
    crew->started_count = 0;
    clear_up(crew);
    return good;
}

void rank_crew_leave(int code)
{
    (void)fflush(NULL);
    _exit(code);
}
