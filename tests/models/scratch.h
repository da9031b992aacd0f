/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_MODELS_SCRATCH_H
#define RT_TESTS_MODELS_SCRATCH_H

/* A folder of one test, with checkpoints that it makes. */
#include "models/checkpoint_table.h"
#include "tests/unit/expect.h"

/* Makes it; every file that was written into it goes with scratch_remove. */
void scratch_make(void);
void scratch_remove(void);
/* "FOLDER/NAME", valid until the fourth call after it; the folder for "". */
const char *scratch_path(const char *name);
void scratch_write(const char *name, const void *bytes, size_t count);
void scratch_text(const char *name, const char *text);

/* A tensor to be written: `values` are what its dtype says, packed. */
struct scratch_tensor {
    const char *name, *dtype, *shape; /* "[2, 3]" */
    const void *values;
    size_t bytes;
};
void scratch_safetensors(const char *name, const struct scratch_tensor *tensors, size_t count);

#endif
