/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/measure_rig.h"

#include "bench/measure_lists.h"
#include "common/kv_format.h"
#include "common/math.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGN 256u

/* Layers make this many times the L2 cache: what the first one read is long gone when it is read
 * again. */
#define COLD_CACHES 8u
#define LEAST_LAYERS 3u

#define POISON 0xff
#define NO_PAGE (-1)

/* ---- what there is to allocate ------------------------------------------------------------------
 */

static uint32_t pages_of(const struct rt_measure_attention_params *p, uint32_t row)
{
    return rt_ceil_div_u32((uint32_t)p->lengths[row], p->page_size);
}

static enum rt_status check_lengths(const struct rt_measure_attention_params *p,
                                    struct rt_error *err)
{
    for (uint32_t r = 0; r < p->batch; r++)
        RT_REQUIRE(p->lengths[r] >= (int32_t)p->query_len && p->lengths[r] <= RT_MAX_LENGTH, err,
                   RT_ERR_INVALID, "rt_measure_attention: lengths[%u] = %d is not %u..%d", r,
                   p->lengths[r], p->query_len, RT_MAX_LENGTH);
    return RT_OK;
}

static enum rt_status decide_shape(struct rt_rig *rig, struct rt_error *err)
{
    const struct rt_measure_attention_params *p = rig->params;
    uint64_t pages = 0, blocks = 0;
    uint32_t columns = 1;
    rig->shape = (struct rt_mla_shape){.struct_size = sizeof(rig->shape),
                                       .batch = p->batch,
                                       .query_len = p->query_len,
                                       .heads = p->heads,
                                       .d_qk = p->d_qk,
                                       .d_v = p->d_v,
                                       .page_size = p->page_size,
                                       .max_blocks = 1,
                                       .pages = 1,
                                       .causal = p->causal,
                                       .kv_layout = p->kv_layout,
                                       .backend = p->backend};
    /* Pages are counted behind this: it is what bounds page size and batch. */
    RT_TRY(rt_ops_choose("rt_mla_decode", &rig->m->driver.caps, &rig->shape, p->invariant,
                         &rig->choices[RT_RIG_TIMED], err));
    if (p->topk)
        RT_TRY(rt_lists_choose(rig, RT_RIG_TIMED, p->backend));
    RT_TRY(check_lengths(p, err));
    for (uint32_t r = 0; r < p->batch; r++) {
        pages += pages_of(p, r);
        columns = rt_max_u32(columns, pages_of(p, r));
        blocks += rt_ceil_div_u32((uint32_t)p->lengths[r], RT_BLOCK_TOKENS);
    }
    rig->shape.pages = (uint32_t)pages; /* at most 4096 * 65536 */
    rig->shape.max_blocks = columns;
    if (!p->small_tiles)
        return RT_OK;
    return rt_ops_choose_for_blocks("rt_mla_decode", &rig->m->driver.caps, &rig->shape,
                                    p->invariant, blocks, &rig->choices[RT_RIG_TIMED], err);
}

/* The generic kernel; where that is the timed one, with other cuts: partial sums of other keys. */
static enum rt_status choose_truth(struct rt_rig *rig, struct rt_error *err)
{
    struct rt_ops_choice *truth = &rig->choices[RT_RIG_TRUTH];
    struct rt_mla_shape shape = rig->shape;
    shape.backend = RT_BACKEND_GENERIC;
    RT_TRY(rt_ops_choose("rt_mla_decode", &rig->m->driver.caps, &shape, 0, truth, err));
    if (rig->params->topk)
        RT_TRY(rt_lists_choose(rig, RT_RIG_TRUTH, RT_BACKEND_GENERIC));
    struct rt_variant *attend = rt_rig_attend(rig, RT_RIG_TRUTH);
    if (!strcmp(attend->entry, rt_rig_attend(rig, RT_RIG_TIMED)->entry))
        attend->parts += attend->parts / 2 + 1;
    return RT_OK;
}

static enum rt_status decide_layers(struct rt_rig *rig, struct rt_error *err)
{
    const struct rt_mla_shape *s = &rig->shape;
    uint64_t cold = COLD_CACHES * rig->m->driver.caps.l2_bytes;
    struct rt_kv_format format;
    RT_REQUIRE(rt_kv_format_make(s->kv_layout, RT_PRECISION_BF16, s->d_qk, s->d_v, &format), err,
               RT_ERR_GEOMETRY, "KV layout %d is not of %u/%u", (int)s->kv_layout, s->d_qk, s->d_v);
    rig->layer_bytes = s->pages * rt_kv_page_bytes(&format, s->page_size); /* the pool is pages */
    uint64_t layers = rt_ceil_div_u64(cold, rig->layer_bytes);
    layers = layers < LEAST_LAYERS ? LEAST_LAYERS : layers;
    layers = layers > RT_MAX_LAYERS ? RT_MAX_LAYERS : layers;
    RT_TRY(rt_measure_pool(rig->m, layers * rig->layer_bytes, &rig->pool));
    RT_TRY(rt_measure_renew(rig->m, s));
    uint64_t room = rig->pool.bytes / rig->layer_bytes;
    RT_REQUIRE(room > 0, err, RT_ERR_DEVICE_MEMORY,
               "a layer's KV of %u pages takes %llu bytes of device memory, there is room for %llu",
               s->pages, (unsigned long long)rig->layer_bytes, (unsigned long long)rig->pool.bytes);
    rig->layers = (uint32_t)(room < layers ? room : layers);
    return RT_OK;
}

/* What a side's kernels need besides the inputs, in bytes. */
static void size_outputs(const struct rt_rig *rig, enum rt_rig_side side,
                         uint64_t (*bytes)[RT_RIG_OUTPUTS])
{
    const struct rt_mla_shape *s = &rig->shape;
    const uint64_t query_rows = (uint64_t)s->batch * s->query_len * s->heads;
    struct rt_mla_workspace dense;
    struct rt_mla_sparse_workspace sparse = {0};
    rt_ops_workspace(s, &rig->choices[side], &dense);
    if (rig->params->topk)
        rt_sparse_workspace(&rig->lists.shape, &rig->lists.choices[side], &sparse);
#define BYTES(member) (rig->params->topk ? sparse.member : dense.member)
    (*bytes)[RT_RIG_PARTS] = BYTES(part_bytes);
    (*bytes)[RT_RIG_NUM_SPLITS] = BYTES(num_splits_bytes);
    (*bytes)[RT_RIG_PARTIAL_OUT] = BYTES(partial_out_bytes);
    (*bytes)[RT_RIG_PARTIAL_LSE] = BYTES(partial_lse_bytes);
#undef BYTES
    (*bytes)[RT_RIG_OUT] = query_rows * s->d_v * sizeof(uint16_t);
    (*bytes)[RT_RIG_LSE] = query_rows * sizeof(float);
}

/* Counts where base is 0, and carves: returns the bytes of it all. */
static uint64_t carve(struct rt_rig *rig, rt_addr base)
{
    const struct rt_mla_shape *s = &rig->shape;
    uint64_t rows = (uint64_t)s->batch * s->query_len, query_rows = rows * s->heads, at = 0;
    struct {
        struct rt_rig_buffer *buffer;
        uint64_t bytes;
    } all[7 + RT_RIG_SIDES * (1 + RT_RIG_OUTPUTS)] = {
        {&rig->lengths, s->batch * sizeof(int32_t)},
        {&rig->positions, s->batch * sizeof(int32_t)},
        {&rig->table, (uint64_t)s->batch * s->max_blocks * sizeof(int32_t)},
        {&rig->q, query_rows * s->d_qk * sizeof(uint16_t)},
        {&rig->latent, rows * s->d_qk * sizeof(uint16_t)},
        {&rig->lists.indices, rt_lists_index_bytes(rig)},
        {&rig->lists.counts, rt_lists_count_bytes(rig)},
        {&rig->lists.lengths[RT_RIG_TIMED], rt_lists_count_bytes(rig)},
        {&rig->lists.lengths[RT_RIG_TRUTH], rt_lists_count_bytes(rig)},
    };
    uint32_t count = 9;
    for (uint32_t side = 0; side < RT_RIG_SIDES; side++) {
        uint64_t bytes[RT_RIG_OUTPUTS];
        size_outputs(rig, side, &bytes);
        for (uint32_t i = 0; i < RT_RIG_OUTPUTS; i++, count++) {
            all[count].buffer = &rig->outputs[side][i];
            all[count].bytes = bytes[i];
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        *all[i].buffer = (struct rt_rig_buffer){.address = base + at, .bytes = all[i].bytes};
        at += rt_align_up_u64(all[i].bytes, ALIGN);
    }
    return at;
}

/* ---- inputs --------------------------------------------------------------------------------- */

/* A permutation of the pool's pages, the same in every run. */
static void shuffle(int32_t *ids, uint32_t count)
{
    uint64_t state = 1;
    for (uint32_t i = 0; i < count; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint32_t j = (uint32_t)((state >> 32) * (i + 1) >> 32);
        ids[i] = ids[j];
        ids[j] = (int32_t)i;
    }
}

static void fill_table(const struct rt_rig *rig, const int32_t *ids, int32_t *table)
{
    const struct rt_mla_shape *s = &rig->shape;
    uint32_t next = 0;
    for (uint32_t r = 0; r < s->batch; r++)
        for (uint32_t i = 0; i < s->max_blocks; i++)
            table[(uint64_t)r * s->max_blocks + i] =
                i < pages_of(rig->params, r) ? ids[next++] : NO_PAGE;
}

static enum rt_status upload(const struct rt_rig *rig, const struct rt_rig_buffer *to,
                             const void *from)
{
    struct rt_measure *m = rig->m;
    struct rt_driver *d = &m->driver;
    RT_TRY(RT_DRV(d, &m->error, copy_in, (d, to->address, from, to->bytes, m->stream)));
    return RT_DRV(d, &m->error, stream_sync, (d, m->stream));
}

static enum rt_status upload_integers(const struct rt_rig *rig)
{
    const struct rt_mla_shape *s = &rig->shape;
    enum rt_status status;
    int32_t *ids = calloc(s->pages, sizeof(*ids));
    int32_t *table = malloc(rig->table.bytes);
    int32_t *positions = malloc(rig->positions.bytes);
    if (!ids || !table || !positions) {
        status = rt_fail(&rig->m->error, RT_ERR_NOMEM, "out of host memory for %u pages", s->pages);
        goto fail;
    }
    shuffle(ids, s->pages);
    fill_table(rig, ids, table);
    for (uint32_t r = 0; r < s->batch; r++)
        positions[r] = rig->params->lengths[r] - (int32_t)s->query_len;
    RT_TRY_GOTO(upload(rig, &rig->lengths, rig->params->lengths));
    RT_TRY_GOTO(upload(rig, &rig->positions, positions));
    status = upload(rig, &rig->table, table);
fail:
    free(positions);
    free(table);
    free(ids);
    return status;
}

enum rt_status rt_rig_make(struct rt_measure *m, const struct rt_measure_attention_params *params,
                           struct rt_rig *rig)
{
    struct rt_driver *d = &m->driver;
    enum rt_status status;
    *rig = (struct rt_rig){.m = m, .params = params};
    RT_TRY_GOTO(decide_shape(rig, &m->error));
    RT_TRY_GOTO(choose_truth(rig, &m->error));
    RT_TRY_GOTO(decide_layers(rig, &m->error));
    uint64_t bytes = carve(rig, 0);
    RT_TRY_GOTO(rt_driver_wanted(RT_DRV(d, &m->error, mem_alloc, (d, bytes, &rig->memory)),
                                 "the memory of a shape", bytes, &m->error));
    carve(rig, rig->memory);
    RT_TRY_GOTO(upload_integers(rig));
    if (params->topk)
        RT_TRY_GOTO(rt_lists_fill(rig));
    RT_TRY_GOTO(rt_measure_fill(m, rig->q.address, rig->q.bytes));
    RT_TRY_GOTO(rt_measure_fill(m, rig->latent.address, rig->latent.bytes));
    return RT_OK;
fail:
    rt_rig_free(rig);
    return status;
}

void rt_rig_free(struct rt_rig *rig)
{
    if (rig->memory)
        (void)rig->m->driver.mem_free(&rig->m->driver, rig->memory);
    *rig = (struct rt_rig){0};
}

/* Outputs and partial sums; the plan is written by the schedule. */
enum rt_status rt_rig_poison(const struct rt_rig *rig, enum rt_rig_side side)
{
    struct rt_measure *m = rig->m;
    struct rt_driver *d = &m->driver;
    for (uint32_t i = 0; i < RT_RIG_OUTPUTS; i++) {
        const struct rt_rig_buffer *b = &rig->outputs[side][i];
        RT_TRY(RT_DRV(d, &m->error, fill, (d, b->address, POISON, b->bytes, m->stream)));
    }
    return RT_OK;
}

/* ---- launches ------------------------------------------------------------------------------- */

static enum rt_status add(const struct rt_rig *rig, const char *name, uint32_t layer,
                          const struct rt_work *work, struct rt_program *p)
{
    char label[RT_LABEL_BYTES];
    (void)snprintf(label, sizeof(label), "%s.%u", name, layer);
    return rt_program_add(p, label, layer, work, &rig->m->error);
}

static rt_addr output(const struct rt_rig *rig, enum rt_rig_side side, enum rt_rig_output which)
{
    return rig->outputs[side][which].address;
}

static struct rt_mla_schedule_buffers schedule_of(const struct rt_rig *rig, enum rt_rig_side side)
{
    return (struct rt_mla_schedule_buffers){.parts = output(rig, side, RT_RIG_PARTS),
                                            .num_splits = output(rig, side, RT_RIG_NUM_SPLITS)};
}

static rt_addr layer_of(const struct rt_rig *rig, uint32_t layer)
{
    return rig->pool.address + layer * rig->layer_bytes;
}

enum rt_status rt_rig_add_schedule(const struct rt_rig *rig, enum rt_rig_side side,
                                   struct rt_program *p)
{
    const struct rt_mla_schedule_args args = {.struct_size = sizeof(args),
                                              .shape = rig->shape,
                                              .lengths = rig->lengths.address,
                                              .schedule = schedule_of(rig, side)};
    struct rt_work work;
    if (rig->params->topk) {
        RT_TRY(rt_lists_schedule_work(rig, side, &work));
        return add(rig, "schedule", 0, &work, p);
    }
    RT_TRY(
        rt_ops_schedule_work(&rig->m->kernels, &rig->choices[side], &args, &work, &rig->m->error));
    return add(rig, "schedule", 0, &work, p);
}

enum rt_status rt_rig_add_append(const struct rt_rig *rig, uint32_t layer, struct rt_program *p)
{
    const struct rt_mla_append_args args = {.struct_size = sizeof(args),
                                            .shape = rig->shape,
                                            .latent = rig->latent.address,
                                            .kv_scale = rt_rig_kv_scale(rig),
                                            .kv = layer_of(rig, layer),
                                            .block_table = rig->table.address,
                                            .positions = rig->positions.address};
    struct rt_work work;
    RT_TRY(rt_ops_append_work(&rig->m->kernels, &rig->choices[RT_RIG_TIMED], &args, &work,
                              &rig->m->error));
    return add(rig, "append", layer, &work, p);
}

static enum rt_status add_listed(const struct rt_rig *rig, enum rt_rig_side side, uint32_t layer,
                                 struct rt_program *p)
{
    struct rt_sparse_decode_work work;
    RT_TRY(rt_lists_decode_work(rig, side, layer, &work));
    RT_TRY(add(rig, "attend", layer, &work.attend, p));
    return work.is_whole ? RT_OK : add(rig, "reduce", layer, &work.reduce, p);
}

enum rt_status rt_rig_add_attend(const struct rt_rig *rig, enum rt_rig_side side, uint32_t layer,
                                 struct rt_program *p)
{
    if (rig->params->topk)
        return add_listed(rig, side, layer, p);
    const struct rt_mla_decode_args args = {
        .struct_size = sizeof(args),
        .softmax_scale = rig->params->softmax_scale,
        .kv_scale = rt_rig_kv_scale(rig),
        .shape = rig->shape,
        .q = rig->q.address,
        .kv = layer_of(rig, layer),
        .block_table = rig->table.address,
        .lengths = rig->lengths.address,
        .schedule = schedule_of(rig, side),
        .partial_out = output(rig, side, RT_RIG_PARTIAL_OUT),
        .partial_lse = output(rig, side, RT_RIG_PARTIAL_LSE),
        .out = output(rig, side, RT_RIG_OUT),
        .lse = output(rig, side, RT_RIG_LSE),
    };
    const struct rt_ops_choice *choice = &rig->choices[side];
    struct rt_attend_quant_params params;
    struct rt_decode_work work;
    RT_TRY(rt_ops_attend_params(&args, choice, &params, &rig->m->error));
    /* As in a step: what a layer reads early is complete, but for the schedule just before. */
    params.attend.early =
        !p->count || strcmp(rt_work_name(p->stages[p->count - 1].work), "rt_schedule") != 0;
    RT_TRY(rt_ops_decode_work(&rig->m->kernels, choice, &params, &work, &rig->m->error));
    RT_TRY(add(rig, "attend", layer, &work.attend, p));
    return add(rig, "reduce", layer, &work.reduce, p);
}
