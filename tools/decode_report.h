/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TOOLS_DECODE_REPORT_H
#define RT_TOOLS_DECODE_REPORT_H

/* What replayrt decode prints: tokens, and what they took. */
#include "tools/decode_run.h"
#include "tools/decode_setup.h"

struct decode_report {
    const struct decode_options *options;
    const struct decode_setup *setup;
    const struct decode_result *result;
    struct rt_stats stats; /* behind the run */
};

/* For people, or with options->json for programs. Sorts result->step_ns. */
void decode_report_print(const struct decode_report *report);

#endif
