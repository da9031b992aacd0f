/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt verify: the user's own configuration, replay against eager. */
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/json.h"
#include "tools/options.h"
#include "tools/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void print_json(enum rt_status status, const struct rt_error *error,
                       const struct verify_report *r, uint64_t seed, const char *path)
{
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "version", rt_version());
    json_text(j, "configuration", path);
    cJSON_AddStringToObject(j, "device", r->device);
    cJSON_AddBoolToObject(j, "equal", status == RT_OK);
    if (status != RT_OK) {
        cJSON_AddStringToObject(j, "status", rt_status_string(status));
        json_text(j, "message", error->message);
    }
    json_uint(j, "seed", seed);
    json_uint(j, "graphs", r->graphs);
    json_uint(j, "steps", r->steps);
    json_uint(j, "rows", r->rows);
    json_uint(j, "padded_rows", r->padded_rows);
    json_uint(j, "bytes_compared", r->bytes_compared);
    json_uint(j, "closes", r->closes);
    json_uint(j, "forks", r->forks);
    json_uint(j, "rewinds", r->rewinds);
    json_end(j, true, stdout);
}

static void print_report(const struct verify_report *r, uint64_t seed)
{
    printf("replay equals eager, bitwise: %" PRIu64 " graphs, %" PRIu64 " steps, %" PRIu64
           " live and %" PRIu64 " padded rows, %" PRIu64 " bytes; %" PRIu64 " closes, %" PRIu64
           " forks, %" PRIu64 " rewinds; seed %" PRIu64 "\n",
           r->graphs, r->steps, r->rows, r->padded_rows, r->bytes_compared, r->closes, r->forks,
           r->rewinds, seed);
}

int cmd_verify(int argc, char **argv)
{
    uint64_t steps = 100, seed = 1;
    bool json = false;
    const char *device = NULL, *path;
    const struct option options[] = {
        {"--steps", OPTION_NUMBER, &steps, 1, 1000000},
        {"--seed", OPTION_NUMBER, &seed, 0, UINT64_MAX},
        {"--device", OPTION_TEXT, &device, 0, 0},
        {"--json", OPTION_FLAG, &json, 0, 0},
    };
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), &path))
        return EXIT_USAGE;
    struct rt_config config;
    struct rt_error error = {0};
    if (rt_config_load(path, &config, &error) != RT_OK) {
        complain("%s", error.message);
        return EXIT_FAILED;
    }
    if (device)
        snprintf(config.device, sizeof(config.device), "%s", device);
    const struct verify_options verify = {
        .steps = (uint32_t)steps, .seed = seed, .progress = json ? stderr : stdout};
    struct verify_report report;
    const enum rt_status status = verify_replay(&config, &verify, &report, &error);
    if (json)
        print_json(status, &error, &report, seed, path);
    else if (status == RT_OK)
        print_report(&report, seed);
    if (status == RT_OK)
        return EXIT_OK;
    complain("%s: %s (seed %" PRIu64 ")", rt_status_string(error.status), error.message, seed);
    return EXIT_FAILED;
}
