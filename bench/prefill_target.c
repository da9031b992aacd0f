/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/prefill_target.h"

#include "common/check.h"

enum rt_status prefill_source_read(struct prefill_source *source, struct rt_config *config,
                                   struct rt_error *error)
{
    source->model.struct_size = sizeof(source->model);
    if (!source->checkpoint)
        return RT_OK;
    RT_TRY(rt_model_read(source->checkpoint, &source->model, error));
    config->geometry = source->model.geometry;
    config->block = source->model.block;
    config->layer = 1;
    config->input_norm = 1;
    return RT_OK;
}

static enum rt_status open_blocks(const struct prefill_source *source,
                                  const struct rt_config *config, struct prefill_target *out,
                                  struct rt_error *error)
{
    RT_TRY(random_weights_create(config, source->seed, 0, &out->weights, error));
    out->weight_bytes = out->weights.bytes;
    const struct rt_create_params params = {
        .struct_size = sizeof(params), .config = config, .weights = out->weights.table};
    return rt_create(&params, &out->rt, error);
}

static enum rt_status create_decoder(const struct prefill_source *source,
                                     const struct rt_config *config,
                                     const rt_checkpoint *checkpoint, struct prefill_target *out,
                                     struct rt_error *error)
{
    const struct rt_decoder_params params = {.struct_size = sizeof(params),
                                             .config = config,
                                             .model = &source->model,
                                             .checkpoint = checkpoint};
    struct rt_decoder_info info = {.struct_size = sizeof(info)};
    RT_TRY(rt_decoder_create(&params, &out->decoder, error));
    out->rt = rt_decoder_runtime(out->decoder);
    const enum rt_status status = rt_decoder_get_info(out->decoder, &info);
    if (status != RT_OK)
        *error = *rt_decoder_last_error(out->decoder);
    out->weight_bytes = info.weight_bytes;
    return status;
}

static enum rt_status open_model(const struct prefill_source *source,
                                 const struct rt_config *config, struct prefill_target *out,
                                 struct rt_error *error)
{
    rt_checkpoint *checkpoint = NULL;
    if (source->is_random)
        RT_TRY(rt_checkpoint_random(source->checkpoint, source->seed, &checkpoint, error));
    else
        RT_TRY(rt_checkpoint_open(source->checkpoint, &checkpoint, error));
    const enum rt_status status = create_decoder(source, config, checkpoint, out, error);
    rt_checkpoint_close(&checkpoint);
    return status;
}

enum rt_status prefill_target_open(const struct prefill_source *source,
                                   const struct rt_config *config, struct prefill_target *out,
                                   struct rt_error *error)
{
    return source->checkpoint ? open_model(source, config, out, error)
                              : open_blocks(source, config, out, error);
}

void prefill_target_close(struct prefill_target *target)
{
    if (!target->decoder)
        rt_destroy(&target->rt);
    rt_decoder_destroy(&target->decoder);
    random_weights_destroy(&target->weights);
    target->rt = NULL;
}
