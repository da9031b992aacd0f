/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_WORDS_H
#define RT_TESTS_EMU_WORDS_H

/*
 * Words that blocks of a grid hand to each other by relaxed loads and stores: blank, 0xffffffff,
 * until they are stored. Each lands by itself, at any later moment. Until the grid is over only
 * relaxed loads see them: to any other access they stay blank.
 */
void emu_words_begin(void); /* of a grid */
void emu_words_end(void);   /* what is on its way lands, and all of it is in memory */
bool emu_words_pending(void);
void emu_words_land(void); /* one of them, any */
/* Threads that wait look once more, and find nothing; false: nobody waits, or all have looked often
 * and stored nothing. */
bool emu_words_try_again(void);

#endif
