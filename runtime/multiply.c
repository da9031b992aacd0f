/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/multiply.h"

static bool is_large(const struct rt_device_caps *caps, const struct rt_multiplication *product)
{
    const uint64_t most_rows = (uint64_t)RT_OWN_LARGE_MOST_SM_ROWS * caps->sm_count;
    return product->weight_bytes > RT_OWN_MOST_BYTES &&
           (!product->streams || product->vectors > RT_OWN_LARGE_MOST_VECTORS ||
            product->rows > most_rows);
}

static bool wins_with_many(const struct rt_device_caps *caps,
                           const struct rt_multiplication *product)
{
    const bool is_one_tile = product->rows <= (uint64_t)RT_OWN_MANY_MOST_SM_ROWS * caps->sm_count;
    return product->streams && product->vectors <= RT_OWN_MANY_MOST_VECTORS &&
           product->heads <= RT_OWN_MANY_MOST_HEADS &&
           product->vectors * product->vector_bytes <=
               (is_one_tile ? 2 : 1) * RT_OWN_MANY_MOST_VECTOR_BYTES;
}

bool rt_multiply_by_library(enum rt_projections projections, const struct rt_device_caps *caps,
                            const struct rt_multiplication *product, const char **reason)
{
    struct answer {
        bool library;
        const char *reason;
    } a;
    if (projections == RT_PROJECTIONS_CUBLASLT && caps->kind == RT_DEVICE_KIND_HOST)
        a = (struct answer){true, "asked for: plain C stands in for the library"};
    else if (projections != RT_PROJECTIONS_AUTO)
        a = (struct answer){projections == RT_PROJECTIONS_CUBLASLT, "asked for"};
    else if (caps->kind == RT_DEVICE_KIND_HOST)
        a = (struct answer){false, "plain C on the host device"};
    else if (!caps->has_blas)
        a = (struct answer){false, "there is no cuBLASLt"};
    else if (product->only_own)
        a = (struct answer){false, product->only_own};
    else if (caps->cc != 90)
        a = (struct answer){true, "no kernel of our own is tuned for this device"};
    else if (product->vectors > RT_OWN_MOST_VECTORS && !wins_with_many(caps, product))
        a = (struct answer){true, "many vectors"};
    else if (is_large(caps, product))
        a = (struct answer){true, "a large weight"};
    else if (product->vectors > RT_OWN_MOST_VECTORS)
        a = (struct answer){false, "short vectors, not too many: weights are asked for early"};
    else
        a = (struct answer){false, "few vectors: weights are asked for early"};
    *reason = a.reason;
    return a.library;
}
