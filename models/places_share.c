/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a place a rank has. Heads are cut evenly. Widths of MLPs and the vocabulary are cut into
 * units of as many numbers as kernels move at once, as evenly as those go: the last ranks may have
 * less, or nothing. Of a width that is zeros then, whose products are 0, so that all ranks have the
 * same shapes and kernels; of the vocabulary rows are left out.
 *
 *   a width of 40, units of 8, 3 ranks   [0, 16)  [16, 32)  [32, 40) and 8 zeros
 */
#include "models/places.h"

#include <string.h>

static bool ends_with(const char *text, const char *end)
{
    const size_t bytes = strlen(text), of_end = strlen(end);
    return bytes >= of_end && strcmp(text + bytes - of_end, end) == 0;
}

/* Heads are rows of what makes them and columns of what takes them. */
static enum rt_place_part part_of_attention(const char *name)
{
    static const char *const rows[] = {".q_proj.weight", ".q_b_proj.weight", ".kv_b_proj.weight"};
    static const char *const columns[] = {".o_proj.weight", ".q_proj.bias", ".q_b_proj.bias"};
    for (size_t i = 0; i < 3; i++) {
        if (ends_with(name, rows[i]))
            return RT_PART_ROWS;
        if (ends_with(name, columns[i]))
            return RT_PART_COLUMNS;
    }
    return RT_PART_ALL;
}

/* And so are the numbers between an MLP's two products. */
static enum rt_place_part part_of(const struct rt_place *place)
{
    switch (place->kind) {
    case RT_PLACE_ATTENTION:
        return part_of_attention(place->name);
    case RT_PLACE_LM_HEAD:
    case RT_PLACE_GATE:
    case RT_PLACE_UP:
    case RT_PLACE_EXPERT_GATE:
    case RT_PLACE_EXPERT_UP:
    case RT_PLACE_SHARED_GATE:
    case RT_PLACE_SHARED_UP:
        return RT_PART_ROWS;
    case RT_PLACE_DOWN:
    case RT_PLACE_EXPERT_DOWN:
    case RT_PLACE_SHARED_DOWN:
        return RT_PART_COLUMNS;
    case RT_PLACE_EMBEDDING:
    case RT_PLACE_FINAL_NORM:
    case RT_PLACE_INPUT_NORM:
    case RT_PLACE_MLP_NORM:
    case RT_PLACE_ROUTER:
    case RT_PLACE_ROUTER_BIAS:
        break;
    }
    return RT_PART_ALL;
}

uint64_t rt_share_size(uint64_t whole, uint32_t unit, uint32_t ranks)
{
    const uint64_t units = (whole + unit - 1) / unit;
    return ranks > 1 ? (units + ranks - 1) / ranks * unit : whole;
}

/* Shared experts of n times the others' width are n of them on every rank too. */
static uint32_t unit_of(const struct rt_model *m, enum rt_place_kind kind)
{
    const bool is_shared =
        kind == RT_PLACE_SHARED_GATE || kind == RT_PLACE_SHARED_UP || kind == RT_PLACE_SHARED_DOWN;
    const uint32_t each = m->moe.intermediate_size, all = m->moe.shared_intermediate_size;
    return is_shared && each && all % each == 0 ? all / each * RT_SHARE_UNIT : RT_SHARE_UNIT;
}

static struct rt_place_share share_of_units(const struct rt_places *p, const struct rt_place *whole,
                                            enum rt_place_part part)
{
    const uint64_t all = part == RT_PART_ROWS ? whole->rows : whole->columns;
    const uint64_t size = rt_share_size(all, unit_of(&p->model, whole->kind), p->ranks);
    const uint64_t first = p->rank * size < all ? p->rank * size : all;
    const uint64_t count = all - first < size ? all - first : size;
    return (struct rt_place_share){.part = part,
                                   .first = first,
                                   .count = count,
                                   .size = whole->kind == RT_PLACE_LM_HEAD ? count : size};
}

/* Of ranks that share a context all have the rows of all their heads. */
static struct rt_place_share share_of_heads(const struct rt_places *p, const struct rt_place *whole,
                                            enum rt_place_part part)
{
    const bool is_rows = part == RT_PART_ROWS;
    const uint32_t context = is_rows ? p->context : 1;
    const uint64_t size = (is_rows ? whole->rows : whole->columns) / (p->ranks / context);
    return (struct rt_place_share){
        .part = part, .first = p->rank / context * size, .count = size, .size = size};
}

struct rt_place_share rt_place_share_of(const struct rt_places *p, const struct rt_place *whole)
{
    const enum rt_place_part part = p->ranks > 1 ? part_of(whole) : RT_PART_ALL;
    if (part == RT_PART_ALL)
        return (struct rt_place_share){
            .part = RT_PART_ALL, .count = whole->rows, .size = whole->rows};
    return whole->kind == RT_PLACE_ATTENTION ? share_of_heads(p, whole, part)
                                             : share_of_units(p, whole, part);
}

void rt_place_of(const struct rt_places *p, uint32_t index, struct rt_place *out)
{
    rt_place_whole(p, index, out);
    const struct rt_place_share share = rt_place_share_of(p, out);
    if (share.part == RT_PART_COLUMNS)
        out->columns = share.size;
    else
        out->rows = share.size;
}
