/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench_report.h"

#include "tools/json.h"

#include <math.h>
#include <string.h>

/* Derived figures of a row that was measured. */
struct figures {
    double layer_us, tflops, gbps, of_floor;
    double peer; /* the other implementation's time / ours; 0: not known */
    double step_other_us;
};

static struct figures figures_of(const struct bench_row *row)
{
    const struct rt_measure_attention_result *r = &row->r;
    struct figures f = {.layer_us = r->layer_ns / 1e3};
    if (r->layer_ns > 0) {
        f.tflops = row->roofline.flop / r->layer_ns / 1e3;
        f.gbps = row->roofline.bytes / r->layer_ns;
        f.peer = row->shape->peer_layer_us / f.layer_us;
    }
    f.of_floor = f.layer_us / row->roofline.floor_us;
    f.step_other_us = (row->step.ns - row->step.layers * r->layer_ns) / 1e3;
    return f;
}

static const char *backend_name(enum rt_backend backend)
{
    return backend == RT_BACKEND_SM90 ? "sm90" : "generic";
}

/* ---- text ----------------------------------------------------------------------------------- */

void bench_report_head(const struct bench_report *report)
{
    const struct rt_measure_info *d = &report->device;
    printf("device %s (%s, %u SMs)%s%s; softmax scale %.7g; us\n", d->device, d->opens, d->sm_count,
           d->device_reason[0] ? "; " : "", d->device_reason, report->softmax_scale);
    if (report->topk)
        printf("every query token attends to %u listed keys, or to all where it sees fewer\n",
               report->topk);
    if (strcmp(report->layout, "bf16") != 0)
        printf("KV caches of layout %s\n", report->layout);
    printf("layer: attend and its reduction, KV of every layer cold; +append: with an append "
           "%sbefore it;\n"
           "sustained: in steps of %u layers back to back, J: what such a step uses\n"
           "sched, append: a node of a chain; step: %u layers by rt_step, other: what of it is "
           "not attention;\n"
           "floor: of an H200; peer/ours: FlashMLA's time on the card that the list names / ours, "
           "above 1 is faster\n",
           report->topk ? "and a schedule " : "", RT_MEASURE_SUSTAIN_LAYERS, WHOLE_STEP_LAYERS);
    printf("%-24s %-34s %5s | %9s %9s %8s %9s %6s %6s | %10s %8s | %6s %6s | %7s %6s\n", "shape",
           "backend/kernel", "parts", "layer", "sustained", "J", "+append", "sched", "append",
           "step", "other", "TFLOPS", "GB/s", "/floor", "peer");
}

static void print_step(const struct whole_step *step, const struct figures *f)
{
    if (step->layers)
        printf(" | %10.1f %8.1f", step->ns / 1e3, f->step_other_us);
    else
        printf(" | %10s %8s", "-", "-");
}

static void print_sustained(const struct rt_measure_attention_result *r)
{
    if (r->sustained_ns > 0)
        printf(" %9.2f", r->sustained_ns / 1e3);
    else
        printf(" %9s", "-");
    if (r->sustained_step_mj > 0)
        printf(" %8.3f", r->sustained_step_mj / 1e3);
    else
        printf(" %8s", "-");
}

static void print_row(const struct bench_row *row)
{
    const struct rt_measure_attention_result *r = &row->r;
    const struct figures f = figures_of(row);
    char kernel[96], peer[16] = "-";
    (void)snprintf(kernel, sizeof(kernel), "%s/%s", backend_name(r->backend), r->kernel);
    if (f.peer > 0)
        (void)snprintf(peer, sizeof(peer), "%.3f", f.peer);
    printf("%-24s %-34s %5u | %9.2f", row->shape->label, kernel, r->parts, f.layer_us);
    print_sustained(r);
    printf(" %9.2f %6.2f %6.2f", r->append_attend_ns / 1e3, r->schedule_ns / 1e3,
           r->append_ns / 1e3);
    print_step(&row->step, &f);
    printf(" | %6.1f %6.0f | %7.2f %6s", f.tflops, f.gbps, f.of_floor, peer);
    if (row->step.layers && row->step.layers < WHOLE_STEP_LAYERS)
        printf("  (step of %u layers: no room for more)", row->step.layers);
    if (r->why_no_energy[0])
        printf("  (%s)", r->why_no_energy);
    if (row->step.why_not[0])
        printf("  (no step: %s)", row->step.why_not);
}

/* ---- an object a line ----------------------------------------------------------------------- */

static void json_shape(cJSON *j, const struct bench_row *row)
{
    const struct shape *s = row->shape;
    uint64_t tokens = 0;
    for (uint32_t i = 0; i < s->batch; i++)
        tokens += (uint64_t)s->lengths[i];
    cJSON_AddStringToObject(j, "label", s->label);
    json_uint(j, "batch", s->batch);
    json_uint(j, "heads", s->heads);
    json_uint(j, "s_q", s->query_len);
    json_uint(j, "kv_rank", s->kv_lora_rank);
    json_uint(j, "rope_dim", s->qk_rope_head_dim);
    json_uint(j, "page_size", s->page_size);
    json_uint(j, "kv_tokens", tokens);
    cJSON_AddStringToObject(j, "class", roofline_class_name(row->roofline.of));
    cJSON_AddNumberToObject(j, "flop", row->roofline.flop);
    cJSON_AddNumberToObject(j, "bytes", row->roofline.bytes);
    cJSON_AddNumberToObject(j, "floor_us", row->roofline.floor_us);
    if (s->peer_layer_us > 0)
        cJSON_AddNumberToObject(j, "flashmla_layer_us", s->peer_layer_us);
    if (s->peer_metadata_us > 0)
        cJSON_AddNumberToObject(j, "flashmla_metadata_us", s->peer_metadata_us);
}

static void json_measured(cJSON *j, const struct bench_row *row)
{
    const struct rt_measure_attention_result *r = &row->r;
    const struct figures f = figures_of(row);
    cJSON_AddStringToObject(j, "backend", backend_name(r->backend));
    cJSON_AddStringToObject(j, "kernel", r->kernel);
    if (r->reduction)
        cJSON_AddStringToObject(j, "reduction", r->reduction);
    json_uint(j, "parts", r->parts);
    json_uint(j, "layers", r->layers);
    json_uint(j, "layer_bytes", r->layer_bytes);
    cJSON_AddNumberToObject(j, "layer_us", f.layer_us);
    if (r->sustained_ns > 0) {
        cJSON_AddNumberToObject(j, "sustained_layer_us", r->sustained_ns / 1e3);
        json_uint(j, "sustained_layers", RT_MEASURE_SUSTAIN_LAYERS);
    }
    if (r->sustained_step_mj > 0)
        cJSON_AddNumberToObject(j, "sustained_step_j", r->sustained_step_mj / 1e3);
    cJSON_AddNumberToObject(j, "append_attend_us", r->append_attend_ns / 1e3);
    cJSON_AddNumberToObject(j, "schedule_us", r->schedule_ns / 1e3);
    cJSON_AddNumberToObject(j, "append_us", r->append_ns / 1e3);
    cJSON_AddNumberToObject(j, "tflops", f.tflops);
    cJSON_AddNumberToObject(j, "gbps", f.gbps);
    cJSON_AddNumberToObject(j, "layer_per_floor", f.of_floor);
    if (f.peer > 0)
        cJSON_AddNumberToObject(j, "peer_per_ours", f.peer);
    json_uint(j, "compared", r->compared);
    json_uint(j, "wrong", r->wrong);
    cJSON_AddNumberToObject(j, "worst_share", r->worst_share);
    cJSON_AddNumberToObject(j, "cosine", r->cosine);
    json_uint(j, "step_layers", row->step.layers);
    if (row->step.layers) {
        cJSON_AddNumberToObject(j, "step_us", row->step.ns / 1e3);
        cJSON_AddNumberToObject(j, "step_other_us", f.step_other_us);
    } else if (row->step.why_not[0]) {
        cJSON_AddStringToObject(j, "step_why_not", row->step.why_not);
    }
}

static void write_line(const struct bench_report *report, const struct bench_row *row)
{
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "device", report->device.device);
    cJSON_AddNumberToObject(j, "softmax_scale", report->softmax_scale);
    if (report->topk)
        json_uint(j, "topk", report->topk);
    cJSON_AddStringToObject(j, "kv_layout", report->layout);
    json_shape(j, row);
    if (row->measured)
        json_measured(j, row);
    cJSON_AddBoolToObject(j, "ok", !row->failed);
    if (row->failed)
        cJSON_AddStringToObject(j, "problem", row->problem);
    json_end(j, false, report->lines);
    (void)fflush(report->lines);
}

/* ---- both, and the summary ------------------------------------------------------------------ */

static void count(struct bench_report *report, const struct bench_row *row)
{
    report->shapes++;
    report->failures += row->failed;
    if (!row->measured || row->failed)
        return;
    const struct figures f = figures_of(row);
    uint32_t of = row->roofline.of;
    report->classes[of].shapes++;
    report->classes[of].floor_log_sum += log(f.of_floor);
    if (f.peer <= 0)
        return;
    if (!report->classes[of].compared++ || f.peer < report->classes[of].least) {
        report->classes[of].least = f.peer;
        memcpy(report->classes[of].least_label, row->shape->label, SHAPE_LABEL_BYTES);
    }
    report->classes[of].log_sum += log(f.peer);
}

void bench_report_row(struct bench_report *report, const struct bench_row *row)
{
    if (row->measured)
        print_row(row);
    else
        printf("%-24s", row->shape->label);
    if (row->failed)
        printf("  FAILED: %s", row->problem);
    putchar('\n');
    (void)fflush(stdout);
    if (report->lines)
        write_line(report, row);
    count(report, row);
}

void bench_report_end(const struct bench_report *report)
{
    for (int i = 0; i < ROOFLINE_CLASSES; i++) {
        uint32_t shapes = report->classes[i].shapes, compared = report->classes[i].compared;
        if (!shapes)
            continue;
        printf("%-8s %3u shapes: layer/floor %.2f", roofline_class_name((enum roofline_class)i),
               shapes, exp(report->classes[i].floor_log_sum / shapes));
        if (compared)
            printf("; peer/ours %.3f, least %.3f at %s (%u compared)",
                   exp(report->classes[i].log_sum / compared), report->classes[i].least,
                   report->classes[i].least_label, compared);
        putchar('\n');
    }
    printf("%u shapes, %u FAILED; ratios are geometric means; device %s\n", report->shapes,
           report->failures, report->device.device);
}
