/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/products.h"

#include "driver/matmul_plan.h"
#include "runtime/fastest.h"
#include "runtime/promises.h"
#include "runtime/way_agree.h"

#include <stdlib.h>

/* What a graph's products are planned with. */
struct planner {
    struct rt_products *products;
    const struct rt_program *program;
    struct rt_promises promises;
    struct rt_comm *comm; /* null: this is the only rank */
    struct rt_driver *d;
    rt_dstream stream;
};

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

/* The same answer on all ranks, one of which may have a bias that others have not. */
static const struct rt_planned *find(const struct rt_products *products, const struct rt_matmul *m,
                                     const struct rt_matmul_alignment *least)
{
    const struct rt_matmul promised = rt_promised(m, least);
    for (uint32_t i = 0; i < products->count; i++) {
        const struct rt_planned *const planned = &products->items[i];
        const bool biased_alike = !planned->bias_align == !least->bias;
        if (biased_alike && least->bias >= planned->bias_align && serves(planned, &promised))
            return planned;
    }
    return NULL;
}

/* A plan for it, null where there is none, with its ways timed over the layers from `first` on. */
static enum rt_status time_ways(struct rt_planned *product, const struct planner *p, uint32_t first,
                                struct rt_timed_ways *timed, struct rt_error *err)
{
    const struct rt_matmul *layers[RT_FASTEST_LAYERS];
    uint32_t count = 0;
    RT_TRY(rt_fastest_prepare(p->d, &product->first, &product->plan, err));
    for (uint32_t i = first; i < p->program->count && count < RT_FASTEST_LAYERS; i++) {
        const struct rt_work *work = p->program->stages[i].work;
        if (work->kind == RT_WORK_MATMUL && serves(product, &work->matmul))
            layers[count++] = &work->matmul;
    }
    return rt_fastest_time(p->d, p->stream, layers, count, product->plan, timed, err);
}

/* The first of its kind is the program's stage `first`. */
static enum rt_status add(const struct planner *p, uint32_t first,
                          const struct rt_matmul_alignment *least, struct rt_error *err)
{
    struct rt_planned product = {.first =
                                     rt_promised(&p->program->stages[first].work->matmul, least),
                                 .bias_align = least->bias};
    const struct rt_planned *const liked =
        p->products->like ? find(p->products->like, &p->program->stages[first].work->matmul, least)
                          : NULL;
    struct rt_timed_ways timed;
    enum rt_status status = time_ways(&product, p, first, &timed, err);
    if (status == RT_OK && liked)
        (void)rt_fastest_prefer(&timed, liked->plan);
    if (p->comm)
        status = rt_way_agree(p->comm, p->d, product.plan, &timed, status, err);
    else if (status == RT_OK)
        status = rt_fastest_take(p->d, product.plan, &timed, err);
    if (status == RT_OK)
        status = push(p->products, &product, err);
    if (status != RT_OK && product.plan)
        (void)p->d->matmul_release(p->d, product.plan);
    return status;
}

/* A refusal of stage i's product, or the failure itself. */
static enum rt_status refuse(const struct planner *p, uint32_t i, enum rt_status status,
                             const char *why, struct rt_error *err)
{
    struct rt_products *const products = p->products;
    if (status == RT_ERR_UNSUPPORTED && products->may_refuse)
        return rt_refusals_add(&products->refusals, &p->program->stages[i].work->matmul, why, err);
    (void)rt_fail(err, status, "%s", why);
    return rt_program_stage_failed(p->program, i, status, err);
}

/* The first of its kind is the program's stage i: a plan for it, or a refusal. */
static enum rt_status plan_or_refuse(const struct planner *p, uint32_t i,
                                     const struct rt_matmul_alignment *least, struct rt_error *err)
{
    struct rt_error story = {.status = RT_OK};
    const enum rt_status status = add(p, i, least, &story);
    return status == RT_OK ? RT_OK : refuse(p, i, status, story.message, err);
}

static enum rt_status plan_all(const struct planner *p, struct rt_error *err)
{
    const struct rt_matmul_alignment *least = p->promises.least;
    struct rt_products *const products = p->products;
    for (uint32_t i = 0; i < p->program->count; i++) {
        struct rt_work *work = p->program->stages[i].work;
        if (!rt_has_promise(work))
            continue;
        if (!rt_refusals_find(&products->refusals, &work->matmul)) {
            if (!find(products, &work->matmul, least))
                RT_TRY(plan_or_refuse(p, i, least, err));
            const struct rt_planned *planned = find(products, &work->matmul, least);
            work->matmul.plan = planned ? planned->plan : NULL;
        }
        least++;
    }
    return RT_OK;
}

/* Ranks that cannot go through their products together have none. */
static enum rt_status refuse_all(const struct planner *p, struct rt_error *err)
{
    struct rt_products *const products = p->products;
    RT_REQUIRE(products->may_refuse, err, RT_ERR_UNSUPPORTED, "the library has no way: %s",
               p->promises.why_not);
    for (uint32_t i = 0; i < p->program->count; i++) {
        const struct rt_work *work = p->program->stages[i].work;
        if (rt_has_promise(work) && !rt_refusals_find(&products->refusals, &work->matmul))
            RT_TRY(refuse(p, i, RT_ERR_UNSUPPORTED, p->promises.why_not, err));
    }
    return RT_OK;
}

/* *settled: the program asks for nothing that was refused. The same on all ranks. */
static enum rt_status settle(struct planner *p, bool *settled, struct rt_error *err)
{
    const uint32_t known = p->products->refusals.count;
    enum rt_status status = rt_promises_make(p->program, p->comm, &p->promises, err);
    const bool together = p->promises.why_not[0] == '\0';
    if (status == RT_OK)
        status = together ? plan_all(p, err) : refuse_all(p, err);
    *settled = together && p->products->refusals.count == known;
    rt_promises_free(&p->promises);
    return status;
}

enum rt_status rt_products_make(struct rt_products *products, const struct rt_recipe_source *s,
                                const struct rt_graph_spec *spec, struct rt_stage_binding *bindings,
                                struct rt_driver *d, rt_dstream stream, struct rt_program *program,
                                struct rt_error *err)
{
    const bool is_cut = s->comm && s->comm->ranks > 1 && s->blueprint->config.layer;
    struct planner p = {.products = products,
                        .program = program,
                        .comm = is_cut ? s->comm : NULL,
                        .d = d,
                        .stream = stream};
    products->refusals.any_alignment = is_cut;
    for (;;) { /* a recipe asks for no product that was refused, so this ends */
        bool settled;
        RT_TRY(rt_recipe_make(s, spec, bindings, program, err));
        RT_TRY(settle(&p, &settled, err));
        if (settled)
            return RT_OK;
        rt_program_free(program);
    }
}

enum rt_status rt_products_follow(struct rt_products *products, const struct rt_products *like,
                                  struct rt_error *err)
{
    products->like = like;
    return products->may_refuse ? rt_refusals_follow(&products->refusals, &like->refusals, err)
                                : RT_OK;
}

void rt_products_free(struct rt_products *products, struct rt_driver *d)
{
    for (uint32_t i = 0; i < products->count; i++)
        (void)d->matmul_release(d, products->items[i].plan);
    free(products->items);
    rt_refusals_free(&products->refusals);
    *products = (struct rt_products){.items = NULL};
}
