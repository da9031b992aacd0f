/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/decode_report.h"

#include "tools/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define GIB 1073741824.0

struct times {
    double first_us;           /* until the last row had its first token */
    double median_us, mean_us; /* of a step of decode alone; 0: there was none */
    double tokens_per_second;
};

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static struct times times_of(const struct decode_report *r)
{
    struct times t = {.first_us = 0};
    const uint32_t rows = r->options->rows, steps = r->result->decode_steps;
    const uint32_t above = steps / 2, below = (steps - 1) / 2;
    uint64_t sum = 0, *ns = r->result->step_ns;
    for (uint32_t i = 0; i < rows; i++)
        if ((double)r->result->first_ns[i] / 1e3 > t.first_us)
            t.first_us = (double)r->result->first_ns[i] / 1e3;
    for (uint32_t i = 0; i < steps; i++)
        sum += ns[i];
    if (!sum)
        return t;
    qsort(ns, steps, sizeof(*ns), by_value);
    t.median_us = ((double)ns[below] + (double)ns[above]) / 2e3;
    t.mean_us = (double)sum / steps / 1e3;
    t.tokens_per_second = 1e9 * (double)r->result->decode_tokens / (double)sum;
    return t;
}

static const int32_t *tokens_of(const struct decode_report *r, uint32_t row)
{
    return r->result->tokens + (size_t)row * r->options->tokens;
}

/* ---- for people ------------------------------------------------------------------------------ */

static void print_tokens(const struct decode_report *r)
{
    for (uint32_t row = 0; row < r->options->rows; row++) {
        printf("prompt %u, %u tokens:", row + 1, r->options->prompts[row].count);
        for (uint32_t i = 0; i < r->result->counts[row]; i++)
            printf("%s%d", i ? "," : " ", tokens_of(r, row)[i]);
        puts(r->result->ended[row] ? " end" : "");
    }
}

static void print_report(const struct decode_report *r, const struct times *t)
{
    const struct decode_setup *s = r->setup;
    printf("%s on %s; weights %.3f GiB%s, loaded in %.2f s; created in %.1f ms, graphs %.1f of "
           "them\n",
           s->model.family, s->info.device, (double)s->loaded.weight_bytes / GIB,
           r->options->is_random ? " of random numbers" : "", (double)s->loaded.loading_ns / 1e9,
           (double)s->loaded.creating_ns / 1e6, (double)s->info.capture_ns / 1e6);
    print_tokens(r);
    printf("first token after %.1f us; ", t->first_us);
    if (t->mean_us > 0)
        printf("then %.1f us a token, the mean of %u steps, median %.1f us; %.1f tokens a second",
               t->mean_us, r->result->decode_steps, t->median_us, t->tokens_per_second);
    else
        printf("no step was decode alone");
    printf("\n%" PRIu64 " steps, %" PRIu64 " graph launches\n", r->stats.steps, r->stats.replays);
}

/* ---- for programs ---------------------------------------------------------------------------- */

static void json_rows(cJSON *j, const struct decode_report *r)
{
    cJSON *prompts = cJSON_AddArrayToObject(j, "prompts");
    for (uint32_t row = 0; row < r->options->rows; row++) {
        cJSON *one = json_element(prompts);
        json_uint(one, "prompt_tokens", r->options->prompts[row].count);
        cJSON *tokens = cJSON_AddArrayToObject(one, "tokens");
        for (uint32_t i = 0; i < r->result->counts[row]; i++)
            json_uint(tokens, NULL, (uint64_t)tokens_of(r, row)[i]);
        cJSON_AddBoolToObject(one, "ended", r->result->ended[row]);
        cJSON_AddNumberToObject(one, "first_token_us", (double)r->result->first_ns[row] / 1e3);
    }
}

static void json_times(cJSON *j, const struct decode_report *r, const struct times *t)
{
    const struct rt_stats *s = &r->stats;
    cJSON_AddNumberToObject(j, "first_token_us", t->first_us);
    json_uint(j, "decode_steps", r->result->decode_steps);
    if (t->mean_us > 0) {
        cJSON_AddNumberToObject(j, "token_us_median", t->median_us);
        cJSON_AddNumberToObject(j, "token_us_mean", t->mean_us);
        cJSON_AddNumberToObject(j, "tokens_per_second", t->tokens_per_second);
    }
    cJSON_AddNumberToObject(j, "total_us", (double)r->result->total_ns / 1e3);
    json_uint(j, "steps", s->steps);
    json_uint(j, "replays", s->replays);
    cJSON_AddBoolToObject(j, "one_launch_a_step", s->replays == s->steps);
    cJSON_AddNumberToObject(j, "step_host_us_mean",
                            (double)s->host_ns_total / (double)s->steps / 1e3);
    if (s->gpu_steps)
        cJSON_AddNumberToObject(j, "step_device_us_mean",
                                (double)s->gpu_ns_total / (double)s->gpu_steps / 1e3);
}

static void print_json(const struct decode_report *r, const struct times *t)
{
    const struct decode_setup *s = r->setup;
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "version", rt_version());
    json_text(j, "checkpoint", r->options->checkpoint);
    cJSON_AddStringToObject(j, "family", s->model.family);
    cJSON_AddStringToObject(j, "device", s->info.device);
    cJSON_AddBoolToObject(j, "host", s->info.host != 0);
    cJSON_AddStringToObject(j, "precision",
                            s->config.precision == RT_PRECISION_F32 ? "f32" : "bf16");
    if (r->options->is_random)
        json_uint(j, "random", r->options->random);
    json_uint(j, "weight_bytes", s->loaded.weight_bytes);
    json_uint(j, "scratch_bytes", s->loaded.scratch_bytes);
    json_uint(j, "pool_bytes", s->info.pool_bytes);
    json_uint(j, "graphs", s->info.graphs);
    cJSON_AddNumberToObject(j, "load_s", (double)s->loaded.loading_ns / 1e9);
    cJSON_AddNumberToObject(j, "create_s", (double)s->loaded.creating_ns / 1e9);
    cJSON_AddNumberToObject(j, "capture_s", (double)s->info.capture_ns / 1e9);
    json_times(j, r, t);
    json_rows(j, r);
    json_end(j, true, stdout);
}

void decode_report_print(const struct decode_report *report)
{
    const struct times t = times_of(report);
    if (report->options->json)
        print_json(report, &t);
    else
        print_report(report, &t);
}
