/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sequence of any bytes is refused with a sentence, or is what it says: of a known layout, its
 * pages are its bytes, and it is written again as the same bytes.
 */
#include "runtime/seq_image.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct rt_error err = {.message = ""};
    struct rt_seq_header h;
    struct rt_kv_format format;
    memset(&h, FUZZ_FILL, sizeof(h));
    const enum rt_status status = rt_seq_image_read(data, bytes, &h, &format, &err);
    if (status != RT_OK) {
        fuzz_expect(status == RT_ERR_INVALID && err.status == status, "the code is about bytes");
        fuzz_expect(strstr(err.message, "sequence") != NULL, "the message says what of");
        fuzz_expect_untouched(&h, sizeof(h));
        return 0;
    }
    const uint64_t pages = (uint64_t)h.layers * rt_seq_image_pages(&h);
    fuzz_expect(h.header_bytes + pages * h.page_bytes == bytes, "its pages are its bytes");
    uint8_t *again = malloc(bytes);
    if (!again)
        abort();
    memcpy(again, data, bytes);
    memset(again, 0, sizeof(h));
    fuzz_expect(rt_seq_image_begin(&h, &format) == bytes, "it has that many bytes");
    rt_seq_image_end(&h, again, bytes);
    fuzz_expect(memcmp(again, data, bytes) == 0, "it is written as it was");
    free(again);
    return 0;
}
