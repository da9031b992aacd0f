/* SPDX-License-Identifier: Apache-2.0 */
/* experts_down of many tokens in two launches: a product of every pair, and a token's sum. */
#include "kernels/ops/op_experts.h"

#include "common/math.h"

#include <inttypes.h>
#include <stdio.h>

/* Four numbers are written at once, at a multiple of theirs. */
#define VECTOR_ELEMENTS 8u

/* ---- resolve --------------------------------------------------------------------------------- */

/* They are for what tensor cores take in one launch, which needs no products: see there. */
static enum rt_status check_request(const struct rt_op_request *request, struct rt_variant *down,
                                    struct rt_error *err)
{
    const struct rt_device_caps *caps = request->caps;
    const uint32_t hidden = request->experts_down->hidden;
    RT_TRY(rt_op_resolve(RT_OP_EXPERTS_DOWN, request, down, err));
    RT_REQUIRE(rt_experts_many_is(down), err, RT_ERR_UNSUPPORTED,
               "products of pairs are for many tokens, which %s does not serve", down->entry);
    RT_REQUIRE(hidden % VECTOR_ELEMENTS == 0, err, RT_ERR_UNSUPPORTED,
               "products of pairs have a multiple of %u numbers, not %" PRIu32, VECTOR_ELEMENTS,
               hidden);
    RT_REQUIRE(caps->kind == RT_DEVICE_KIND_HOST ||
                   caps->smem_optin_bytes >= RT_EXPERTS_MANY_TILE_SMEM_BYTES,
               err, RT_ERR_UNSUPPORTED,
               "products of pairs need %u bytes of shared memory, %s has %" PRIu32,
               RT_EXPERTS_MANY_TILE_SMEM_BYTES, caps->name, caps->smem_optin_bytes);
    return RT_OK;
}

/* While nothing is known of the experts, nobody asks for them. */
enum rt_status rt_experts_pairs_resolve(const struct rt_op_request *request, struct rt_variant *out,
                                        struct rt_error *err)
{
    struct rt_variant down;
    RT_TRY(rt_plain_resolve(request, out, err));
    if (!request->experts_down) {
        (void)snprintf(out->reason, sizeof(out->reason),
                       "generic: nothing is known of the experts");
        return RT_OK;
    }
    RT_TRY(check_request(request, &down, err));
    (void)snprintf(out->reason, sizeof(out->reason),
                   "tensor cores, tiles of %u pairs, as there is scratch; without %s",
                   RT_EXPERTS_MANY_TILE_PAIRS, down.entry);
    return RT_OK;
}

/* ---- build ----------------------------------------------------------------------------------- */

static enum rt_status check(const struct rt_kernels *k, const struct rt_variant *v,
                            const struct rt_experts_down_pairs_params *p, struct rt_error *err)
{
    RT_TRY(rt_experts_check_down(&p->down, err));
    RT_TRY(rt_check_f32(k, v, p->down.is_f32, err));
    RT_TRY(rt_experts_many_check_down(&p->down, err));
    return rt_check_pointer("products", p->products, err);
}

enum rt_status rt_experts_down_pairs_build(const struct rt_kernels *k,
                                           const struct rt_variant *variant, const void *params,
                                           struct rt_launch *out, struct rt_error *err)
{
    const struct rt_experts_down_pairs_params *p = params;
    uint32_t blocks = 0;
    RT_TRY(check(k, variant, p, err));
    RT_TRY(rt_experts_many_blocks(&p->down.work, p->down.work.shared > 0, p->down.hidden,
                                  RT_EXPERTS_MANY_DOWN_ROWS, &blocks, err));
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), blocks, 1, RT_EXPERTS_MANY_THREADS, out,
                          err);
}

enum rt_status rt_experts_down_sum_build(const struct rt_kernels *k,
                                         const struct rt_variant *variant, const void *params,
                                         struct rt_launch *out, struct rt_error *err)
{
    const struct rt_experts_down_pairs_params *p = params;
    RT_TRY(check(k, variant, p, err));
    const uint64_t blocks =
        (uint64_t)p->down.work.tokens * rt_ceil_div_u32(p->down.hidden, RT_EXPERTS_SUM_NUMBERS);
    RT_REQUIRE(blocks <= INT32_MAX, err, RT_ERR_INVALID,
               "%" PRIu32 " tokens of %" PRIu32 " numbers are too many for one launch",
               p->down.work.tokens, p->down.hidden);
    return rt_launch_grid(k, variant->entry, p, sizeof(*p), (uint32_t)blocks, 1,
                          RT_EXPERTS_SUM_THREADS, out, err);
}
