/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/harness.h"

#include "common/bf16.h"
#include "tests/checkkern/parallel.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A hand's share of filling a buffer: below it, nobody else is called. */
#define FILL_BYTES (UINT64_C(8) << 20)

/* Random numbers of a bench, made once and copied. */
#define SEED_BYTES (UINT64_C(32) << 20)

void ck_must(struct ck *ck, enum rt_status status, const struct rt_error *err)
{
    if (status == RT_OK)
        return;
    fprintf(stderr, "checkkern %s: %s\n  case: %s\n  seed: %llu\n", ck->test, err->message,
            ck->where, (unsigned long long)ck->seed);
    exit(1);
}

bool ck_is_cuda(const struct ck *ck)
{
    return ck->driver.caps.kind == RT_DEVICE_KIND_CUDA;
}

bool ck_is_brief(const struct ck *ck)
{
    return ck->quick && !ck_is_cuda(ck);
}

void ck_case(struct ck *ck, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(ck->where, sizeof(ck->where), fmt, args);
    va_end(args);
    ck->cases++;
}

void ck_failed(struct ck *ck, const char *fmt, ...)
{
    va_list args;
    ck->failures++;
    printf("FAILED %s: ", ck->test);
    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);
    printf("\n  case: %s\n  seed: %llu\n", ck->where, (unsigned long long)ck->seed);
}

void ck_note_worst(struct ck *ck, const char *tensor, double share, double difference,
                   double cosine)
{
    struct ck_record *r = ck->records;
    while (r->tensor && strcmp(r->tensor, tensor) != 0 && r < &ck->records[CK_MAX_RECORDS - 1])
        r++;
    if (!r->tensor || share > r->share) {
        r->share = share;
        r->difference = difference;
        memcpy(r->where, ck->where, sizeof(r->where));
    }
    r->tensor = tensor;
    if (cosine > r->cosine)
        r->cosine = cosine;
}

void ck_count(struct ck *ck, const char *backend, uint64_t compared, uint64_t query_rows)
{
    struct ck_tally *t = ck->tallies;
    while (t->backend && strcmp(t->backend, backend) != 0 && t < &ck->tallies[CK_MAX_TALLIES - 1])
        t++;
    t->backend = backend;
    t->cases++;
    t->compared += compared;
    t->query_rows += query_rows;
}

void *ck_new(struct ck *ck, uint64_t bytes)
{
    void *memory = calloc(1, bytes);
    if (!memory) {
        fprintf(stderr, "checkkern %s: no memory for %llu bytes\n", ck->test,
                (unsigned long long)bytes);
        exit(1);
    }
    return memory;
}

void ck_fill_bf16(struct ck *ck, rt_addr to, uint64_t bytes, double most)
{
    struct ck_random random = {.state = ck->seed};
    const uint64_t seed_bytes = bytes < SEED_BYTES ? bytes : SEED_BYTES;
    uint16_t *seed = ck_new(ck, seed_bytes);
    for (uint64_t i = 0; i < seed_bytes / sizeof(*seed); i++)
        seed[i] = rt_float_to_bf16((float)(most * (2 * ck_random_unit(&random) - 1)));
    for (uint64_t at = 0; at < bytes; at += seed_bytes)
        CK_DRV(ck, copy_in,
               (&ck->driver, to + at, seed, bytes - at < seed_bytes ? bytes - at : seed_bytes,
                ck->stream));
    CK_DRV(ck, stream_sync, (&ck->driver, ck->stream));
    free(seed);
}

struct filling {
    const struct ck_buffer *b;
    unsigned char fill;
};

static void fill_slice(void *arg, uint32_t i)
{
    const struct filling *f = arg;
    uint64_t bytes = f->b->bytes + CK_GUARD_BYTES, first = i * FILL_BYTES;
    memset(f->b->ref + first, f->fill, bytes - first < FILL_BYTES ? bytes - first : FILL_BYTES);
}

struct ck_buffer ck_alloc_later(struct ck *ck, const char *name, uint64_t bytes, unsigned char fill)
{
    struct ck_buffer b = {.name = name, .bytes = bytes, .ref = ck_new(ck, bytes + CK_GUARD_BYTES)};
    struct filling f = {&b, fill};
    ck_parallel((uint32_t)((bytes + CK_GUARD_BYTES + FILL_BYTES - 1) / FILL_BYTES), fill_slice, &f);
    CK_DRV(ck, mem_alloc, (&ck->driver, bytes + CK_GUARD_BYTES, &b.device));
    return b;
}

struct ck_buffer ck_alloc(struct ck *ck, const char *name, uint64_t bytes, unsigned char fill)
{
    struct ck_buffer b = ck_alloc_later(ck, name, bytes, fill);
    ck_upload(ck, &b);
    return b;
}

struct ck_buffer ck_alloc_mapped(struct ck *ck, const char *name, uint64_t bytes,
                                 unsigned char fill)
{
    struct ck_buffer b = {.name = name, .bytes = bytes, .ref = ck_new(ck, bytes + CK_GUARD_BYTES)};
    void *mapped = NULL;
    memset(b.ref, fill, bytes + CK_GUARD_BYTES);
    CK_DRV(ck, host_alloc, (&ck->driver, bytes + CK_GUARD_BYTES, &mapped, &b.device));
    b.mapped = mapped;
    ck_upload(ck, &b);
    return b;
}

void ck_free(struct ck *ck, struct ck_buffer *b)
{
    if (b->mapped)
        CK_DRV(ck, host_free, (&ck->driver, b->mapped));
    else if (b->device)
        CK_DRV(ck, mem_free, (&ck->driver, b->device));
    free(b->ref);
    *b = (struct ck_buffer){0};
}

void *ck_at(const struct ck_buffer *b, enum ck_side side)
{
    return side == CK_REF ? b->ref : (void *)(uintptr_t)b->device;
}

void ck_upload(struct ck *ck, const struct ck_buffer *b)
{
    if (b->mapped) {
        memcpy(b->mapped, b->ref, b->bytes + CK_GUARD_BYTES);
        return;
    }
    CK_DRV(ck, copy_in, (&ck->driver, b->device, b->ref, b->bytes + CK_GUARD_BYTES, ck->stream));
    CK_DRV(ck, stream_sync, (&ck->driver, ck->stream));
}

void ck_download(struct ck *ck, const struct ck_buffer *b, void *to)
{
    if (b->mapped) {
        memcpy(to, b->mapped, b->bytes + CK_GUARD_BYTES);
        return;
    }
    CK_DRV(ck, copy_out, (&ck->driver, to, b->device, b->bytes + CK_GUARD_BYTES, ck->stream));
    CK_DRV(ck, stream_sync, (&ck->driver, ck->stream));
}

void *ck_fetch(struct ck *ck, const struct ck_buffer *b)
{
    void *found = ck_new(ck, b->bytes + CK_GUARD_BYTES);
    ck_download(ck, b, found);
    return found;
}

enum rt_status ck_build_variant(struct ck *ck, const struct rt_variant *variant, const void *params,
                                size_t param_bytes, struct rt_launch *out, struct rt_error *err)
{
    struct rt_work work;
    RT_TRY(rt_op_build(&ck->kernels, variant, params, param_bytes, &work, err));
    *out = work.launch;
    return RT_OK;
}

enum rt_status ck_build(struct ck *ck, enum rt_op_id op, const void *params, size_t param_bytes,
                        struct rt_launch *out, struct rt_error *err)
{
    const struct rt_op_request request = {.caps = &ck->driver.caps};
    struct rt_variant variant;
    RT_TRY(rt_op_resolve(op, &request, &variant, err));
    return ck_build_variant(ck, &variant, params, param_bytes, out, err);
}

void ck_launch(struct ck *ck, enum rt_status built, const struct rt_error *err,
               const struct rt_launch *launch)
{
    ck_must(ck, built, err);
    CK_DRV(ck, launch, (&ck->driver, launch, false, ck->stream));
    CK_DRV(ck, stream_sync, (&ck->driver, ck->stream));
}

bool ck_expect_bytes(struct ck *ck, const char *name, const void *found, const void *expected,
                     uint64_t bytes)
{
    if (memcmp(found, expected, bytes) == 0)
        return true;
    const unsigned char *f = found, *e = expected;
    uint64_t at = 0, different = 0;
    for (uint64_t i = bytes; i-- > 0;)
        if (f[i] != e[i]) {
            at = i;
            different++;
        }
    at -= at % 4;
    uint32_t word[2] = {0};
    uint64_t rest = bytes - at < 4 ? bytes - at : 4;
    memcpy(&word[0], f + at, rest);
    memcpy(&word[1], e + at, rest);
    ck_failed(ck, "%s differs in %llu of %llu bytes, first at byte %llu: 0x%08x, expected 0x%08x",
              name, (unsigned long long)different, (unsigned long long)bytes,
              (unsigned long long)at, word[0], word[1]);
    return false;
}

bool ck_expect_same(struct ck *ck, const struct ck_buffer *b)
{
    void *found = ck_fetch(ck, b);
    bool same = ck_expect_bytes(ck, b->name, found, b->ref, b->bytes + CK_GUARD_BYTES);
    free(found);
    return same;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#define WARM_UP 2
#define TIMED (CK_REPLAYS - WARM_UP)

static double median_replay_ns(struct ck *ck, rt_dexec exec)
{
    struct rt_driver *d = &ck->driver;
    double ns[TIMED] = {0};
    rt_devent from, to;
    CK_DRV(ck, event_create, (d, &from));
    CK_DRV(ck, event_create, (d, &to));
    for (int i = -WARM_UP; i < TIMED; i++) {
        float ms = 0;
        CK_DRV(ck, event_record, (d, from, ck->stream));
        CK_DRV(ck, graph_launch, (d, exec, ck->stream));
        CK_DRV(ck, event_record, (d, to, ck->stream));
        CK_DRV(ck, event_sync, (d, to));
        CK_DRV(ck, event_elapsed, (d, from, to, &ms));
        if (i >= 0)
            ns[i] = (double)ms * 1e6;
    }
    CK_DRV(ck, event_destroy, (d, from));
    CK_DRV(ck, event_destroy, (d, to));
    qsort(ns, TIMED, sizeof(ns[0]), compare_doubles);
    return ns[TIMED / 2];
}

static rt_dgraph make_graph(struct ck *ck, const struct rt_launch *launches, uint32_t count)
{
    struct rt_driver *d = &ck->driver;
    rt_dgraph graph;
    struct rt_dedge edge = {0};
    CK_DRV(ck, graph_create, (d, &graph));
    for (uint32_t i = 0; i < count; i++) {
        rt_dnode node;
        edge.programmatic = launches[i].waits;
        CK_DRV(ck, graph_add_kernel, (d, graph, &launches[i], &edge, i > 0, &node));
        edge.from = node;
    }
    return graph;
}

void ck_launch_chain(struct ck *ck, const struct rt_launch *launches, uint32_t count)
{
    struct rt_driver *d = &ck->driver;
    rt_dgraph graph = make_graph(ck, launches, count);
    rt_dexec exec;
    CK_DRV(ck, graph_instantiate, (d, graph, ck->stream, &exec));
    CK_DRV(ck, graph_launch, (d, exec, ck->stream));
    CK_DRV(ck, stream_sync, (d, ck->stream));
    CK_DRV(ck, exec_destroy, (d, exec));
    CK_DRV(ck, graph_destroy, (d, graph));
}

double ck_time_ns(struct ck *ck, const struct rt_launch *launches, uint32_t count)
{
    struct rt_driver *d = &ck->driver;
    rt_dgraph graph = make_graph(ck, launches, count);
    rt_dexec exec;
    CK_DRV(ck, graph_instantiate, (d, graph, ck->stream, &exec));
    double ns = median_replay_ns(ck, exec) / count;
    CK_DRV(ck, exec_destroy, (d, exec));
    CK_DRV(ck, graph_destroy, (d, graph));
    return ns;
}
