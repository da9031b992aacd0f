/* SPDX-License-Identifier: Apache-2.0 */
/* An index of any bytes is refused with a sentence, or lists tensors once, by files beside it. */
#include "models/shard_index.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rt_error err = {.message = ""};
    struct rt_shard_index index;
    const enum rt_status status = rt_shard_index_read(data, bytes, "fuzz", &index, &err);
    if (status != RT_OK) {
        fuzz_expect(status == RT_ERR_FILE && err.status == status, "the code is about the file");
        fuzz_expect(!index.lines && !index.words && !index.count, "nothing is left");
        fuzz_expect(strncmp(err.message, "fuzz:", 5) == 0, "the message names the file");
        return 0;
    }
    fuzz_expect(index.count > 0, "it lists something");
    for (size_t i = 0; i < index.count; i++) {
        const struct rt_index_line *line = &index.lines[i];
        fuzz_expect(line->file[0] && !strchr(line->file, '/'), "a file lies beside the index");
        if (i == 0)
            continue;
        const int files = strcmp(line[-1].file, line->file);
        fuzz_expect(files < 0 || (files == 0 && strcmp(line[-1].tensor, line->tensor) < 0),
                    "lines ascend by file and tensor");
    }
    rt_shard_index_free(&index);
    return 0;
}
