/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt verify: the user's own configuration, replay against eager. */
#include "tools/commands.h"
#include "tools/options.h"
#include "tools/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

int cmd_verify(int argc, char **argv)
{
    uint64_t steps = 100, seed = 1;
    const char *device = NULL, *path;
    const struct option options[] = {
        {"--steps", OPTION_NUMBER, &steps, 1, 1000000},
        {"--seed", OPTION_NUMBER, &seed, 0, UINT64_MAX},
        {"--device", OPTION_TEXT, &device, 0, 0},
    };
    if (!options_read(argc, argv, options, 3, &path))
        return EXIT_USAGE;
    struct rt_config config;
    struct rt_error error = {0};
    if (rt_config_load(path, &config, &error) != RT_OK) {
        fprintf(stderr, "replayrt: %s\n", error.message);
        return EXIT_FAILED;
    }
    if (device)
        snprintf(config.device, sizeof(config.device), "%s", device);
    const struct verify_options verify = {
        .steps = (uint32_t)steps, .seed = seed, .progress = stdout};
    struct verify_report report;
    if (verify_replay(&config, &verify, &report, &error) != RT_OK) {
        fprintf(stderr, "replayrt: %s: %s (seed %" PRIu64 ")\n", rt_status_string(error.status),
                error.message, seed);
        return EXIT_FAILED;
    }
    printf("replay equals eager, bitwise: %" PRIu64 " graphs, %" PRIu64 " steps, %" PRIu64
           " live and %" PRIu64 " padded rows, %" PRIu64 " bytes; %" PRIu64 " closes, %" PRIu64
           " forks, %" PRIu64 " rewinds; seed %" PRIu64 "\n",
           report.graphs, report.steps, report.rows, report.padded_rows, report.bytes_compared,
           report.closes, report.forks, report.rewinds, seed);
    return EXIT_OK;
}
