/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: models_golden FOLDER
 * The decoder of decoder_truth.h, from a checkpoint, against the recorded logits of every prompt
 * under teacher forcing: what replayrt/models.h says of the family is all that there is to it.
 * Exit 0: every logit is within the bound, and so is every greedy token's.
 */
#include "tests/models/decoder_truth.h"
#include "tests/models/recording.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The recording is of float32, and logits of some units: its own sums are off by 1e-5. */
#define BOUND 1e-4

static bool failed(const char *what, const struct rt_error *err)
{
    printf("%s: %s: %s\n", what, rt_status_string(err->status), err->message);
    return false;
}

/* One prompt and what followed it; the worst difference of its logits. */
static double run_prompt(struct truth *t, const struct recording *r, uint32_t p)
{
    const uint32_t len = (uint32_t)r->lens[p];
    double logits[RECORDING_VOCAB], worst = 0;
    for (uint32_t at = 0; at < len + RECORDING_STEPS - 1; at++) {
        truth_step(t, at < len ? r->prompts[p][at] : r->greedy[p][at - len], at, logits);
        for (uint32_t i = 0; at + 1 >= len && i < RECORDING_VOCAB; i++) {
            const uint32_t step = at + 1 - len;
            const double off = fabs(logits[i] - (double)r->logits.of[p][step][i]);
            if (!(off <= worst))
                worst = off;
        }
    }
    return worst;
}

static bool run(const char *folder, const struct rt_model *model, const rt_checkpoint *checkpoint)
{
    struct truth t;
    struct rt_error err = {.status = RT_OK};
    struct recording *r = calloc(1, sizeof(*r));
    double worst = 0;
    bool good = r && model->vocab_size == RECORDING_VOCAB && recording_read(folder, r);
    if (good && !truth_open(&t, model, checkpoint, &err))
        good = failed(folder, &err);
    else if (good)
        for (uint32_t p = 0; p < RECORDING_PROMPTS; p++)
            worst = fmax(worst, run_prompt(&t, r, p));
    if (r && good)
        truth_close(&t);
    free(r);
    printf("%s: worst difference of %d logits: %.3g, bound %.3g\n", model->family,
           RECORDING_PROMPTS * RECORDING_STEPS * RECORDING_VOCAB, worst, BOUND);
    return good && worst <= BOUND;
}

int main(int argc, char **argv)
{
    struct rt_error err = {.status = RT_OK};
    struct rt_model model = {.struct_size = sizeof(model)};
    rt_checkpoint *checkpoint = NULL;
    if (argc != 2) {
        (void)fprintf(stderr, "usage: models_golden FOLDER\n");
        return 2;
    }
    bool good = rt_model_read(argv[1], &model, &err) == RT_OK &&
                rt_checkpoint_open(argv[1], &checkpoint, &err) == RT_OK;
    good = good ? run(argv[1], &model, checkpoint) : failed(argv[1], &err);
    rt_checkpoint_close(&checkpoint);
    return good ? 0 : 1;
}
