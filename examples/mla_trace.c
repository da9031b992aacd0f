/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The main job on real input: replays a recorded decode trace through the runtime and holds layer
 * 0's attention against what the reference implementation computed. docs/main_job.md explains it.
 *
 * DIR has config.json, model.safetensors, golden.safetensors and replayrt.yaml. Exit status: 0 the
 * trace matches, 1 it does not, 2 it could not be run.
 */
#include "examples/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char usage[] =
    "usage: mla_trace DIR [--device auto|host|cuda:N] [--query-len Q] [--stagger N] [--verbose]\n"
    "  --device     instead of the one in DIR/replayrt.yaml\n"
    "  --query-len  feed Q tokens of a prompt in one step, where that many are left (1..8)\n"
    "  --stagger    prompt p joins N * p rounds after the first\n"
    "  --verbose    a line for every position compared\n";

static bool parse_number(const char *text, uint32_t min, uint32_t max, uint32_t *out)
{
    char *end;
    errno = 0;
    const unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value < min || value > max)
        return false;
    *out = (uint32_t)value;
    return true;
}

static bool parse_options(int argc, char **argv, struct trace_options *options)
{
    *options = (struct trace_options){.query_len = 1};
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        bool good = true;
        if (strcmp(name, "--verbose") == 0) {
            options->verbose = true;
        } else if (strcmp(name, "--device") == 0) {
            good = *value != '\0';
            options->device = argv[++i];
        } else if (strcmp(name, "--query-len") == 0) {
            good = parse_number(value, 1, RT_MAX_QUERY_LEN, &options->query_len);
            i++;
        } else if (strcmp(name, "--stagger") == 0) {
            good = parse_number(value, 0, 1000, &options->stagger);
            i++;
        } else {
            good = name[0] != '-' && options->directory == NULL;
            options->directory = name;
        }
        if (!good) {
            fprintf(stderr, "mla_trace: %s %s is not understood\n", name, value);
            return false;
        }
    }
    return options->directory != NULL;
}

/* Prints the table. Returns the worst of all prompts. */
static struct outcome print_outcomes(const struct trace *trace)
{
    struct outcome all = outcome_none();
    printf("prompt  tokens  compared  worst absolute  worst relative  of the bound   cosine\n");
    for (uint32_t p = 0; p < trace->golden.prompts; p++) {
        const struct outcome *o = &trace->sequences[p].outcome;
        printf("%6" PRId32 "  %6" PRIu32 "  %8" PRIu32 "  %14.2e  %14.2e  %11.0f %%   %.7f\n",
               trace->golden.lengths[p], trace->sequences[p].length, o->compared, o->absolute,
               o->norm, 100.0 * o->of_limit, o->cosine);
        outcome_merge(&all, o);
    }
    return all;
}

/* One line of what the runtime did. */
static enum rt_status print_stats(const struct trace *trace)
{
    struct rt_stats stats = {.struct_size = sizeof stats};
    struct rt_info info = {.struct_size = sizeof info};
    enum rt_status status = rt_get_stats(trace->runtime, &stats);
    if (status == RT_OK)
        status = rt_get_info(trace->runtime, &info);
    if (status != RT_OK)
        return status;
    printf("%" PRIu64 " steps, replays by bucket:", stats.steps);
    for (uint32_t i = 0; i < stats.bucket_count; i++) {
        struct rt_bucket_stats bucket = {.struct_size = sizeof bucket};
        status = rt_get_bucket_stats(trace->runtime, i, &bucket);
        if (status != RT_OK)
            return status;
        printf(" %" PRIu32 "x%" PRIu32 ": %" PRIu64 ",", bucket.batch, bucket.query_len,
               bucket.replays);
    }
    const double gpu_steps = stats.gpu_steps > 0 ? (double)stats.gpu_steps : 1.0;
    const double steps = stats.steps > 0 ? (double)stats.steps : 1.0;
    printf(" %.1f us/step on the device, %.1f us/step in rt_step, %s\n",
           (double)stats.gpu_ns_total / gpu_steps / 1e3, (double)stats.host_ns_total / steps / 1e3,
           info.device);
    return RT_OK;
}

/* Returns the exit status. */
static int report(const struct trace *trace)
{
    const struct rt_geometry *g = &trace->config.geometry;
    printf("%s: %" PRIu32 " heads, d_qk %" PRIu32 ", d_v %" PRIu32 ", softmax scale %.7f\n",
           trace->options.directory, g->heads, g->kv_lora_rank + g->qk_rope_head_dim,
           g->kv_lora_rank, g->softmax_scale);
    const struct outcome all = print_outcomes(trace);
    printf("layer input: worst relative difference %.1e, bound %.0e\n", all.input,
           OUTCOME_INPUT_LIMIT);
    if (print_stats(trace) != RT_OK) {
        fprintf(stderr, "mla_trace: %s\n", rt_last_error(trace->runtime)->message);
        return 2;
    }
    const bool matches =
        all.of_limit <= 1.0 && all.compared == trace->golden.prompts * trace->golden.steps;
    printf("%s: %" PRIu32 " positions compared, %.0f %% of the bound used\n",
           matches ? "the trace matches" : "MISMATCH", all.compared, 100.0 * all.of_limit);
    return matches ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct trace_options options;
    if (!parse_options(argc, argv, &options)) {
        fputs(usage, stderr);
        return 2;
    }
    struct trace trace;
    struct rt_error error = {0};
    enum rt_status status = trace_open(&options, &trace, &error);
    if (status == RT_OK)
        status = trace_run(&trace, &error);
    int exit_status = 2;
    if (status == RT_OK)
        exit_status = report(&trace);
    else
        fprintf(stderr, "mla_trace: %s: %s\n", rt_status_string(status), error.message);
    trace_close(&trace);
    return exit_status;
}
