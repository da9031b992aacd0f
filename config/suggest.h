/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_SUGGEST_H
#define RT_CONFIG_SUGGEST_H

/* What a misspelt word was meant to be. */
#include <stdint.h>

/* Words of more characters than this are compared by their beginning. */
#define RT_SUGGEST_MAX_CHARS 32u

/* Insertions, deletions and replacements, case aside, that turn one word into the other. */
uint32_t rt_edit_distance(const char *a, const char *b);

#endif
