/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/prefill_report.h"

#include "bench/layer_report.h"

#include <string.h>

#define GIB 1073741824.0

struct prefill_floor prefill_floor_of(const struct prefill_report *report,
                                      const struct prefill_row *row)
{
    const double bytes = (double)report->weight_bytes / report->config.geometry.layers;
    struct prefill_floor f = {.flop = row->tokens * bytes + row->attention_flop, .bytes = bytes};
    const double by_flop = f.flop / report->tflops / 1e3, by_bytes = bytes / report->gbps;
    f.by_flop = by_flop >= by_bytes;
    f.ns = f.by_flop ? by_flop : by_bytes;
    return f;
}

static double layer_ns(const struct prefill_report *r, const struct prefill_row *row)
{
    return row->step_ns / r->config.geometry.layers;
}

/* Operations a nanosecond are thousandths of a TFLOPS. */
static double tflops(double flop, double ns)
{
    return ns > 0 ? flop / ns / 1e3 : 0;
}

/* A product of many tokens is several stages, "q_b", "q_b 2", …, and one line. */
struct stage_sum {
    const struct layer_stage *first;
    int stem; /* characters of its name */
    uint32_t count;
    double ns;
};

static uint32_t sum_stages(const struct layer_stages *stages, struct stage_sum *sums)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < stages->count; i++) {
        const struct layer_stage *s = &stages->stages[i];
        const int stem = (int)strcspn(s->name, " ");
        uint32_t k = 0;
        while (k < count &&
               (sums[k].stem != stem || strncmp(sums[k].first->name, s->name, (size_t)stem) != 0))
            k++;
        if (k == count)
            sums[count++] = (struct stage_sum){.first = s, .stem = stem};
        sums[k].count++;
        sums[k].ns += s->ns;
    }
    return count;
}

/* ---- text ------------------------------------------------------------------------------------ */

static void print_head(const struct prefill_report *r)
{
    const struct rt_geometry *g = &r->config.geometry;
    const struct rt_block *b = &r->config.block;
    printf("device %s; %u layers of %u heads, hidden %u, q_lora_rank %u, L %u, R %u, P %u, V %u; "
           "weights %.3f GiB; us, medians of %u\n",
           r->device.device, g->layers, g->heads, b->hidden_size, b->q_lora_rank, g->kv_lora_rank,
           g->qk_rope_head_dim, b->qk_nope_head_dim, b->v_head_dim, (double)r->weight_bytes / GIB,
           r->steps);
    printf("layer: a chunk of rt_prefill / layers, each with weights and cache of its own, cold "
           "where all of them exceed the L2; hidden of replay and eager is equal, bitwise\n");
    if (r->model)
        printf("model: %s, whole: embedding, blocks, MLPs, and what its tokens choose; prompts of "
               "random ids\n",
               r->model->family);
    else
        printf("floor: a layer's products and attention at %.0f TFLOPS, or its weights once at "
               "%.0f GB/s\n",
               r->tflops, r->gbps);
    printf("attention, stages: alone, all layers' in a chain, a layer's share; keys and values of "
           "all layers are in one place, so small ones are warm\n");
}

static void print_stages(const struct layer_stages *stages)
{
    struct stage_sum sums[LAYER_STAGES_MOST];
    const uint32_t count = sum_stages(stages, sums);
    for (uint32_t i = 0; i < count; i++) {
        const struct stage_sum *s = &sums[i];
        printf("  %-14.*s %2u x %9.2f  %s\n", s->stem, s->first->name, s->count,
               s->ns / s->count / 1e3, s->first->by);
    }
    (void)fflush(stdout);
}

static void print_floor(const struct prefill_report *r, const struct prefill_row *row)
{
    const double ns = layer_ns(r, row);
    printf("floor %.2f (%s), %.2f of it, %.0f TFLOPS; ", row->floor.ns / 1e3,
           row->floor.by_flop ? "compute" : "memory", ns > 0 ? row->floor.ns / ns : 0,
           tflops(row->floor.flop, ns));
}

static void print_row(const struct prefill_report *r, const struct prefill_row *row)
{
    printf("\n%u tokens: ", row->tokens);
    if (r->model)
        printf("chunk %.2f, ", row->step_ns / 1e3);
    printf("layer %.2f, ", layer_ns(r, row) / 1e3);
    if (!r->model)
        print_floor(r, row);
    printf("attention %.2f, %.0f TFLOPS; hidden's rms %.3g\n  %s\n", row->attention_ns / 1e3,
           tflops(row->attention_flop, row->attention_ns), row->hidden_rms, row->form);
    print_stages(&row->stages);
}

static double ratio_of(const struct prefill_mix *m)
{
    return m->chunk_ns > 0 ? m->mixed_ns / m->chunk_ns : 0;
}

static void print_mix(const struct prefill_mix *m)
{
    printf("\nbeside a chunk of %u tokens, %u rows with a past of %u: chunk alone %.2f, decode "
           "alone %.2f, both in one launch %.2f: %.3f of the chunk's\n",
           m->chunk, m->batch, m->length, m->chunk_ns / 1e3, m->decode_ns / 1e3, m->mixed_ns / 1e3,
           ratio_of(m));
    print_stages(&m->stages);
}

/* ---- for programs ---------------------------------------------------------------------------- */

static void json_head(const struct prefill_report *r)
{
    cJSON *j = r->json;
    layer_json_head(j, &r->config, r->device.device, r->weight_bytes);
    json_uint(j, "steps", r->steps);
    if (r->model) {
        cJSON_AddStringToObject(j, "model", r->model->family);
    } else {
        cJSON_AddNumberToObject(j, "peak_tflops", r->tflops);
        cJSON_AddNumberToObject(j, "peak_gbps", r->gbps);
    }
    cJSON_AddArrayToObject(j, "prefill");
}

static void json_stages(cJSON *j, const struct layer_stages *measured)
{
    struct stage_sum sums[LAYER_STAGES_MOST];
    const uint32_t count = sum_stages(measured, sums);
    cJSON *stages = cJSON_AddArrayToObject(j, "stages");
    for (uint32_t i = 0; i < count; i++) {
        char name[LAYER_STAGE_NAME_BYTES];
        cJSON *one = json_element(stages);
        (void)snprintf(name, sizeof(name), "%.*s", sums[i].stem, sums[i].first->name);
        cJSON_AddStringToObject(one, "name", name);
        json_uint(one, "count", sums[i].count);
        cJSON_AddNumberToObject(one, "us", sums[i].ns / 1e3);
        cJSON_AddStringToObject(one, "by", sums[i].first->by);
    }
}

static void json_floor(cJSON *j, const struct prefill_row *row, double ns)
{
    cJSON_AddNumberToObject(j, "layer_flop", row->floor.flop);
    cJSON_AddNumberToObject(j, "layer_tflops", tflops(row->floor.flop, ns));
    cJSON_AddNumberToObject(j, "floor_us", row->floor.ns / 1e3);
    cJSON_AddStringToObject(j, "floor_by", row->floor.by_flop ? "compute" : "memory");
}

static void json_row(const struct prefill_report *r, const struct prefill_row *row)
{
    cJSON *j = json_element(cJSON_GetObjectItemCaseSensitive(r->json, "prefill"));
    const double ns = layer_ns(r, row);
    json_uint(j, "tokens", row->tokens);
    cJSON_AddStringToObject(j, "form", row->form);
    cJSON_AddNumberToObject(j, "step_us", row->step_ns / 1e3);
    cJSON_AddNumberToObject(j, "layer_us", ns / 1e3);
    if (!r->model)
        json_floor(j, row, ns);
    cJSON_AddNumberToObject(j, "attention_us", row->attention_ns / 1e3);
    cJSON_AddNumberToObject(j, "attention_flop", row->attention_flop);
    cJSON_AddNumberToObject(j, "attention_tflops", tflops(row->attention_flop, row->attention_ns));
    cJSON_AddNumberToObject(j, "hidden_rms", row->hidden_rms);
    json_stages(j, &row->stages);
}

static void json_mix(const struct prefill_report *r, const struct prefill_mix *m)
{
    cJSON *j = cJSON_AddObjectToObject(r->json, "beside");
    json_uint(j, "chunk", m->chunk);
    json_uint(j, "batch", m->batch);
    json_uint(j, "length", m->length);
    cJSON_AddNumberToObject(j, "chunk_us", m->chunk_ns / 1e3);
    cJSON_AddNumberToObject(j, "decode_us", m->decode_ns / 1e3);
    cJSON_AddNumberToObject(j, "mixed_us", m->mixed_ns / 1e3);
    cJSON_AddNumberToObject(j, "mixed_share", ratio_of(m));
    json_stages(j, &m->stages);
}

/* ---- either ---------------------------------------------------------------------------------- */

void prefill_report_head(struct prefill_report *report)
{
    if (report->json)
        json_head(report);
    else
        print_head(report);
}

void prefill_report_row(struct prefill_report *report, const struct prefill_row *row)
{
    if (report->json)
        json_row(report, row);
    else
        print_row(report, row);
}

void prefill_report_mix(struct prefill_report *report, const struct prefill_mix *mix)
{
    if (report->json)
        json_mix(report, mix);
    else
        print_mix(mix);
}

void prefill_report_end(struct prefill_report *report)
{
    if (report->json && report->json->child)
        json_end(report->json, true, stdout);
    else
        cJSON_Delete(report->json);
    report->json = NULL;
}
