/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/progress.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

struct progress progress_begin(void)
{
    return (struct progress){.terminal = isatty(STDERR_FILENO) == 1};
}

void progress_show(struct progress *progress, const char *what, uint64_t done, uint64_t total)
{
    const uint64_t percent = total ? (uint64_t)(100.0 * ((double)done / (double)total)) : 100;
    if (!progress->terminal ||
        (progress->shown && progress->what == what && progress->percent == percent))
        return;
    progress_end(progress);
    progress->shown = true;
    progress->what = what;
    progress->percent = percent;
    (void)fprintf(stderr, "%s: %" PRIu64 " %%", what, percent);
    (void)fflush(stderr);
}

/* Back to its begin, and everything behind that away. */
void progress_end(struct progress *progress)
{
    if (progress->shown)
        (void)fputs("\r\033[K", stderr);
    progress->shown = false;
}
