/* SPDX-License-Identifier: Apache-2.0 */
/* checkkern: every device kernel against its C reference. See usage(). */
#include "tests/checkkern/harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_SKIP 77

const struct ck_test ck_tests[] = {
    {"schedule", ck_schedule_run, ck_schedule_bench},
    {"append", ck_append_run, ck_append_bench},
    {"append_general", ck_append_general_run, NULL},
    {"append_quant", ck_append_quant_run, ck_append_quant_bench},
    {"schedule_append", ck_schedule_append_run, NULL},
    {"chunk_rows", ck_chunk_rows_run, NULL},
    {"context_rows", ck_context_rows_run, NULL},
    {"embed", ck_embed_run, ck_embed_bench},
    {"input_norm", ck_input_norm_run, ck_input_norm_bench},
    {"kv_convert", ck_kv_convert_run, ck_kv_convert_bench},
    {"kv_gather", ck_kv_gather_run, ck_kv_gather_bench},
    {"all_reduce", ck_all_reduce_run, NULL},
    {"all_reduce_norm", ck_all_reduce_norm_run, NULL},
    {"context_merge", ck_context_merge_run, NULL},
    {"merge", ck_merge_run, ck_merge_bench},
    {"mla_block", ck_mla_block_run, ck_mla_block_bench},
    {"moe_block", ck_moe_block_run, ck_moe_block_bench},
    {"preattend", ck_preattend_run, ck_preattend_bench},
    {"preattend_absorb", ck_preattend_absorb_run, ck_preattend_absorb_bench},
    {"preattend_quant", ck_preattend_quant_run, ck_preattend_quant_bench},
    {"preattend_sums", ck_preattend_sums_run, ck_preattend_sums_bench},
    {"prefill", ck_prefill_run, ck_prefill_bench},
    {"page_copy", ck_page_copy_run, NULL},
    {"step", ck_step_run, ck_step_bench},
    {"reduce", ck_reduce_run, ck_reduce_bench},
    {"attend", ck_attend_run, ck_attend_bench},
    {"attend_quant", ck_attend_quant_run, ck_attend_quant_bench},
    {"sparse", ck_sparse_run, ck_sparse_bench},
    {"take", ck_take_run, NULL},
    {"sample", ck_sample_run, ck_sample_bench},
    {"project", ck_project_run, ck_project_bench},
    {"gate", ck_gate_run, ck_gate_bench},
    {"route", ck_route_run, ck_route_bench},
    {"experts", ck_experts_run, ck_experts_bench},
    {NULL, NULL, NULL},
};

struct options {
    const char *test, *device;
    uint64_t seed;
    bool bench, full, quick, list, help;
};

static void usage(FILE *to)
{
    fprintf(to, "usage: checkkern [--test NAME] [--seed N] [--device auto|host|cuda:N]\n"
                "                 [--full|--quick]\n"
                "                 [--bench] [--list]\n"
                "  --test NAME  only that test; --list prints the names\n"
                "  --seed N     of all random inputs (1)\n"
                "  --full       every combination, longer sequences\n"
                "  --quick      fewer or shorter cases where there are many\n"
                "  --bench      time the kernels instead of checking them\n"
                "Ends with 1 where a kernel is wrong, 77 where the device is absent.\n");
}

static bool parse_seed(const char *text, uint64_t *out)
{
    char *end = NULL;
    *out = strtoull(text, &end, 10);
    return *text != '\0' && *end == '\0';
}

static bool parse(int argc, char **argv, struct options *o)
{
    *o = (struct options){.device = "auto", .seed = 1};
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--bench") == 0) {
            o->bench = true;
        } else if (strcmp(argv[i], "--full") == 0) {
            o->full = true;
        } else if (strcmp(argv[i], "--quick") == 0) {
            o->quick = true;
        } else if (strcmp(argv[i], "--list") == 0) {
            o->list = true;
        } else if (strcmp(argv[i], "--help") == 0) {
            o->help = true;
        } else if (value && strcmp(argv[i], "--test") == 0) {
            o->test = argv[++i];
        } else if (value && strcmp(argv[i], "--device") == 0) {
            o->device = argv[++i];
        } else if (value && strcmp(argv[i], "--seed") == 0) {
            if (!parse_seed(argv[++i], &o->seed))
                return false;
        } else {
            return false;
        }
    }
    return true;
}

static bool is_test(const char *name)
{
    const struct ck_test *t = ck_tests;
    while (t->name && strcmp(t->name, name) != 0)
        t++;
    return t->name != NULL;
}

static void run_test(struct ck *ck, const struct ck_test *t, const struct options *o)
{
    ck->test = t->name;
    ck->cases = 0;
    memset(ck->records, 0, sizeof(ck->records));
    memset(ck->tallies, 0, sizeof(ck->tallies));
    uint32_t before = ck->failures;
    (void)snprintf(ck->where, sizeof(ck->where), "setting up");
    if (o->bench) {
        if (t->bench)
            t->bench(ck);
        return;
    }
    t->run(ck);
    uint32_t failed = ck->failures - before;
    printf("%-10s %5u cases, %u failed\n", t->name, ck->cases, failed);
    for (const struct ck_tally *b = ck->tallies; b < &ck->tallies[CK_MAX_TALLIES] && b->backend;
         b++)
        printf("  %-8s %5u cases, %llu of %llu query rows compared with the truth\n", b->backend,
               b->cases, (unsigned long long)b->compared, (unsigned long long)b->query_rows);
    for (const struct ck_record *r = ck->records; r < &ck->records[CK_MAX_RECORDS] && r->tensor;
         r++)
        printf("  worst %s: off by %.3g, %.3g of its bound, cosine difference %.3g\n    in %s\n",
               r->tensor, r->difference, r->share, r->cosine, r->where);
}

static void run_tests(struct ck *ck, const struct options *o)
{
    struct rt_error err = {0};
    ck->test = "setup";
    CK_DRV(ck, ctx_enter, (&ck->driver));
    CK_DRV(ck, stream_create, (&ck->driver, &ck->stream));
    ck_must(ck, rt_kernels_load(&ck->driver, &ck->kernels, &err), &err);
    for (const struct ck_test *t = ck_tests; t->name; t++)
        if (!o->test || strcmp(o->test, t->name) == 0)
            run_test(ck, t, o);
    rt_kernels_unload(&ck->kernels);
    CK_DRV(ck, stream_destroy, (&ck->driver, ck->stream));
    CK_DRV(ck, ctx_leave, (&ck->driver));
}

int main(int argc, char **argv)
{
    struct options o;
    if (!parse(argc, argv, &o) || (o.test && !is_test(o.test))) {
        usage(stderr);
        return 2;
    }
    if (o.help || o.list) {
        if (o.help)
            usage(stdout);
        for (const struct ck_test *t = ck_tests; o.list && t->name; t++)
            printf("%s\n", t->name);
        return 0;
    }
    struct ck ck = {.seed = o.seed, .full = o.full, .quick = o.quick};
    struct rt_error err = {0};
    char why[256] = "";
    enum rt_status status = rt_driver_open(o.device, &ck.driver, why, sizeof(why), &err);
    if (status != RT_OK) {
        fprintf(stderr, "checkkern: %s\n", err.message);
        return status == RT_ERR_NO_DEVICE ? EXIT_SKIP : 1;
    }
    printf("device %s, seed %llu%s%s\n", ck.driver.caps.name, (unsigned long long)ck.seed,
           *why ? "; " : "", why);
    run_tests(&ck, &o);
    uint64_t left = ck.driver.probe.live;
    rt_driver_close(&ck.driver);
    if (left > 0) {
        fprintf(stderr, "checkkern: %llu driver objects were not released\n",
                (unsigned long long)left);
        return 1;
    }
    return ck.failures ? 1 : 0;
}
