/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: layer_trace FOLDER [--device host|cuda:N] [--precision bf16|f32]
 *                    [--projections auto|own|cublaslt] [--query-len Q] [--eager]
 * Exit 0: every output is within the bound.
 */
#include "tests/layer/layer_trace.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Of the outputs' length: bf16 rounds eight times on its way, f32 is held to what the
 * recording itself is off by. */
#define BF16_BOUND 2e-2
#define F32_BOUND 1e-5

static const char *option(int argc, char **argv, const char *name, const char *otherwise)
{
    for (int i = 2; i + 1 < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return argv[i + 1];
    return otherwise;
}

static bool has(int argc, char **argv, const char *name)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    struct rt_config options;
    struct layer_trace t = {.compared = 0};
    if (argc < 2) {
        (void)fprintf(stderr, "usage: layer_trace FOLDER [--device D] [--precision P] "
                              "[--projections P] [--query-len Q] [--eager]\n");
        return 2;
    }
    const char *projections = option(argc, argv, "--projections", "auto");
    const char *precision = option(argc, argv, "--precision", "bf16");
    const uint32_t query_len = (uint32_t)strtoul(option(argc, argv, "--query-len", "1"), NULL, 10);
    rt_config_default(&options);
    (void)snprintf(options.device, sizeof(options.device), "%s",
                   option(argc, argv, "--device", "host"));
    options.precision = strcmp(precision, "f32") == 0 ? RT_PRECISION_F32 : RT_PRECISION_BF16;
    options.projections = strcmp(projections, "own") == 0        ? RT_PROJECTIONS_OWN
                          : strcmp(projections, "cublaslt") == 0 ? RT_PROJECTIONS_CUBLASLT
                                                                 : RT_PROJECTIONS_AUTO;
    if (query_len > 1) {
        options.query_lens[1] = query_len;
        options.query_len_count = 2;
    }
    const double bound = options.precision == RT_PRECISION_F32 ? F32_BOUND : BF16_BOUND;
    const bool good = layer_trace_open(&t, argv[1], &options) &&
                      layer_trace_run(&t, query_len, has(argc, argv, "--eager"));
    const uint32_t expected = LAYER_TRACE_PROMPTS * LAYER_TRACE_STEPS * t.config.geometry.layers;
    const double worst = good ? layer_trace_worst(&t) : INFINITY;
    const bool passed = good && t.compared == expected && worst <= bound;
    printf(
        "%s %s: %u of %u outputs compared, worst relative error of a layer and step %.3g of %.3g, "
        "of one vector %.3g: %s\n",
        argv[1], precision, t.compared, expected, worst, bound, t.worst_vector,
        passed ? "matches" : "FAILED");
    layer_trace_close(&t);
    return passed ? 0 : 1;
}
