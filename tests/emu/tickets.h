/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_TICKETS_H
#define RT_TESTS_EMU_TICKETS_H

/* Counters that threads look at until blocks of the grid have drawn. */
void emu_tickets_begin(void); /* of a grid */

#endif
