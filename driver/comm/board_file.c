/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE /* locks of an open file, not of a process: ranks may be threads */
#include "driver/comm/board.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAGIC 0x52544234u /* "RTB4": another layout has another number */
#define NS_PER_S 1e9

/* Bytes of the file that are locked: the first while it is made or joined, then one a rank. */
#define DOOR 0
#define SEAT(rank) (1 + (off_t)(rank))

static struct flock lock_of(short type, off_t at, off_t count)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = at, .l_len = count};
}

/* False: somebody has it, or there are no locks (errno). */
static bool lock(int file, off_t at)
{
    struct flock l = lock_of(F_WRLCK, at, 1);
    return fcntl(file, F_OFD_SETLK, &l) == 0;
}

static void unlock(int file, off_t at)
{
    struct flock l = lock_of(F_UNLCK, at, 1);
    (void)fcntl(file, F_OFD_SETLK, &l);
}

/* By another open file. */
static bool is_locked(int file, off_t at, off_t count)
{
    struct flock l = lock_of(F_WRLCK, at, count);
    return fcntl(file, F_OFD_GETLK, &l) == 0 && l.l_type != F_UNLCK;
}

bool rt_board_holds(const struct rt_board *b, uint32_t rank)
{
    return is_locked(b->file, SEAT(rank), 1);
}

static size_t lines_bytes(uint32_t ranks)
{
    return sizeof(struct rt_board_page) + ranks * sizeof(struct rt_board_line);
}

static size_t board_bytes(uint32_t ranks)
{
    return lines_bytes(ranks) + 2 * ranks * (size_t)RT_BOARD_SLOT_BYTES;
}

unsigned char *rt_board_slot(const struct rt_board *b, uint32_t rank, uint64_t part)
{
    unsigned char *const slots = (unsigned char *)b->page + lines_bytes(b->ranks);
    return slots + (2 * rank + part % 2) * RT_BOARD_SLOT_BYTES;
}

static enum rt_status file_failed(const char *path, const char *call, struct rt_error *err)
{
    return rt_fail(err, RT_ERR_FILE, "%.200s: %s failed: %s", path, call, strerror(errno));
}

static enum rt_status take_door(struct rt_board *b, const char *path, struct rt_error *err)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    while (!lock(b->file, DOOR)) {
        if (errno != EAGAIN && errno != EACCES)
            return file_failed(path, "locking", err);
        RT_REQUIRE(!rt_board_is_late(b, &w), err, RT_ERR_RANKS,
                   "%.200s: another rank has not come through the door within %.3f s", path,
                   (double)b->limit_ns / NS_PER_S);
        (void)rt_board_pause(&w);
    }
    return RT_OK;
}

/* Nobody is in it: it is new, or of a group that ended before it was complete. Whatever else
 * somebody has in a file of that name is not ours to clear. */
static enum rt_status check_left(const struct rt_board *b, const char *path, struct rt_error *err)
{
    uint32_t magic = 0;
    const ssize_t bytes = pread(b->file, &magic, sizeof(magic), 0);
    if (bytes < 0)
        return file_failed(path, "reading", err);
    RT_REQUIRE(bytes == 0 || magic == MAGIC, err, RT_ERR_FILE,
               "%.200s: is no group's file, or another version's (0x%08" PRIx32
               "): must be empty, or not be there",
               path, magic);
    return RT_OK;
}

/* Room for all of it now: a full file system is an error here and a signal later. Whoever dies in
 * here leaves what check_left takes. */
static enum rt_status make(struct rt_board *b, const char *path, struct rt_error *err)
{
    const size_t bytes = board_bytes(b->ranks);
    const struct rt_board_page page = {.magic = MAGIC, .ranks = b->ranks, .bytes = bytes};
    RT_TRY(check_left(b, path, err));
    if (ftruncate(b->file, 0) != 0)
        return file_failed(path, "clearing the file", err);
    if (pwrite(b->file, &page, sizeof(page), 0) != (ssize_t)sizeof(page))
        return file_failed(path, "writing", err);
    errno = posix_fallocate(b->file, 0, (off_t)bytes);
    return errno == 0 ? RT_OK : file_failed(path, "making room", err);
}

/* Somebody is in it. */
static enum rt_status check(const struct rt_board *b, const char *path, struct rt_error *err)
{
    struct rt_board_page page;
    if (pread(b->file, &page, sizeof(page), 0) != (ssize_t)sizeof(page))
        return file_failed(path, "reading", err);
    RT_REQUIRE(page.magic == MAGIC, err, RT_ERR_FILE,
               "%.200s: is no group's file, or another version's (0x%08" PRIx32 ")", path,
               page.magic);
    RT_REQUIRE(page.ranks == b->ranks && page.bytes == board_bytes(b->ranks), err, RT_ERR_INVALID,
               "%.200s: is a group of %" PRIu32 " ranks, rank %" PRIu32 " is of one of %" PRIu32,
               path, page.ranks, b->rank, b->ranks);
    return RT_OK;
}

/* Behind the door. */
static enum rt_status sit_down(struct rt_board *b, const char *path, struct rt_error *err)
{
    const bool is_new = !is_locked(b->file, SEAT(0), RT_BOARD_MAX_RANKS);
    RT_TRY(is_new ? make(b, path, err) : check(b, path, err));
    RT_REQUIRE(lock(b->file, SEAT(b->rank)), err, RT_ERR_INVALID,
               "%.200s: rank %" PRIu32 " of %" PRIu32 " is there already", path, b->rank, b->ranks);
    void *const page =
        mmap(NULL, board_bytes(b->ranks), PROT_READ | PROT_WRITE, MAP_SHARED, b->file, 0);
    if (page == MAP_FAILED)
        return file_failed(path, "mapping", err);
    b->page = page;
    RT_REQUIRE(rt_board_mine(b)->state == RT_BOARD_ABSENT, err, RT_ERR_INVALID,
               "%.200s: rank %" PRIu32 " of %" PRIu32 " was there before, must be a new group",
               path, b->rank, b->ranks);
    atomic_store(&rt_board_mine(b)->state, RT_BOARD_JOINED);
    return RT_OK;
}

/* Those in front of `rank` that came and are gone, while it has not come. */
static enum rt_status look_for_gone(const struct rt_board *b, uint32_t rank, struct rt_error *err)
{
    struct rt_error why = {.status = RT_OK};
    for (uint32_t r = 0; r < rank; r++) {
        if (r == b->rank || rt_board_is_there(b, r, &why) == RT_OK)
            continue;
        /* It may have come in the meantime, and the other one left for all are there. */
        if (atomic_load(&b->page->lines[rank].state) != RT_BOARD_ABSENT)
            return RT_OK;
        return rt_fail(err, why.status, "%s", why.message);
    }
    return RT_OK;
}

static enum rt_status await_all(const struct rt_board *b, const char *path, struct rt_error *err)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    for (uint32_t r = 0; r < b->ranks; r++)
        while (atomic_load(&b->page->lines[r].state) == RT_BOARD_ABSENT) {
            RT_REQUIRE(!rt_board_is_late(b, &w), err, RT_ERR_RANKS,
                       "%.200s: rank %" PRIu32 " of %" PRIu32 " has not come within %.3f s", path,
                       r, b->ranks, (double)b->limit_ns / NS_PER_S);
            if (rt_board_pause(&w))
                RT_TRY(look_for_gone(b, r, err));
        }
    return RT_OK;
}

/* Rank 0 takes the name away, and nobody goes on before it has: who did could begin the next group
 * of that name in this one's file. */
static enum rt_status take_name(const struct rt_board *b, const char *path, struct rt_error *err)
{
    struct rt_board_wait w = {.begin_ns = rt_board_now_ns()};
    struct rt_error why = {.status = RT_OK};
    /* A rank that a signal ends in these milliseconds may have taken it already, on its way. */
    if (b->rank == 0 && unlink(path) != 0 && errno != ENOENT)
        return file_failed(path, "removing", err);
    if (b->rank == 0)
        atomic_store(&b->page->is_nameless, 1);
    while (!atomic_load(&b->page->is_nameless)) {
        if (!rt_board_pause(&w))
            continue;
        /* It may have done that and left since. */
        if (rt_board_is_there(b, 0, &why) != RT_OK && !atomic_load(&b->page->is_nameless))
            return rt_fail(err, why.status, "%s", why.message);
        RT_REQUIRE(!rt_board_is_late(b, &w), err, RT_ERR_RANKS,
                   "%.200s: rank 0 has not taken the file's name away within %.3f s", path,
                   (double)b->limit_ns / NS_PER_S);
    }
    return RT_OK;
}

static enum rt_status join(struct rt_board *b, const char *path, struct rt_error *err)
{
    b->file = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (b->file < 0)
        return file_failed(path, "opening", err);
    RT_TRY(take_door(b, path, err));
    const enum rt_status status = sit_down(b, path, err);
    unlock(b->file, DOOR);
    RT_TRY(status);
    RT_TRY(await_all(b, path, err));
    return take_name(b, path, err);
}

enum rt_status rt_board_open(const char *path, uint32_t rank, uint32_t ranks, uint64_t limit_ns,
                             struct rt_board *out, struct rt_error *err)
{
    *out = (struct rt_board){.file = -1, .rank = rank, .ranks = ranks, .limit_ns = limit_ns};
    const uint64_t now = rt_board_now_ns();
    for (uint32_t r = 0; r < ranks; r++)
        out->peers[r].moved_ns = now;
    const enum rt_status status = join(out, path, err);
    if (status != RT_OK)
        rt_board_close(out);
    return status;
}

void rt_board_close(struct rt_board *b)
{
    if (b->page) {
        rt_board_leave(b);
        (void)munmap(b->page, board_bytes(b->ranks));
    }
    if (b->ranks > 0 && b->file >= 0)
        (void)close(b->file);
    *b = (struct rt_board){0};
}
