/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/driver.h"
#include "tests/gpu/suite.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const struct {
    const char *name;
    enum gpu_outcome (*run)(const struct gpu_suite *suite);
} tests[] = {
    {"one_launch", gpu_one_launch},
    {"run_ahead", gpu_run_ahead},
    {"other_thread", gpu_other_thread},
    {"two_runtimes", gpu_two_runtimes},
    {"audit", gpu_audit},
    {"host_agrees", gpu_host_agrees},
    {"invariant", gpu_invariant},
    {"operators", gpu_operators},
    {"stages", gpu_stages},
    {"chunks", gpu_chunks},
    {"products", gpu_products},
    {"block_ops", gpu_block_ops},
    {"model_ops", gpu_model_ops},
    {"measure", gpu_measure},
    {"nothing_leaks", gpu_nothing_leaks},
    {"every_call_fails_once", gpu_every_call_fails_once},
    {"replay", gpu_replay},
};
#define TEST_COUNT (sizeof(tests) / sizeof(tests[0]))

enum gpu_outcome gpu_fail(const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    fputs("    ", stdout);
    vprintf(fmt, args);
    putchar('\n');
    va_end(args);
    return GPU_FAILED;
}

void gpu_config(const struct gpu_suite *suite, struct rt_config *config)
{
    const uint32_t batches[] = {1, 4, 16}, one[] = {16}, queries[] = {1, 2};
    rt_config_default(config);
    snprintf(config->device, sizeof(config->device), "%s", suite->device);
    config->geometry = (struct rt_geometry){.heads = 16,
                                            .kv_lora_rank = 512,
                                            .qk_rope_head_dim = 64,
                                            .layers = 2,
                                            .softmax_scale = 0.1352337788608801};
    memcpy(config->batch_sizes, batches, sizeof(batches));
    config->batch_size_count = 3;
    memcpy(config->query_lens, queries, sizeof(queries));
    config->query_len_count = 2;
    if (suite->quick) { /* fewer graphs for compute-sanitizer to instrument */
        memcpy(config->batch_sizes, one, sizeof(one));
        config->batch_size_count = 1;
    }
    config->max_sequences = 24;
    config->max_length = 4096;
    config->pages = 256;
}

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static bool chosen(const char *name, int argc, char **argv)
{
    bool any = false;
    for (int i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "--no-", 5) && !strcmp(argv[i] + 5, name))
            return false;
        any |= argv[i][0] != '-';
        if (!strcmp(argv[i], name))
            return true;
    }
    return !any;
}

/* As scripts read it: 77 where nothing could run. */
static int exit_status(const uint32_t count[3])
{
    if (count[GPU_FAILED])
        return 1;
    return count[GPU_SKIPPED] && !count[GPU_PASSED] ? 77 : 0;
}

/* "0/4" */
static bool read_part(const char *text, struct gpu_suite *suite)
{
    char *end;
    suite->part = (unsigned)strtoul(text, &end, 10);
    if (end == text || *end != '/')
        return false;
    const char *parts = end + 1;
    suite->parts = (unsigned)strtoul(parts, &end, 10);
    return end != parts && !*end && suite->part < suite->parts;
}

static bool lists(int argc, char **argv)
{
    bool wanted = false;
    for (int i = 1; i < argc; i++)
        wanted |= !strcmp(argv[i], "--list");
    for (size_t i = 0; wanted && i < TEST_COUNT; i++)
        puts(tests[i].name);
    return wanted;
}

int main(int argc, char **argv)
{
    if (lists(argc, argv))
        return 0;
    struct gpu_suite suite = {.device = "cuda:0", .parts = 1};
    uint32_t count[3] = {0};
    static const char *const words[] = {"passed", "failed", "skipped"};
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* what was seen must survive a crash */
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "--quick"))
            suite.quick = true;
        else if (!strcmp(argv[i], "--host"))
            suite.device = "host";
        else if (!strncmp(argv[i], "--part=", 7) && !read_part(argv[i] + 7, &suite)) {
            fprintf(stderr, "%s: of how many, as in --part=0/4\n", argv[i]);
            return 2;
        }
    if (!strcmp(suite.device, "cuda:0") && rt_driver_cuda_count(&(uint32_t){0}, NULL) != RT_OK) {
        puts("no CUDA device on this machine");
        puts("0 passed, 0 failed, 1 skipped");
        return 77;
    }
    for (size_t i = 0; i < TEST_COUNT; i++) {
        if (!chosen(tests[i].name, argc, argv))
            continue;
        double begin = seconds();
        enum gpu_outcome outcome = tests[i].run(&suite);
        printf("%-24s %s  %.1f s\n", tests[i].name, words[outcome], seconds() - begin);
        fflush(stdout);
        count[outcome]++;
    }
    printf("%u passed, %u failed, %u skipped\n", count[GPU_PASSED], count[GPU_FAILED],
           count[GPU_SKIPPED]);
    return exit_status(count);
}
