/* SPDX-License-Identifier: Apache-2.0 */
/* A line of any bytes is refused with a sentence, or gives a shape whose every value is in range.
 */
#include "bench/roofline.h"
#include "bench/shapes.h"
#include "tests/fuzz/fuzz.h"

#include <math.h>

static void expect_shape(const struct shape *s)
{
    fuzz_expect(s->heads >= 1 && s->heads <= RT_MAX_HEADS, "heads in range");
    fuzz_expect(s->query_len >= 1 && s->query_len <= RT_MAX_QUERY_LEN, "query length in range");
    fuzz_expect(s->page_size >= 16 && s->page_size <= 128, "page size in range");
    fuzz_expect(s->batch >= 1 && s->batch <= RT_MAX_BATCH, "batch in range");
    for (uint32_t i = 0; i < s->batch; i++)
        fuzz_expect(s->lengths[i] >= (int32_t)s->query_len && s->lengths[i] <= RT_MAX_LENGTH,
                    "lengths in range");
    fuzz_expect(s->label[0] && memchr(s->label, 0, sizeof(s->label)) != NULL, "a label");
    fuzz_expect(s->peer_layer_us >= 0 && s->peer_metadata_us >= 0, "times");
    struct roofline r = roofline_of(s, 0, RT_KV_BF16);
    fuzz_expect(isfinite(r.floor_us) && r.floor_us > 0, "a floor");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct shape shape;
    char *text = malloc(bytes + 1);
    fuzz_expect(text != NULL, "host memory");
    memcpy(text, data, bytes);
    text[bytes] = '\0';
    struct rt_error err = {.message = ""};
    memset(&shape, FUZZ_FILL, sizeof(shape));
    enum rt_status status = shape_read("fuzz", 1, text, &shape, &err);
    free(text);
    if (status == RT_OK) {
        expect_shape(&shape);
    } else {
        fuzz_expect_refusal(status, &err);
        fuzz_expect_untouched(&shape, sizeof(shape));
    }
    return 0;
}
