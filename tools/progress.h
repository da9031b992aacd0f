/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_PROGRESS_H
#define RT_TOOLS_PROGRESS_H

/* How far something is, on one line of stderr that goes away again: on a terminal alone. */
#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool terminal;
    bool shown;       /* a line of it is there */
    uint64_t percent; /* that it shows */
    const char *what;
};

struct progress progress_begin(void);
/* `what` is static text. */
void progress_show(struct progress *progress, const char *what, uint64_t done, uint64_t total);
/* Takes the line away, so that another one may be written. */
void progress_end(struct progress *progress);

#endif
