/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/layer_report.h"

#include <inttypes.h>

#define GIB 1073741824.0

static const char *projections_name(enum rt_projections projections)
{
    return projections == RT_PROJECTIONS_AUTO  ? "auto"
           : projections == RT_PROJECTIONS_OWN ? "own"
                                               : "cublaslt";
}

static double sum_ns(const struct layer_row *row)
{
    double ns = 0;
    for (uint32_t i = 0; i < row->stages.count; i++)
        ns += row->stages.stages[i].ns;
    return ns;
}

/* Bytes a nanosecond are gigabytes a second. */
static double gbps(const struct layer_stage *s)
{
    return s->ns > 0 ? (double)s->weight_bytes / s->ns : 0;
}

/* ---- text ------------------------------------------------------------------------------------ */

static void print_head(const struct layer_report *r)
{
    const struct rt_geometry *g = &r->config.geometry;
    const struct rt_block *b = &r->config.block;
    printf("device %s; %u layers of %u heads, hidden %u, q_lora_rank %u, L %u, R %u, P %u, V %u; "
           "weights %.3f GiB; sequences of %u tokens, over %u ranks; us, medians\n",
           r->device.device, g->layers, g->heads, b->hidden_size, b->q_lora_rank, g->kv_lora_rank,
           g->qk_rope_head_dim, b->qk_nope_head_dim, b->v_head_dim, (double)r->weight_bytes / GIB,
           r->length, r->config.context_parallel);
    printf("layer: a step of rt_step / layers, every layer with weights and KV of its own; hidden "
           "of replay and eager is equal, bitwise\n"
           "stages: each in a graph of its own, all layers' in a chain, a layer's share; in a "
           "layer nodes overlap others, so the sum may differ\n");
    for (uint32_t i = 0; r->sums && i < r->sums->choice_count; i++)
        printf("%s of %" PRIu64 " numbers over ranks: %s\n",
               rt_sum_choice_name(&r->sums->choices[i]), r->sums->choices[i].count,
               r->sums->choices[i].reason);
}

static void print_row(const struct layer_row *row)
{
    printf("\nbatch %u, query length %u: step %.2f, layer %.2f", row->batch, row->query_len,
           row->step_ns / 1e3, row->step_ns / row->layers / 1e3);
    if (row->stages.count)
        printf(", sum of stages %.2f", sum_ns(row) / 1e3);
    printf("; hidden's rms %.3g\n", row->hidden_rms);
    for (uint32_t i = 0; i < row->stages.count; i++) {
        const struct layer_stage *s = &row->stages.stages[i];
        printf("  %-14s %9.2f", s->name, s->ns / 1e3);
        if (s->weight_bytes)
            printf(" %7.0f GB/s of %8.3f MB", gbps(s), (double)s->weight_bytes / 1e6);
        else
            printf(" %27s", "");
        printf("  %s\n", s->by);
    }
    (void)fflush(stdout);
}

/* ---- for programs ---------------------------------------------------------------------------- */

void layer_json_head(cJSON *j, const struct rt_config *c, const char *device, uint64_t weight_bytes)
{
    const struct rt_geometry *g = &c->geometry;
    const struct rt_block *b = &c->block;
    cJSON_AddStringToObject(j, "version", rt_version());
    cJSON_AddStringToObject(j, "device", device);
    json_uint(j, "layers", g->layers);
    json_uint(j, "heads", g->heads);
    json_uint(j, "hidden_size", b->hidden_size);
    json_uint(j, "q_lora_rank", b->q_lora_rank);
    json_uint(j, "kv_lora_rank", g->kv_lora_rank);
    json_uint(j, "qk_rope_head_dim", g->qk_rope_head_dim);
    json_uint(j, "qk_nope_head_dim", b->qk_nope_head_dim);
    json_uint(j, "v_head_dim", b->v_head_dim);
    json_uint(j, "weight_bytes", weight_bytes);
}

static void json_sums(cJSON *j, const struct rt_sums *sums)
{
    cJSON *all = cJSON_AddArrayToObject(j, "sums");
    for (uint32_t i = 0; i < sums->choice_count; i++) {
        const struct rt_sum_choice *choice = &sums->choices[i];
        cJSON *one = json_element(all);
        cJSON_AddStringToObject(one, "kind", rt_sum_choice_name(choice));
        json_uint(one, "numbers", choice->count);
        cJSON_AddBoolToObject(one, "one_shot", choice->one_shot != 0);
        cJSON_AddStringToObject(one, "reason", choice->reason);
    }
}

static void json_head(const struct layer_report *r)
{
    cJSON *j = r->json;
    layer_json_head(j, &r->config, r->device.device, r->weight_bytes);
    json_uint(j, "length", r->length);
    json_uint(j, "context_parallel", r->config.context_parallel);
    if (r->sums)
        json_sums(j, r->sums);
    cJSON_AddArrayToObject(j, "runs");
}

static cJSON *last_run(const struct layer_report *r)
{
    cJSON *runs = cJSON_GetObjectItemCaseSensitive(r->json, "runs");
    return cJSON_GetArrayItem(runs, cJSON_GetArraySize(runs) - 1);
}

static void json_row(const struct layer_report *r, const struct layer_row *row)
{
    cJSON *j = json_element(cJSON_GetObjectItemCaseSensitive(last_run(r), "graphs"));
    json_uint(j, "batch", row->batch);
    json_uint(j, "query_len", row->query_len);
    cJSON_AddNumberToObject(j, "step_us", row->step_ns / 1e3);
    cJSON_AddNumberToObject(j, "layer_us", row->step_ns / row->layers / 1e3);
    cJSON_AddNumberToObject(j, "sum_us", sum_ns(row) / 1e3);
    cJSON_AddNumberToObject(j, "hidden_rms", row->hidden_rms);
    cJSON *stages = cJSON_AddArrayToObject(j, "stages");
    for (uint32_t i = 0; i < row->stages.count; i++) {
        const struct layer_stage *s = &row->stages.stages[i];
        cJSON *one = json_element(stages);
        cJSON_AddStringToObject(one, "name", s->name);
        cJSON_AddNumberToObject(one, "us", s->ns / 1e3);
        cJSON_AddStringToObject(one, "by", s->by);
        if (!s->weight_bytes)
            continue;
        json_uint(one, "weight_bytes", s->weight_bytes);
        cJSON_AddNumberToObject(one, "gbps", gbps(s));
    }
}

/* ---- either ---------------------------------------------------------------------------------- */

void layer_report_head(struct layer_report *report)
{
    if (report->json)
        json_head(report);
    else
        print_head(report);
}

void layer_report_begin(struct layer_report *report, enum rt_projections projections)
{
    const char *name = projections_name(projections);
    if (!report->json) {
        printf("\nprojections: %s\n", name);
        return;
    }
    cJSON *run = json_element(cJSON_GetObjectItemCaseSensitive(report->json, "runs"));
    cJSON_AddStringToObject(run, "projections", name);
    cJSON_AddArrayToObject(run, "graphs");
}

void layer_report_row(struct layer_report *report, const struct layer_row *row)
{
    if (report->json)
        json_row(report, row);
    else
        print_row(row);
}

void layer_report_skip(struct layer_report *report, const char *why)
{
    if (report->json)
        cJSON_AddStringToObject(last_run(report), "why_not", why);
    else
        printf("not measured: %s\n", why);
}

void layer_report_end(struct layer_report *report)
{
    if (report->json && report->json->child)
        json_end(report->json, true, stdout);
    else
        cJSON_Delete(report->json);
    report->json = NULL;
}
