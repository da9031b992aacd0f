/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model around the attention, put into the captured step by stage callbacks: with CUDA kernels on
 * a GPU, with their host twin on the host device. Tokens never visit the host: what a step samples,
 * the next one embeds, while the host runs ahead.
 *
 *   own_kernels [--device auto|host|cuda:N]
 *
 * The host device always runs; a GPU runs too where there is one (auto) or it is named, and must
 * then sample the same tokens and end with the same numbers, as far as bf16 goes. Exit status: 0
 * all as it should be, 1 not so, 2 it could not be run.
 */
#include "examples/own_kernels/stages.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More rows than the largest bucket, so that every step is two replays. */
enum { SEQUENCES = 5, STEPS = 24, RUN_AHEAD = 2 };

#define OUT_COUNT ((size_t)SEQUENCES * OWN_HEADS * OWN_RANK)

/* The two devices round q, latent and out to bf16 after sums that differ in their last bits, so an
 * element may be a unit of bf16 off, 2^-7 of it; four such, of the largest element. */
#define TOLERANCE (4.0 / 128.0)

/* What one device came to. */
struct result {
    char device[64];
    int32_t sampled[STEPS][SEQUENCES];         /* as rt_result reported it */
    int32_t history[SEQUENCES][OWN_MAX_STEPS]; /* as step_begin's kernel saw the tokens */
    float hidden[SEQUENCES][OWN_HIDDEN];
    float margin[SEQUENCES];
    uint16_t out[OUT_COUNT]; /* the last layer's of the last step */
};

static const int32_t first_tokens[SEQUENCES] = {3, 14, 15, 9, 26};

static bool told(rt_runtime *runtime, enum rt_status status)
{
    if (status != RT_OK)
        fprintf(stderr, "own_kernels: %s\n", rt_last_error(runtime)->message);
    return status == RT_OK;
}

static bool cuda_good(int error)
{
    if (error != 0)
        fprintf(stderr, "own_kernels: %s\n", own_cuda_text(error));
    return error == 0;
}

/* ---- memory of our own ---------------------------------------------------------------------- */

static bool allocate(struct own_memory *memory)
{
    memory->bytes = own_memory_bytes(memory->rows);
    if (memory->host != 0) {
        memory->address = (uintptr_t)malloc(memory->bytes);
        if (memory->address == 0)
            fprintf(stderr, "own_kernels: no memory\n");
        return memory->address != 0;
    }
    return cuda_good(own_cuda_allocate(memory->bytes, &memory->address));
}

static void release(struct own_memory *memory)
{
    if (memory->host != 0)
        free((void *)(uintptr_t)memory->address);
    else if (memory->address != 0)
        own_cuda_free(memory->address);
}

static bool copy(const struct own_memory *memory, void *device, void *host, uint64_t bytes,
                 bool to_device)
{
    if (memory->host != 0) {
        memcpy(to_device ? device : host, to_device ? host : device, bytes);
        return true;
    }
    const uint64_t address = (uintptr_t)device;
    return cuda_good(to_device ? own_cuda_write(address, host, bytes)
                               : own_cuda_read(address, host, bytes));
}

/* ---- one run ------------------------------------------------------------------------------------
 */

static bool collect(rt_runtime *runtime, uint64_t ticket, int32_t *sampled)
{
    struct rt_row_result rows[SEQUENCES];
    uint32_t count;
    if (!told(runtime, rt_wait(runtime, ticket, UINT64_MAX)) ||
        !told(runtime, rt_result(runtime, ticket, rows, SEQUENCES, &count)))
        return false;
    if (count != SEQUENCES) {
        fprintf(stderr, "own_kernels: %u rows reported, not %d\n", count, SEQUENCES);
        return false;
    }
    for (uint32_t row = 0; row < SEQUENCES; row++)
        sampled[row] = rows[row].sampled;
    return true;
}

static bool decode(rt_runtime *runtime, struct result *result)
{
    rt_seq seqs[SEQUENCES];
    for (uint32_t row = 0; row < SEQUENCES; row++) {
        if (!told(runtime, rt_seq_open(runtime, NULL, &seqs[row])))
            return false;
    }
    uint64_t tickets[STEPS];
    for (uint32_t s = 0; s < STEPS; s++) {
        /* Only the first step names tokens: later ones take what the step before sampled. */
        const struct rt_step_params step = {.struct_size = sizeof step,
                                            .rows = SEQUENCES,
                                            .seqs = seqs,
                                            .tokens = s == 0 ? first_tokens : NULL};
        if (!told(runtime, rt_step(runtime, &step, &tickets[s])))
            return false;
        if (s >= RUN_AHEAD &&
            !collect(runtime, tickets[s - RUN_AHEAD], result->sampled[s - RUN_AHEAD]))
            return false;
    }
    for (uint32_t s = STEPS - RUN_AHEAD; s < STEPS; s++) {
        if (!collect(runtime, tickets[s], result->sampled[s]))
            return false;
    }
    return told(runtime, rt_tensor_read(runtime, "out", 0, 0, result->out, sizeof result->out));
}

static enum rt_status create(const char *device, struct own_memory *memory, rt_runtime **out,
                             struct rt_error *error)
{
    struct rt_config config;
    rt_config_default(&config);
    config.geometry = (struct rt_geometry){.heads = OWN_HEADS,
                                           .kv_lora_rank = OWN_RANK,
                                           .qk_rope_head_dim = OWN_ROPE,
                                           .layers = OWN_LAYERS,
                                           .softmax_scale = 1.0 / 64.0};
    (void)snprintf(config.device, sizeof config.device, "%s", device);
    config.batch_sizes[0] = 1;
    config.batch_sizes[1] = 2;
    config.batch_sizes[2] = 4;
    config.batch_size_count = 3;
    config.max_sequences = SEQUENCES;
    config.max_length = OWN_MAX_STEPS;
    config.page_size = 16;
    config.pages = SEQUENCES * OWN_MAX_STEPS / 16;
    /* The graphs hold our addresses: name them, or the audit of the graphs refuses them. */
    const struct rt_memory_region region = {.address = memory->address, .bytes = memory->bytes};
    const struct rt_create_params params = {.struct_size = sizeof params,
                                            .config = &config,
                                            .stages = {own_stage, own_stage, own_stage, own_stage},
                                            .stage_user = memory,
                                            .regions = &region,
                                            .region_count = 1};
    return rt_create(&params, out, error);
}

static bool run_with(struct own_memory *memory, const char *device, struct result *result)
{
    struct own_tensors t = {0};
    own_memory_tensors(memory, &t);
    for (uint32_t row = 0; row < SEQUENCES; row++)
        result->margin[row] = FLT_MAX;
    if (!copy(memory, t.margin, result->margin, sizeof result->margin, true))
        return false;
    rt_runtime *runtime;
    struct rt_error error = {0};
    if (create(device, memory, &runtime, &error) != RT_OK) {
        fprintf(stderr, "own_kernels: %s\n", error.message);
        return false;
    }
    struct rt_info info = {.struct_size = sizeof info};
    const bool done = told(runtime, rt_get_info(runtime, &info)) && decode(runtime, result) &&
                      copy(memory, t.margin, result->margin, sizeof result->margin, false) &&
                      copy(memory, t.hidden, result->hidden, sizeof result->hidden, false) &&
                      copy(memory, t.history, result->history, sizeof result->history, false);
    memcpy(result->device, info.device, sizeof result->device);
    rt_destroy(&runtime);
    return done;
}

/* Runs on one device; the result is the caller's to free, null where it could not be run. */
static struct result *run(const char *device)
{
    struct own_memory memory = {.host = strcmp(device, "host") == 0, .rows = SEQUENCES};
    struct result *result = calloc(1, sizeof *result);
    bool done = result != NULL && allocate(&memory);
    if (done)
        done = run_with(&memory, device, result);
    release(&memory);
    if (!done) {
        free(result);
        result = NULL;
    }
    return result;
}

/* ---- checks -------------------------------------------------------------------------------------
 */

/* Each step's token is the first one, then what the step before sampled. */
static bool check_chain(const struct result *result)
{
    for (uint32_t row = 0; row < SEQUENCES; row++) {
        for (uint32_t s = 0; s < STEPS; s++) {
            const int32_t should = s == 0 ? first_tokens[row] : result->sampled[s - 1][row];
            const int32_t is = result->history[row][s];
            if (is == should)
                continue;
            printf("%s: row %u step %u embedded token %d, not %d\n", result->device, row, s, is,
                   should);
            return false;
        }
    }
    return true;
}

static double largest_difference(const float *a, const float *b, size_t count, double *magnitude)
{
    double worst = 0.0;
    for (size_t i = 0; i < count; i++) {
        const double difference = fabs((double)a[i] - (double)b[i]);
        *magnitude = fmax(*magnitude, fabs((double)a[i]));
        if (!(difference <= worst))
            worst = difference;
    }
    return worst;
}

static bool check_same(const struct result *host, const struct result *gpu)
{
    for (uint32_t s = 0; s < STEPS; s++) {
        for (uint32_t row = 0; row < SEQUENCES; row++) {
            if (host->sampled[s][row] == gpu->sampled[s][row])
                continue;
            printf("step %u row %u: the host sampled %d, the GPU %d\n", s, row,
                   host->sampled[s][row], gpu->sampled[s][row]);
            return false;
        }
    }
    static float out_host[OUT_COUNT], out_gpu[OUT_COUNT];
    for (size_t i = 0; i < OUT_COUNT; i++) {
        out_host[i] = own_bf16_to_float(host->out[i]);
        out_gpu[i] = own_bf16_to_float(gpu->out[i]);
    }
    double hidden_size = 0.0, out_size = 0.0;
    const double hidden =
        largest_difference(host->hidden[0], gpu->hidden[0], SEQUENCES * OWN_HIDDEN, &hidden_size);
    const double out = largest_difference(out_host, out_gpu, OUT_COUNT, &out_size);
    printf("host and GPU differ by at most %.2e of %.2e in hidden, %.2e of %.2e in out\n", hidden,
           hidden_size, out, out_size);
    return hidden <= TOLERANCE * hidden_size && out <= TOLERANCE * out_size;
}

static void print_result(const struct result *result)
{
    float margin = FLT_MAX;
    for (uint32_t row = 0; row < SEQUENCES; row++)
        margin = fminf(margin, result->margin[row]);
    printf("%s: %d steps of %d rows, smallest lead of a sampled token %.3f; row 0:", result->device,
           STEPS, SEQUENCES, (double)margin);
    for (uint32_t s = 0; s < 12; s++)
        printf(" %d", result->sampled[s][0]);
    printf(" ...\n");
}

/* The GPU to run on: its ordinal, or -1 for none. False for a device that is none. */
static bool choose_gpu(const char *device, int *ordinal)
{
    *ordinal = -1;
    if (strcmp(device, "host") == 0)
        return true;
    if (strcmp(device, "auto") == 0) {
        if (own_cuda_device_count() > 0)
            *ordinal = 0;
        return true;
    }
    char *end;
    if (strncmp(device, "cuda:", 5) != 0 || device[5] < '0' || device[5] > '9')
        return false;
    *ordinal = (int)strtol(device + 5, &end, 10);
    return *end == '\0' && *ordinal >= 0;
}

int main(int argc, char **argv)
{
    const bool named = argc == 3 && strcmp(argv[1], "--device") == 0;
    int ordinal;
    if ((argc != 1 && !named) || !choose_gpu(named ? argv[2] : "auto", &ordinal)) {
        fputs("usage: own_kernels [--device auto|host|cuda:N]\n", stderr);
        return 2;
    }
    struct result *host = run("host"), *gpu = NULL;
    bool right = host != NULL && check_chain(host);
    if (host != NULL)
        print_result(host);
    if (host != NULL && ordinal >= 0 && cuda_good(own_cuda_prepare(ordinal))) {
        char name[32];
        (void)snprintf(name, sizeof name, "cuda:%d", ordinal);
        gpu = run(name);
    }
    if (gpu != NULL) {
        print_result(gpu);
        right = right && check_chain(gpu) && check_same(host, gpu);
    }
    const bool ran = host != NULL && (gpu != NULL || ordinal < 0);
    free(host);
    free(gpu);
    return !ran ? 2 : right ? 0 : 1;
}
