/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A decoder that is one rank of several has all tokens, and of what lies between blocks
 *
 *   embedding, norms, routers   all, from the same bits to the same bits
 *   MLPs, experts               a part of their width, of each: hidden is summed behind them
 *   LM head                     a part of the vocabulary: logits are gathered behind it
 *
 * so that all ranks choose the next token of the same logits.
 */
#include "models/decoder_impl.h"
#include "models/places.h"

static uint32_t slice_of(const struct rt_model *model, uint32_t ranks)
{
    return (uint32_t)rt_share_size(model->vocab_size, RT_SHARE_UNIT, ranks);
}

uint32_t rt_decoder_slice(const struct rt_decoder *d)
{
    return slice_of(&d->model, d->ranks);
}

uint32_t rt_decoder_own_ids(const struct rt_decoder *d, uint32_t *first)
{
    const uint32_t slice = rt_decoder_slice(d), vocab = d->model.vocab_size;
    const uint64_t begin = (uint64_t)d->rank * slice;
    *first = begin < vocab ? (uint32_t)begin : vocab;
    return vocab - *first < slice ? vocab - *first : slice;
}

uint64_t rt_decoder_line(const struct rt_decoder *d)
{
    return (uint64_t)d->ranks * rt_decoder_slice(d);
}

uint32_t rt_decoder_width(const struct rt_decoder *d, bool mixture)
{
    const struct rt_model *const m = &d->model;
    const uint32_t whole = mixture ? m->moe.intermediate_size : m->intermediate_size;
    return (uint32_t)rt_share_size(whole, RT_SHARE_UNIT, d->ranks);
}

uint32_t rt_model_exchanges(const struct rt_model *model, uint32_t ranks,
                            struct rt_stage_exchange out[RT_MODEL_EXCHANGES])
{
    if (ranks <= 1)
        return 0;
    out[0] = (struct rt_stage_exchange){.point = RT_STAGE_AFTER_ATTENTION}; /* hidden */
    out[1] = (struct rt_stage_exchange){.point = RT_STAGE_STEP_END,
                                        .kind = RT_EXCHANGE_GATHER,
                                        .vectors = RT_EXCHANGE_RESULTS,
                                        .dtype = RT_DTYPE_F32,
                                        .width = slice_of(model, ranks),
                                        .resumes = 1};
    return RT_MODEL_EXCHANGES;
}

uint32_t rt_decoder_exchanges(const struct rt_decoder *d,
                              struct rt_stage_exchange out[RT_MODEL_EXCHANGES])
{
    const uint32_t count = rt_model_exchanges(&d->model, d->ranks, out);
    if (count) {
        out[1].from = d->scratch.part;
        out[1].to = d->scratch.gathered;
    }
    return count;
}
