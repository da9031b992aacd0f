/* SPDX-License-Identifier: Apache-2.0 */
#include "models/family.h"

#include <math.h>

/*
 * MiniCPM3: dense, with three scales that must be given, for implementations assume different ones
 * where they are not.
 */
enum rt_status rt_family_minicpm3(const struct rt_fields *f, struct rt_model *m,
                                  struct rt_error *err)
{
    double depth = 0.0, base = 0.0;
    RT_MODELS_TRY(rt_family_common(f, true, m, err));
    RT_MODELS_TRY(rt_field_number(f, "scale_emb", NULL, &m->embedding_scale, err));
    RT_MODELS_TRY(rt_field_number(f, "scale_depth", NULL, &depth, err));
    RT_MODELS_TRY(rt_field_number(f, "dim_model_base", NULL, &base, err));
    m->residual_scale = depth / sqrt((double)m->layers);
    m->logits_scale = base / (double)m->hidden_size;
    return rt_family_dense(f, m, err);
}
