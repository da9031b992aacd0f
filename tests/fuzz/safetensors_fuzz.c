/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The header of a safetensors file of any bytes is refused with a sentence, or is what it says:
 * each tensor is found by its name and lies in the file, and all of them together are its data.
 */
#include "models/safetensors.h"
#include "tests/fuzz/fuzz.h"

static void read_tensor(const struct rt_safetensors *file, size_t i, const uint8_t *data,
                        size_t size)
{
    const struct rt_stored_entry *t = &file->entries[i];
    uint64_t elements = 1;
    fuzz_expect(t->rank <= RT_TENSOR_MAX_RANK, "the rank has room");
    for (uint32_t d = 0; d < t->rank; d++)
        elements *= t->shape[d];
    fuzz_expect(elements == t->elements, "the shape has that many elements");
    fuzz_expect(t->data >= data && t->bytes <= size - (size_t)(t->data - data),
                "it is in the file");
    fuzz_expect(rt_stored_find(file->entries, file->count, t->name) == t, "it is found");
    fuzz_expect(t->dtype && strcmp(t->file, "fuzz") == 0, "it has a dtype and a file");
    const uint64_t each = t->stored == RT_STORED_BF16 || t->stored == RT_STORED_F16 ? 2 : 4;
    fuzz_expect(t->stored == RT_STORED_OTHER || t->bytes == t->elements * each,
                "its size is right");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rt_error err = {.message = ""};
    struct rt_safetensors file;
    const enum rt_status status = rt_safetensors_read(data, bytes, "fuzz", &file, &err);
    if (status != RT_OK) {
        fuzz_expect(status == RT_ERR_FILE && err.status == status, "the code is about the file");
        fuzz_expect(!file.entries && !file.words && !file.count, "nothing is left");
        fuzz_expect(strncmp(err.message, "fuzz:", 5) == 0, "the message names the file");
        return 0;
    }
    uint64_t covered = 0;
    for (size_t i = 0; i < file.count; i++) {
        fuzz_expect(i == 0 || strcmp(file.entries[i - 1].name, file.entries[i].name) < 0,
                    "names ascend");
        read_tensor(&file, i, data, bytes);
        covered += file.entries[i].bytes;
    }
    fuzz_expect(covered < bytes, "all of them are less than the file");
    rt_safetensors_free(&file);
    return 0;
}
