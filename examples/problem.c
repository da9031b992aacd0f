/* SPDX-License-Identifier: Apache-2.0 */
#include "examples/problem.h"

#include <stdarg.h>
#include <stdio.h>

enum rt_status problem(struct rt_error *error, enum rt_status status, const char *format, ...)
{
    if (error == NULL)
        return status;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(error->message, sizeof error->message, format, args);
    va_end(args);
    error->status = status;
    return status;
}
