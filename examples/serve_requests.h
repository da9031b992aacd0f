/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_EXAMPLES_SERVE_REQUESTS_H
#define RT_EXAMPLES_SERVE_REQUESTS_H

#include "replayrt/status.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/*
 * Requests as JSON lines, an object each:
 *
 *   {"id": "a", "prompt_ids": [5, 7, 9], "max_new_tokens": 4, "arrive_step": 2}
 *
 * id is a string or a whole number, and comes back as it stands here; arrive_step may be missing,
 * 0. A line that is none is a request all the same, with an error: who sent it gets an answer.
 */
struct request {
    uint32_t line; /* of the input, from 1 */
    char *id;      /* its JSON text; null where the line has none that could be read */
    int32_t *prompt;
    uint32_t length; /* ids of it */
    uint32_t wanted; /* max_new_tokens */
    uint64_t arrives;
    struct rt_error error; /* RT_OK where the line is a request */
};

struct requests {
    struct request *list; /* by arrival; of one step in the order of their lines */
    uint32_t count;
};

/* All there are in the file. False, with what is in *out to be freed: it cannot be read, or there
 * is no memory for it. */
bool requests_read(FILE *file, struct requests *out);
void requests_free(struct requests *requests);

#endif
