/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/products.h"

#include "driver/matmul_plan.h"
#include "runtime/fastest.h"
#include "runtime/way_agree.h"

#include <stdlib.h>

static bool serves(const struct rt_planned *product, const struct rt_matmul *m)
{
    struct rt_matmul planned = *m;
    planned.plan = product->plan;
    return rt_matmul_plan_serves(&product->first, &planned);
}

static enum rt_status push(struct rt_products *products, const struct rt_planned *product,
                           struct rt_error *err)
{
    if (products->count == products->capacity) {
        const uint32_t capacity = products->capacity ? 2 * products->capacity : 16;
        struct rt_planned *items = realloc(products->items, capacity * sizeof(*items));
        RT_REQUIRE(items, err, RT_ERR_NOMEM, "out of host memory for %u products", capacity);
        products->items = items;
        products->capacity = capacity;
    }
    products->items[products->count++] = *product;
    return RT_OK;
}

/* A plan for it, with the way that is the fastest here; null where there is none. */
static enum rt_status choose(struct rt_planned *product, const struct rt_program *program,
                             uint32_t first, struct rt_driver *d, rt_dstream stream,
                             struct rt_error *err)
{
    const struct rt_matmul *layers[RT_FASTEST_LAYERS];
    uint32_t count = 0;
    RT_TRY(rt_fastest_prepare(d, &product->first, &product->plan, err));
    for (uint32_t i = first; i < program->count && count < RT_FASTEST_LAYERS; i++) {
        const struct rt_work *work = program->stages[i].work;
        if (work->kind == RT_WORK_MATMUL && serves(product, &work->matmul))
            layers[count++] = &work->matmul;
    }
    return rt_fastest_select(d, stream, layers, count, product->plan, err);
}

/* The first of its kind is program's stage `first`. */
static enum rt_status add(struct rt_products *products, const struct rt_program *program,
                          uint32_t first, struct rt_comm *comm, struct rt_driver *d,
                          rt_dstream stream, struct rt_error *err)
{
    struct rt_planned product = {.first = program->stages[first].work->matmul};
    enum rt_status status = choose(&product, program, first, d, stream, err);
    if (comm && comm->ranks > 1)
        status = rt_way_agree(comm, d, product.plan, status, err);
    if (status == RT_OK)
        status = push(products, &product, err);
    if (status != RT_OK && product.plan)
        (void)d->matmul_release(d, product.plan);
    return status;
}

static const struct rt_planned *find(const struct rt_products *products, const struct rt_matmul *m)
{
    for (uint32_t i = 0; i < products->count; i++)
        if (serves(&products->items[i], m))
            return &products->items[i];
    return NULL;
}

/* The first of its kind is program's stage i: a plan for it, or a refusal. */
static enum rt_status plan_or_refuse(struct rt_products *products, const struct rt_program *program,
                                     uint32_t i, struct rt_comm *comm, struct rt_driver *d,
                                     rt_dstream stream, struct rt_error *err)
{
    struct rt_error story = {.status = RT_OK};
    const enum rt_status status = add(products, program, i, comm, d, stream, &story);
    if (status == RT_OK)
        return RT_OK;
    if (status == RT_ERR_UNSUPPORTED && products->may_refuse)
        return rt_refusals_add(&products->refusals, &program->stages[i].work->matmul, story.message,
                               err);
    (void)rt_fail(err, status, "%s", story.message);
    return rt_program_stage_failed(program, i, status, err);
}

static enum rt_status plan_all(struct rt_products *products, const struct rt_program *program,
                               struct rt_comm *comm, struct rt_driver *d, rt_dstream stream,
                               struct rt_error *err)
{
    for (uint32_t i = 0; i < program->count; i++) {
        struct rt_work *work = program->stages[i].work;
        if (work->kind != RT_WORK_MATMUL || work->matmul.m == 0 ||
            rt_refusals_find(&products->refusals, &work->matmul))
            continue;
        if (!find(products, &work->matmul))
            RT_TRY(plan_or_refuse(products, program, i, comm, d, stream, err));
        const struct rt_planned *planned = find(products, &work->matmul);
        work->matmul.plan = planned ? planned->plan : NULL;
    }
    return RT_OK;
}

enum rt_status rt_products_make(struct rt_products *products, const struct rt_recipe_source *s,
                                const struct rt_graph_spec *spec, struct rt_stage_binding *bindings,
                                struct rt_driver *d, rt_dstream stream, struct rt_program *program,
                                struct rt_error *err)
{
    for (;;) { /* a recipe asks for no product that was refused, so this ends */
        const uint32_t known = products->refusals.count;
        RT_TRY(rt_recipe_make(s, spec, bindings, program, err));
        RT_TRY(plan_all(products, program, s->comm, d, stream, err));
        if (products->refusals.count == known)
            return RT_OK;
        rt_program_free(program);
    }
}

void rt_products_free(struct rt_products *products, struct rt_driver *d)
{
    for (uint32_t i = 0; i < products->count; i++)
        (void)d->matmul_release(d, products->items[i].plan);
    free(products->items);
    rt_refusals_free(&products->refusals);
    *products = (struct rt_products){.items = NULL};
}
