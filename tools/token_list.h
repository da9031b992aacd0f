/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_TOKEN_LIST_H
#define RT_TOOLS_TOKEN_LIST_H

/* Token ids as a command line has them: 5,7,9. */
#include <stdbool.h>
#include <stdint.h>

struct token_list {
    int32_t *ids; /* owned */
    uint32_t count;
};

/* At least one id, each from 0 to 2147483647, nothing but commas between them. False after a
 * message on stderr that names the option and what is wrong in its value; *out is empty then. */
bool token_list_read(const char *option, const char *text, struct token_list *out);
/* Accepts an empty one and leaves one. */
void token_list_free(struct token_list *list);

#endif
