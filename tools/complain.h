/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_COMPLAIN_H
#define RT_TOOLS_COMPLAIN_H

#include "replayrt/status.h"

/*
 * One line on stderr with "replayrt: " in front and a newline behind. Control characters, which a
 * path or an argument may hold, come out as \xNN: they can neither steer a terminal nor begin a
 * line that looks like another message.
 */
void complain(const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

/* The kind of a failure and its story; a file that cannot be read says so itself. */
void complain_failure(enum rt_status status, const char *message);

#endif
