/* SPDX-License-Identifier: Apache-2.0 */
/*
 * usage: models_golden FOLDER
 * The decoder of decoder_truth.h, from a checkpoint, against the recorded logits of every prompt
 * under teacher forcing: what replayrt/models.h says of the family is all that there is to it.
 * Exit 0: every logit is within the bound, and so is every greedy token's.
 */
#include "tests/models/decoder_truth.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* The recording is of float32, and logits of some units: its own sums are off by 1e-5. */
#define BOUND 1e-4

enum { PROMPTS = 6, LONGEST = 130, STEPS = 16, MAX_VOCAB = 256 };

struct recording {
    int32_t lens[PROMPTS], prompts[PROMPTS][LONGEST], greedy[PROMPTS][STEPS];
    float logits[PROMPTS][STEPS][MAX_VOCAB];
};

static bool failed(const char *what, const struct rt_error *err)
{
    printf("%s: %s: %s\n", what, rt_status_string(err->status), err->message);
    return false;
}

static bool read_recording(const char *folder, uint32_t vocab, struct recording *r)
{
    char path[1024];
    rt_checkpoint *file = NULL;
    struct rt_error err = {.status = RT_OK};
    struct rt_stored_tensor t = {.struct_size = sizeof(t)};
    const uint64_t shape[3] = {PROMPTS, STEPS, MAX_VOCAB}, prompts[2] = {PROMPTS, LONGEST};
    (void)snprintf(path, sizeof(path), "%s/golden.safetensors", folder);
    if (rt_checkpoint_open(path, &file, &err) != RT_OK)
        return failed(path, &err);
    const bool good =
        vocab == MAX_VOCAB && rt_checkpoint_find(file, "logits", 3, shape, &t, &err) == RT_OK &&
        rt_checkpoint_find(file, "prompts", 2, prompts, &t, &err) == RT_OK &&
        rt_checkpoint_copy(file, "prompt_lens", 0, 1, RT_DTYPE_I32, r->lens, &err) == RT_OK &&
        rt_checkpoint_copy(file, "prompts", 0, PROMPTS, RT_DTYPE_I32, r->prompts, &err) == RT_OK &&
        rt_checkpoint_copy(file, "greedy_tokens", 0, PROMPTS, RT_DTYPE_I32, r->greedy, &err) ==
            RT_OK &&
        rt_checkpoint_copy(file, "logits", 0, (uint64_t)PROMPTS * STEPS, RT_DTYPE_F32, r->logits,
                           &err) == RT_OK;
    rt_checkpoint_close(&file);
    return good || failed(path, &err);
}

/* One prompt and what followed it; the worst difference of its logits. */
static double run_prompt(struct truth *t, const struct recording *r, uint32_t p)
{
    const uint32_t len = (uint32_t)r->lens[p];
    double logits[MAX_VOCAB], worst = 0;
    for (uint32_t at = 0; at < len + STEPS - 1; at++) {
        truth_step(t, at < len ? r->prompts[p][at] : r->greedy[p][at - len], at, logits);
        for (uint32_t i = 0; at + 1 >= len && i < MAX_VOCAB; i++) {
            const uint32_t step = at + 1 - len;
            const double off = fabs(logits[i] - (double)r->logits[p][step][i]);
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
    bool good = r && read_recording(folder, model->vocab_size, r);
    if (good && !truth_open(&t, model, checkpoint, &err))
        good = failed(folder, &err);
    else if (good)
        for (uint32_t p = 0; p < PROMPTS; p++)
            worst = fmax(worst, run_prompt(&t, r, p));
    if (r && good)
        truth_close(&t);
    free(r);
    printf("%s: worst difference of %d logits: %.3g, bound %.3g\n", model->family,
           PROMPTS * STEPS * MAX_VOCAB, worst, BOUND);
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
