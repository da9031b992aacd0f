/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/rank_crew.h"

#include "replayrt/ranks.h"
#include "tools/commands.h"
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

static int join(const struct rt_ranks_launch *launch, struct rank_crew *crew)
{
    if (launch->ranks != crew->ranks) {
        complain("--ranks %" PRIu32 ", but this is %s", crew->ranks, launch->said);
        return EXIT_FAILED;
    }
    crew->rank = launch->rank;
    crew->device = launch->device;
    (void)snprintf(crew->path, sizeof(crew->path), "%s", launch->path);
    return EXIT_OK;
}

/* ---- our own --------------------------------------------------------------------------------- */

/* Of the file where our own ranks meet: a handler is given nothing else. */
static char meeting[sizeof(((struct rank_crew *)0)->path)];

static void take_away(int number)
{
    (void)unlink(meeting);
    (void)raise(number); /* to what it would have done, once this has returned */
}

/* Before all have met the file has a name, of which nobody is left to clear up where a signal ends
 * them all, as Ctrl-C does. What this process was told to ignore it goes on to. */
static void clear_up_behind_signals(const struct rank_crew *crew)
{
    static const int ending[] = {SIGHUP, SIGINT, SIGTERM};
    const struct sigaction taken = {.sa_handler = take_away, .sa_flags = (int)SA_RESETHAND};
    struct sigaction was;
    (void)snprintf(meeting, sizeof(meeting), "%s", crew->path);
    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
        if (sigaction(ending[i], NULL, &was) == 0 && was.sa_handler == SIG_DFL)
            (void)sigaction(ending[i], &taken, NULL);
}

/* Rank 0's words are enough: the others' go nowhere, but for what they complain of. */
static bool be_silent(void)
{
    return freopen("/dev/null", "w", stdout) != NULL;
}

static int start(struct rank_crew *crew)
{
    (void)signal(SIGCHLD,
                 SIG_DFL); /* who ignores it, as we may have been told to, has no exit codes */
    crew->first = getpid();
    (void)snprintf(crew->path, sizeof(crew->path), "%s/replayrt-%ld", folder(), (long)getpid());
    clear_up_behind_signals(crew);
    for (uint32_t rank = 1; rank < crew->ranks; rank++) {
        (void)fflush(NULL);
        const pid_t pid = fork();
        if (pid < 0) {
            complain("rank %" PRIu32 " of %" PRIu32 " cannot be started: %s", rank, crew->ranks,
                     strerror(errno));
            return EXIT_FAILED;
        }
        if (pid == 0) {
            crew->rank = crew->device = rank;
            crew->started_count = 0;
            return be_silent() ? EXIT_OK : EXIT_FAILED;
        }
        crew->started[crew->started_count++] = pid;
    }
    return EXIT_OK;
}

/* ---- either ---------------------------------------------------------------------------------- */

/* Events around every exchange of a graph let NCCL order exchanges of several streams. Here all are
 * on one stream, and each costs a microsecond on the device and one of the launch. */
static bool want_one_stream(void)
{
    return setenv("NCCL_GRAPH_MIXING_SUPPORT", "0", 0) == 0;
}

bool rank_crew_suits(const struct rt_config *config, uint32_t ranks)
{
    const uint32_t heads = config->geometry.heads, context = config->context_parallel;
    char can[256] = "";
    if (context > 1 && ranks % context != 0) {
        complain("context_parallel is %" PRIu32 ": must divide --ranks %" PRIu32, context, ranks);
        return false;
    }
    if (heads % ranks == 0)
        return true;
    for (uint32_t n = 1; n <= heads && n <= RT_MAX_RANKS; n++)
        if (heads % n == 0)
            (void)snprintf(can + strlen(can), sizeof(can) - strlen(can), "%s%" PRIu32,
                           n == 1 ? "" : ", ", n);
    complain("%" PRIu32 " heads cannot be cut evenly over %" PRIu32 " ranks: %s ranks can be",
             heads, ranks, can);
    return false;
}

int rank_crew_begin(uint32_t ranks, const char *device, const struct rt_config *config,
                    struct rank_crew *crew)
{
    *crew = (struct rank_crew){.ranks = ranks};
    if (strcmp(device, "auto") != 0 && strcmp(device, "host") != 0) {
        complain("device %s with --ranks %" PRIu32 ": rank r is on cuda:r, by auto, or all are on "
                 "the host, by host",
                 device, ranks);
        return EXIT_USAGE;
    }
    if (!want_one_stream()) {
        complain("the environment has no room for NCCL_GRAPH_MIXING_SUPPORT: %s", strerror(errno));
        return EXIT_FAILED;
    }
    struct rt_ranks_launch launch = {.struct_size = sizeof(launch)};
    struct rt_error error = {.status = RT_OK};
    if (rt_ranks_launched(getenv, &launch, &error) != RT_OK) {
        complain("%s", error.message);
        return EXIT_FAILED;
    }
    if (launch.ranks) /* each has a configuration of its own, and tells the others of it */
        return join(&launch, crew);
    return !config || rank_crew_suits(config, ranks) ? start(crew) : EXIT_USAGE;
}

void rank_crew_device(const struct rank_crew *crew, char *device, size_t bytes)
{
    if (strcmp(device, "host") != 0)
        (void)snprintf(device, bytes, "cuda:%" PRIu32, crew->device);
}

/* False: it is still there. status: its exit status; -1 where there is nobody to wait for. */
static bool ends_within(pid_t pid, uint32_t limit_ms, int *status)
{
    *status = 0;
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
    uint32_t patience_ms = TERMINATED_MS; /* none any more behind the first that had to be killed */
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
