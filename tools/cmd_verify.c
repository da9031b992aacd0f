/* SPDX-License-Identifier: Apache-2.0 */
/* replayrt verify: the user's own configuration, replay against eager; over ranks too. */
#include "tools/commands.h"
#include "tools/complain.h"
#include "tools/json.h"
#include "tools/options.h"
#include "tools/rank_crew.h"
#include "tools/verify.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct verify_command {
    uint64_t steps, seed;
    uint64_t ranks, context; /* 0: none, and as configured */
    bool json;
    const char *device, *path;
    struct rank_crew crew;
    struct rt_config config;
    struct verify_report report;
    struct rt_error error;
};

/* ---- what it says ---------------------------------------------------------------------------- */

static void print_json(const struct verify_command *v, enum rt_status status)
{
    const struct verify_report *const r = &v->report;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "version", rt_version());
    json_text(j, "configuration", v->path);
    cJSON_AddStringToObject(j, "device", r->device);
    if (v->ranks) {
        json_uint(j, "ranks", v->ranks);
        json_uint(j, "context_parallel", v->config.context_parallel);
    }
    cJSON_AddBoolToObject(j, "equal", status == RT_OK);
    if (status != RT_OK) {
        cJSON_AddStringToObject(j, "status", rt_status_string(status));
        json_text(j, "message", v->error.message);
    }
    json_uint(j, "seed", v->seed);
    json_uint(j, "graphs", r->graphs);
    json_uint(j, "steps", r->steps);
    json_uint(j, "rows", r->rows);
    json_uint(j, "padded_rows", r->padded_rows);
    json_uint(j, "bytes_compared", r->bytes_compared);
    if (v->ranks)
        json_uint(j, "bytes_of_ranks", r->bytes_of_ranks);
    json_uint(j, "closes", r->closes);
    json_uint(j, "forks", r->forks);
    json_uint(j, "rewinds", r->rewinds);
    json_end(j, true, stdout);
}

static void print_report(const struct verify_command *v)
{
    const struct verify_report *const r = &v->report;
    printf("replay equals eager, bitwise: %" PRIu64 " graphs, %" PRIu64 " steps, %" PRIu64
           " live and %" PRIu64 " padded rows, %" PRIu64 " bytes; %" PRIu64 " closes, %" PRIu64
           " forks, %" PRIu64 " rewinds; seed %" PRIu64 "\n",
           r->graphs, r->steps, r->rows, r->padded_rows, r->bytes_compared, r->closes, r->forks,
           r->rewinds, v->seed);
    if (v->ranks)
        printf("on each of %" PRIu64 " ranks, context parallel %" PRIu32 "; %" PRIu64
               " of these bytes are the same on all of them\n",
               v->ranks, v->config.context_parallel, r->bytes_of_ranks);
}

/* The first rank tells what all know; what a rank could not tell the others it says itself. */
static void tell(const struct verify_command *v, enum rt_status status)
{
    const bool first = v->crew.rank == 0;
    if (v->json && first)
        print_json(v, status);
    else if (status == RT_OK && first)
        print_report(v);
    if (status == RT_OK || (v->report.told && !first))
        return;
    const bool hint = v->ranks && status == RT_ERR_NO_DEVICE;
    char who[48] = "";
    if (!v->report.told)
        snprintf(who, sizeof(who), "rank %" PRIu32 " of %" PRIu64 ": ", v->crew.rank, v->ranks);
    complain("%s: %s%s%s (seed %" PRIu64 ")", rt_status_string(status), who, v->error.message,
             hint ? "; --device host has all ranks there" : "", v->seed);
}

/* ---- the command line ------------------------------------------------------------------------ */

/* False after a message: the configuration is not one for these ranks. */
static bool suits_ranks(const struct verify_command *v)
{
    const uint32_t context = v->config.context_parallel;
    const char *const key = v->context ? "--context" : "context_parallel";
    if (!v->ranks && context > 1)
        complain("%s: %s %" PRIu32 " without --ranks: it is ranks that share a context", v->path,
                 key, context);
    else if (v->ranks && !v->config.layer)
        complain("%s: --ranks %" PRIu64 " wants layer: true, whose blocks exchange something",
                 v->path, v->ranks);
    else if (v->ranks && v->ranks % context != 0)
        complain("%s: %s %" PRIu32 " does not divide --ranks %" PRIu64, v->path, key, context,
                 v->ranks);
    else
        return true;
    return false;
}

static int begin(struct verify_command *v, int argc, char **argv)
{
    const struct option options[] = {
        {"--steps", OPTION_NUMBER, &v->steps, 1, 1000000},
        {"--seed", OPTION_NUMBER, &v->seed, 0, UINT64_MAX},
        {"--ranks", OPTION_NUMBER, &v->ranks, 1, RANK_CREW_MOST},
        {"--context", OPTION_NUMBER, &v->context, 1, RT_MAX_CONTEXT_RANKS},
        {"--device", OPTION_DEVICE, &v->device, 0, 0},
        {"--json", OPTION_FLAG, &v->json, 0, 0},
    };
    struct rt_config *const c = &v->config;
    if (!options_read(argc, argv, options, sizeof(options) / sizeof(options[0]), &v->path))
        return EXIT_USAGE;
    if (rt_config_load(v->path, c, &v->error) != RT_OK) {
        complain("%s", v->error.message);
        return EXIT_FAILED;
    }
    if (v->device)
        snprintf(c->device, sizeof(c->device), "%s", v->device);
    if (v->context)
        c->context_parallel = (uint32_t)v->context;
    if (!suits_ranks(v))
        return EXIT_USAGE;
    if (!v->ranks)
        return EXIT_OK;
    const int code = rank_crew_begin((uint32_t)v->ranks, c->device, c, &v->crew);
    if (code != EXIT_OK)
        return code;
    rank_crew_device(&v->crew, c->device, sizeof(c->device));
    return EXIT_OK;
}

static enum rt_status verify(struct verify_command *v)
{
    const struct verify_options options = {.steps = (uint32_t)v->steps,
                                           .seed = v->seed,
                                           .progress = v->crew.rank ? NULL
                                                       : v->json    ? stderr
                                                                    : stdout,
                                           .rank = v->crew.rank,
                                           .ranks = v->crew.ranks,
                                           .meeting = v->crew.path};
    return verify_replay(&v->config, &options, &v->report, &v->error);
}

int cmd_verify(int argc, char **argv)
{
    struct verify_command v = {.steps = 100, .seed = 1};
    int code = begin(&v, argc, argv);
    if (code == EXIT_OK) {
        const enum rt_status status = verify(&v);
        tell(&v, status);
        code = status == RT_OK ? EXIT_OK : EXIT_FAILED;
    }
    if (!rank_crew_end(&v.crew, code != EXIT_OK))
        code = EXIT_FAILED;
    if (v.report.lingers)
        rank_crew_leave(code);
    return code;
}
