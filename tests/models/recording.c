/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/models/recording.h"

#include <stdio.h>

bool recording_read(const char *folder, struct recording *r)
{
    char path[1024];
    rt_checkpoint *file = NULL;
    struct rt_error err = {.status = RT_OK};
    struct rt_stored_tensor t = {.struct_size = sizeof(t)};
    const uint64_t shape[3] = {RECORDING_PROMPTS, RECORDING_STEPS, RECORDING_VOCAB},
                   prompts[2] = {RECORDING_PROMPTS, RECORDING_LONGEST};
    (void)snprintf(path, sizeof(path), "%s/golden.safetensors", folder);
    const bool good =
        rt_checkpoint_open(path, &file, &err) == RT_OK &&
        rt_checkpoint_find(file, "logits", 3, shape, &t, &err) == RT_OK &&
        rt_checkpoint_find(file, "prompts", 2, prompts, &t, &err) == RT_OK &&
        rt_checkpoint_copy(file, "prompt_lens", 0, 1, RT_DTYPE_I32, r->lens, &err) == RT_OK &&
        rt_checkpoint_copy(file, "prompts", 0, RECORDING_PROMPTS, RT_DTYPE_I32, r->prompts, &err) ==
            RT_OK &&
        rt_checkpoint_copy(file, "greedy_tokens", 0, RECORDING_PROMPTS, RT_DTYPE_I32, r->greedy,
                           &err) == RT_OK &&
        rt_checkpoint_copy(file, "logits", 0, (uint64_t)RECORDING_PROMPTS * RECORDING_STEPS,
                           RT_DTYPE_F32, r->logits.of, &err) == RT_OK;
    rt_checkpoint_close(&file);
    if (!good)
        printf("%s: %s: %s\n", path, rt_status_string(err.status), err.message);
    return good;
}
