/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/complain.h"

#include <stdarg.h>
#include <stdio.h>

void complain(const char *format, ...)
{
    char text[1024];
    struct rt_error error = {0};
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    (void)rt_error_set(&error, RT_OK, "%s", text);
    fprintf(stderr, "replayrt: %s\n", error.message);
}

void complain_failure(enum rt_status status, const char *message)
{
    if (status == RT_ERR_FILE)
        complain("%s", message);
    else
        complain("%s: %s", rt_status_string(status), message);
}
