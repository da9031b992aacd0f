/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences out of a runtime and into another as bytes. Copies are on the runtime's stream, so they
 * come behind every step that writes the pages, and in front of every step that reads them.
 */
#include "runtime/seq_image.h"
#include "runtime/slots.h"

#include "common/math.h"

#include <inttypes.h>
#include <string.h>

/* What an image of this runtime's says, but for its length. */
static struct rt_seq_header header_of(const struct rt_runtime *rt)
{
    const struct rt_config *c = &rt->blueprint.config;
    const struct rt_kv_format *kv = &rt->blueprint.placement.dims.kv;
    return (struct rt_seq_header){.d_qk = kv->d_qk,
                                  .d_v = kv->d_v,
                                  .layers = c->geometry.layers,
                                  .page_size = c->page_size,
                                  .rope_order = (uint32_t)c->block.rope.order};
}

static unsigned char *page_in(const struct rt_seq_header *h, unsigned char *image, uint32_t layer,
                              uint32_t page)
{
    return image + h->header_bytes +
           ((uint64_t)layer * rt_seq_image_pages(h) + page) * h->page_bytes;
}

/* Pages from `first` on whose ids follow one on the other: one copy. */
static uint32_t run_of(const int32_t *line, uint32_t first, uint32_t pages)
{
    uint32_t count = 1;
    while (first + count < pages && line[first + count] == line[first] + (int32_t)count)
        count++;
    return count;
}

/* Between the sequence's pages and the image's, of all layers; waits for them. */
static enum rt_status move_pages(struct rt_runtime *rt, const struct rt_slot *slot,
                                 const struct rt_seq_header *h, unsigned char *image, bool out)
{
    struct rt_driver *const d = &rt->driver;
    const int32_t *line = rt_slot_line(rt, slot);
    const uint32_t pages = rt_seq_image_pages(h);
    for (uint32_t layer = 0; layer < h->layers; layer++)
        for (uint32_t i = 0, count; i < pages; i += count) {
            count = run_of(line, i, pages);
            const rt_addr at =
                rt_arena_addr(&rt->arena, RT_TENSOR_KV, layer) + (uint64_t)line[i] * h->page_bytes;
            unsigned char *const bytes = page_in(h, image, layer, i);
            RT_TRY(out ? RT_DRV(d, &rt->error, copy_out,
                                (d, bytes, at, count * h->page_bytes, rt->stream))
                       : RT_DRV(d, &rt->error, copy_in,
                                (d, at, bytes, count * h->page_bytes, rt->stream)));
        }
    return RT_OK;
}

/* What was asked for is waited for also where a copy could not be: the image is the caller's. */
static enum rt_status move_and_wait(struct rt_runtime *rt, const struct rt_slot *slot,
                                    const struct rt_seq_header *h, unsigned char *image, bool out)
{
    struct rt_driver *const d = &rt->driver;
    struct rt_error unused = {.status = RT_OK};
    RT_TRY(RT_DRV(d, &rt->error, ctx_enter, (d)));
    enum rt_status status = move_pages(rt, slot, h, image, out);
    const enum rt_status waited =
        RT_DRV(d, status == RT_OK ? &rt->error : &unused, stream_sync, (d, rt->stream));
    (void)d->ctx_leave(d);
    return status == RT_OK ? waited : status;
}

static enum rt_status check_whole(struct rt_runtime *rt, const char *function)
{
    const uint32_t context = rt->blueprint.config.context_parallel;
    RT_REQUIRE(context <= 1, &rt->error, RT_ERR_UNSUPPORTED,
               "%s: context_parallel is %u: a rank has a part of a sequence's tokens", function,
               context);
    RT_REQUIRE(!rt->held, &rt->error, RT_ERR_BUSY,
               "%s: the host device's work is held back, and this waits for it", function);
    return RT_OK;
}

/* ---- out ------------------------------------------------------------------------------------- */

enum rt_status rt_seq_export(rt_runtime *rt, rt_seq seq, void *to, uint64_t capacity,
                             uint64_t *needed)
{
    RT_ENTER(rt);
    RT_REQUIRE(needed, &rt->error, RT_ERR_INVALID, "rt_seq_export: needed is null");
    struct rt_slot *slot = NULL;
    rt_harvest(rt);
    RT_TRY(rt_slot_of(rt, seq, &slot));
    RT_TRY(rt_slot_decided(rt, slot, "export"));
    RT_TRY(check_whole(rt, __func__));
    const struct rt_kv_format *kv = &rt->blueprint.placement.dims.kv;
    struct rt_seq_header h = header_of(rt);
    h.length = slot->length;
    const uint64_t bytes = rt_seq_image_begin(&h, kv);
    const uint32_t pages = rt_seq_image_pages(&h), bound = rt_slot_rest(rt, slot)->page_count;
    RT_REQUIRE(pages <= bound, &rt->error, RT_ERR_PAGES,
               "rt_seq_export: %u tokens are in %u pages, %u are bound", h.length, pages, bound);
    *needed = bytes;
    if (!to)
        return RT_OK;
    RT_REQUIRE(capacity >= bytes, &rt->error, RT_ERR_INVALID,
               "rt_seq_export: capacity %" PRIu64 " is less than the %" PRIu64 " bytes needed",
               capacity, bytes);
    unsigned char *const image = to;
    memset(image + sizeof(h), 0, h.header_bytes - sizeof(h));
    memcpy(image + sizeof(h), rt->kv_scales, h.layers * sizeof(rt->kv_scales[0]));
    RT_TRY(move_and_wait(rt, slot, &h, image, true));
    if (h.length % h.page_size)
        for (uint32_t layer = 0; layer < h.layers; layer++)
            rt_seq_image_blank(kv, h.page_size, h.length % h.page_size,
                               page_in(&h, image, layer, pages - 1));
    rt_seq_image_end(&h, image, bytes);
    return RT_OK;
}

/* ---- in -------------------------------------------------------------------------------------- */

static enum rt_status check_scales(struct rt_runtime *rt, const unsigned char *image)
{
    for (uint32_t layer = 0; layer < rt->blueprint.config.geometry.layers; layer++) {
        float scale;
        memcpy(&scale, image + sizeof(struct rt_seq_header) + layer * sizeof(scale), sizeof(scale));
        RT_REQUIRE(scale == rt->kv_scales[layer], &rt->error, RT_ERR_UNSUPPORTED,
                   "rt_seq_import: the sequence's KV scale of layer %u is %g, this runtime has %g",
                   layer, (double)scale, (double)rt->kv_scales[layer]);
    }
    return RT_OK;
}

/* What it says of itself is what this runtime has; the first difference is told. */
static enum rt_status check_alike(struct rt_runtime *rt, const struct rt_seq_header *h,
                                  const struct rt_kv_format *format)
{
    const struct rt_seq_header mine = header_of(rt);
    const struct {
        const char *name;
        uint32_t theirs, ours;
    } numbers[] = {{"d_qk", h->d_qk, mine.d_qk},
                   {"d_v", h->d_v, mine.d_v},
                   {"layers", h->layers, mine.layers},
                   {"page_size", h->page_size, mine.page_size},
                   {"rope order", h->rope_order, mine.rope_order}};
    const char *const name = rt->blueprint.placement.dims.kv.name;
    RT_REQUIRE(strcmp(format->name, name) == 0, &rt->error, RT_ERR_UNSUPPORTED,
               "rt_seq_import: the sequence's layout is %s, this runtime's is %s", format->name,
               name);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++)
        RT_REQUIRE(numbers[i].theirs == numbers[i].ours, &rt->error, RT_ERR_UNSUPPORTED,
                   "rt_seq_import: the sequence's %s is %u, this runtime's is %u", numbers[i].name,
                   numbers[i].theirs, numbers[i].ours);
    return RT_OK;
}

enum rt_status rt_seq_import(rt_runtime *rt, const void *from, uint64_t bytes, int32_t last_token,
                             rt_seq *out)
{
    RT_ENTER(rt);
    RT_REQUIRE(from && out, &rt->error, RT_ERR_INVALID, "rt_seq_import: an argument is null");
    struct rt_seq_header h;
    struct rt_kv_format format;
    RT_TRY(check_whole(rt, __func__));
    RT_TRY(rt_seq_image_read(from, bytes, &h, &format, &rt->error));
    RT_TRY(check_alike(rt, &h, &format));
    RT_TRY(check_scales(rt, from));
    const struct rt_seq_params params = {
        .struct_size = sizeof(params), .length = h.length, .last_token = last_token};
    rt_seq seq = 0;
    RT_TRY(rt_seq_open(rt, &params, &seq));
    /* Copied in from; the cast is for the way out, which shares the walk. */
    unsigned char *const image = (unsigned char *)(uintptr_t)from;
    const enum rt_status status = move_and_wait(rt, rt_slot_find(rt, seq), &h, image, false);
    if (status != RT_OK) {
        const struct rt_error story = rt->error;
        (void)rt_seq_close(rt, seq);
        rt->error = story;
        return status;
    }
    *out = seq;
    return RT_OK;
}
