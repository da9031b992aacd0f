/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_DRIVER_COMM_BOARD_H
#define RT_DRIVER_COMM_BOARD_H

/*
 * A file that the ranks of one machine share in memory: who is there, what each does next, and on
 * the host device what they exchange. Ranks are processes or threads, each with a board of its own.
 *
 *   page | line of rank 0 | line of rank 1 | ... | slots [ranks, 2, RT_BOARD_SLOT_BYTES]
 *          written by rank 0 alone                 likewise
 *
 * Nothing here is ever waited for without a limit. Who is alive is known by a lock on the file that
 * the system takes back when a process ends, whatever ended it.
 */
#include "common/check.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RT_BOARD_MAX_RANKS 64u
#define RT_BOARD_STEPS 128u /* that a line remembers: more than a ring has */
#define RT_BOARD_SLOT_BYTES (UINT64_C(256) << 10)
#define RT_BOARD_ID_BYTES 128u
#define RT_BOARD_STORY_BYTES 256u

/* What ranks must agree on in a step: name, words. */
#define RT_BOARD_FIELDS(X)                                                                         \
    X(BUCKET, "batch size")                                                                        \
    X(QUERY_LEN, "query length")                                                                   \
    X(CHUNK, "tokens of a chunk")                                                                  \
    X(ROWS, "live rows") /* or none: an idle rank */                                               \
    X(LAYERS, "layers")                                                                            \
    X(STAGES, "exchanges behind stages")                                                           \
    X(CONTEXT, "ranks of a context")                                                               \
    X(SHARED_ROWS, "live rows of a shared context") /* which no rank may leave out */              \
    X(TOKENS, "tokens of its live rows")            /* these two not of an idle rank */            \
    X(SHARES, "the digest of its rows' tokens")     /* of how many each has, and how many stay */

enum rt_board_field {
#define RT_BOARD_FIELD_ENUM(name, words) RT_BOARD_##name,
    RT_BOARD_FIELDS(RT_BOARD_FIELD_ENUM)
#undef RT_BOARD_FIELD_ENUM
        RT_BOARD_FIELD_COUNT
};

/* And in an exchange: kind, dtype, elements, ranks of a group. */
enum { RT_BOARD_KIND, RT_BOARD_DTYPE, RT_BOARD_COUNT, RT_BOARD_GROUP, RT_BOARD_CALL_WORDS };

enum rt_board_state { RT_BOARD_ABSENT, RT_BOARD_JOINED, RT_BOARD_LEFT, RT_BOARD_FAILED };

/* `step` is written last, and 0 while the rest is written. */
struct rt_board_step {
    _Atomic uint64_t step;
    _Atomic uint32_t fields[RT_BOARD_FIELD_COUNT];
};

struct rt_board_line {
    _Alignas(64) _Atomic uint32_t state;            /* enum rt_board_state */
    _Atomic uint32_t let_go;                        /* it has no other's memory open any more */
    _Atomic uint64_t step;                          /* the last that was posted; 0: none */
    _Atomic uint64_t part;                          /* of exchanges, likewise: its slot is full */
    _Atomic uint64_t calls[2][RT_BOARD_CALL_WORDS]; /* what a part is of, by its number's parity */
    struct rt_board_step steps[RT_BOARD_STEPS];     /* by step % RT_BOARD_STEPS */
    char story[RT_BOARD_STORY_BYTES];               /* why it FAILED */
};

struct rt_board_page {
    uint32_t magic, ranks;
    uint64_t bytes;
    _Atomic uint32_t is_nameless; /* rank 0 has taken the file's name away */
    _Atomic uint32_t has_id;
    unsigned char id[RT_BOARD_ID_BYTES]; /* rank 0's word to all */
    struct rt_board_line lines[];
};

struct rt_board {
    int file;
    struct rt_board_page *page;
    uint32_t rank, ranks;
    uint64_t limit_ns;
    uint64_t step, part; /* as this rank's line has them */
    struct {
        uint64_t agreed;   /* the last step in which it did what we do */
        uint64_t step;     /* where it was when it was last seen to move */
        uint64_t moved_ns; /* and when that was */
    } peers[RT_BOARD_MAX_RANKS];
};

/* ---- board_file.c ---- */

/*
 * Makes the file or joins it, and waits until all ranks have. Then it has no name any more: nothing
 * is left behind, and the next group may have the same. A group's file that nobody holds is of one
 * that ended before it was complete, and is begun anew; any other that is not empty is refused as
 * it is.
 * RT_ERR_FILE, RT_ERR_INVALID: a group of another size, a rank that is there already; RT_ERR_RANKS:
 * some do not come within the limit, or have gone. *out is zeroed then.
 */
enum rt_status rt_board_open(const char *path, uint32_t rank, uint32_t ranks, uint64_t limit_ns,
                             struct rt_board *out, struct rt_error *err);
/* Accepts a zeroed one. The others see that this rank has left. */
void rt_board_close(struct rt_board *b);
/* The rank's process, or its board, is still there. */
bool rt_board_holds(const struct rt_board *b, uint32_t rank);

/* ---- board.c ---- */

/* Tells the others what this rank's next step is, and looks whether those that are as far do the
 * same. Does not wait. RT_ERR_RANKS; then nothing of it is to be done. */
enum rt_status rt_board_post(struct rt_board *b, const uint32_t fields[RT_BOARD_FIELD_COUNT],
                             struct rt_error *err);
/* For who waits, about once a millisecond: RT_ERR_RANKS where a rank does something else, has
 * failed, left or gone before it did this rank's last step, or has not begun it for the limit. */
enum rt_status rt_board_look(struct rt_board *b, struct rt_error *err);
/* This rank is good for nothing any more, and why. The first story counts. */
void rt_board_give_up(struct rt_board *b, const char *story);

/* All ranks have this part: its call is `words` everywhere. Blocks, at most for the limit. */
enum rt_status rt_board_meet(struct rt_board *b, const uint64_t words[RT_BOARD_CALL_WORDS],
                             struct rt_error *err);
/* A rank's slot of the part that is next, before rt_board_meet, or was met, behind it. */
unsigned char *rt_board_slot(const struct rt_board *b, uint32_t rank, uint64_t part);

/* Rank 0's bytes to all of them: written by rank 0, waited for by the others. */
void rt_board_give_id(struct rt_board *b, const unsigned char id[RT_BOARD_ID_BYTES]);
enum rt_status rt_board_take_id(struct rt_board *b, unsigned char id[RT_BOARD_ID_BYTES],
                                struct rt_error *err);

/* The others learn that this rank has left, if it has not failed. */
void rt_board_leave(struct rt_board *b);
/* Likewise, and it has closed what it had open of the others' memory. */
void rt_board_let_go(struct rt_board *b);
/* All others have, or are gone: what is ours may be freed. False: not within the time. */
bool rt_board_all_let_go(const struct rt_board *b, uint64_t limit_ns);

/* ---- either ---- */

struct rt_board_wait {
    uint64_t begin_ns, looked_ns;
    uint32_t turns;
};
uint64_t rt_board_now_ns(void);
/* Spins at first, then yields, then sleeps; true about once a millisecond. */
bool rt_board_pause(struct rt_board_wait *w);
static inline bool rt_board_is_late(const struct rt_board *b, const struct rt_board_wait *w)
{
    return rt_board_now_ns() - w->begin_ns > b->limit_ns;
}
static inline struct rt_board_line *rt_board_mine(const struct rt_board *b)
{
    return &b->page->lines[b->rank];
}
/* For a rank that is waited for: RT_ERR_RANKS where it has failed, left or is gone. */
enum rt_status rt_board_is_there(const struct rt_board *b, uint32_t rank, struct rt_error *err);
/* The same of every rank but this one; err is left alone where all are there. */
enum rt_status rt_board_others_are_there(const struct rt_board *b, struct rt_error *err);

#endif
