/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The safetensors reader on any bytes. What it accepts must be what it says: each tensor is found
 * by its name, lies in the file, and every byte of it can be read.
 */
#include "examples/safetensors.h"

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition)
        abort();
}

static void read_tensor(const struct safetensors *file, const struct safetensors_tensor *tensor,
                        const uint8_t *data, size_t size)
{
    struct rt_error error = {0};
    const struct safetensors_tensor *found;
    require(tensor->rank <= SAFETENSORS_MAX_RANK);
    require(tensor->data >= data && tensor->bytes <= size - (size_t)(tensor->data - data));
    const enum rt_status status = safetensors_find(file, tensor->name, &found, &error);
    if (tensor->dtype == SAFETENSORS_OTHER) {
        require(status == RT_ERR_FILE && found == NULL && error.message[0] != '\0');
        return;
    }
    require(status == RT_OK && found == tensor);
    require(safetensors_find_shaped(file, tensor->name, tensor->rank, tensor->shape, &found,
                                    &error) == RT_OK);
    /* At least two bytes an element, so this is at most twice the input. */
    void *values = malloc((size_t)tensor->elements * sizeof(float) + 1);
    require(values != NULL);
    const int ints = tensor->dtype == SAFETENSORS_I32;
    require((ints ? safetensors_read_ints(tensor, 0, tensor->elements, values, &error)
                  : safetensors_read_floats(tensor, 0, tensor->elements, values, &error)) == RT_OK);
    require((ints ? safetensors_read_floats(tensor, 0, 1, values, &error)
                  : safetensors_read_ints(tensor, 0, 1, values, &error)) == RT_ERR_FILE);
    free(values);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rt_error error = {0};
    struct safetensors *file;
    const enum rt_status status = safetensors_parse(data, size, "input", &file, &error);
    if (status != RT_OK) {
        require(file == NULL && error.status == status && error.message[0] != '\0');
        require(memchr(error.message, '\0', sizeof error.message) != NULL);
        return 0;
    }
    uint64_t bytes = 0;
    for (size_t i = 0; i < safetensors_count(file); i++) {
        const struct safetensors_tensor *tensor = safetensors_at(file, i);
        require(i == 0 || strcmp(safetensors_at(file, i - 1)->name, tensor->name) < 0);
        read_tensor(file, tensor, data, size);
        bytes += tensor->bytes;
    }
    require(bytes < size);
    safetensors_close(&file);
    require(file == NULL);
    return 0;
}
