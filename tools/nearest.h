/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_NEAREST_H
#define RT_TOOLS_NEAREST_H

/*
 * What a mistyped word was meant to be: the word of the list that fewest insertions, deletions,
 * replacements and swaps of neighbours turn it into. Null where even that would change more than a
 * third of it, or two are equally near.
 */
const char *nearest(const char *typed, const char *const *words, unsigned count);

#endif
