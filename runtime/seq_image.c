/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/seq_image.h"

#include "common/math.h"

#include <inttypes.h>
#include <string.h>

#define ALIGN 16u

static uint32_t header_bytes(uint32_t layers)
{
    return (uint32_t)rt_align_up_u64(sizeof(struct rt_seq_header) + layers * sizeof(float), ALIGN);
}

uint32_t rt_seq_image_pages(const struct rt_seq_header *h)
{
    return rt_ceil_div_u32(h->length, h->page_size);
}

static uint64_t image_bytes(const struct rt_seq_header *h)
{
    return h->header_bytes + (uint64_t)h->layers * rt_seq_image_pages(h) * h->page_bytes;
}

/* Every word counts, and where it stands. */
static uint64_t mix(uint64_t sum, const unsigned char *bytes, uint64_t count)
{
    for (uint64_t i = 0; i + sizeof(uint64_t) <= count; i += sizeof(uint64_t)) {
        uint64_t word;
        memcpy(&word, bytes + i, sizeof(word));
        sum = (sum ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        sum ^= sum >> 29;
    }
    return sum;
}

static uint64_t checksum(const struct rt_seq_header *h, const unsigned char *image, uint64_t bytes)
{
    struct rt_seq_header bare = *h;
    bare.checksum = 0;
    const uint64_t sum = mix(1, (const unsigned char *)&bare, sizeof(bare));
    return mix(sum, image + sizeof(bare), bytes - sizeof(bare));
}

uint64_t rt_seq_image_begin(struct rt_seq_header *h, const struct rt_kv_format *format)
{
    memcpy(h->magic, RT_SEQ_IMAGE_MAGIC, sizeof(h->magic));
    h->byte_order = RT_SEQ_IMAGE_BYTE_ORDER;
    h->header_bytes = header_bytes(h->layers);
    memset(h->layout, 0, sizeof(h->layout));
    memcpy(h->layout, format->name, strlen(format->name));
    h->page_bytes = rt_kv_page_bytes(format, h->page_size);
    h->reserved = 0;
    return image_bytes(h);
}

void rt_seq_image_end(struct rt_seq_header *h, void *image, uint64_t bytes)
{
    h->checksum = checksum(h, image, bytes);
    memcpy(image, h, sizeof(*h));
}

/* Of a name, with zeros behind it to its end. */
static bool find_format(const struct rt_seq_header *h, struct rt_kv_format *out)
{
    for (uint32_t layout = RT_KV_BF16; layout <= RT_KV_V4 + 1u; layout++) {
        const bool is_f32 = layout == RT_KV_V4 + 1u;
        const char *name = is_f32 ? "f32" : rt_kv_layout_name((enum rt_kv_layout)layout);
        if (strncmp(h->layout, name, sizeof(h->layout)) == 0)
            return rt_kv_format_make(is_f32 ? RT_KV_BF16 : (enum rt_kv_layout)layout,
                                     is_f32 ? RT_PRECISION_F32 : RT_PRECISION_BF16, h->d_qk, h->d_v,
                                     out);
    }
    return false;
}

static enum rt_status check_numbers(const struct rt_seq_header *h, struct rt_error *err)
{
    RT_REQUIRE(memcmp(h->magic, RT_SEQ_IMAGE_MAGIC, sizeof(h->magic)) == 0, err, RT_ERR_INVALID,
               "these bytes are no sequence: they do not begin with \"rt kv 1\"");
    RT_REQUIRE(h->byte_order == RT_SEQ_IMAGE_BYTE_ORDER, err, RT_ERR_INVALID,
               "the sequence's byte order is 0x%08x, not 0x%08x", h->byte_order,
               RT_SEQ_IMAGE_BYTE_ORDER);
    RT_REQUIRE(h->d_qk >= h->d_v && h->d_v >= 1 && h->d_qk <= UINT16_MAX, err, RT_ERR_INVALID,
               "the sequence's d_qk/d_v are %u/%u", h->d_qk, h->d_v);
    RT_REQUIRE(h->layers >= 1 && h->layers <= RT_MAX_LAYERS, err, RT_ERR_INVALID,
               "the sequence has %u layers, not 1 to %d", h->layers, RT_MAX_LAYERS);
    RT_REQUIRE(h->page_size >= 1 && h->page_size <= RT_MAX_LENGTH, err, RT_ERR_INVALID,
               "the sequence's pages have %u tokens, not 1 to %d", h->page_size, RT_MAX_LENGTH);
    RT_REQUIRE(h->length <= RT_MAX_LENGTH, err, RT_ERR_INVALID,
               "the sequence has %u tokens, more than %d", h->length, RT_MAX_LENGTH);
    RT_REQUIRE(h->rope_order == RT_ROPE_INTERLEAVED || h->rope_order == RT_ROPE_HALF, err,
               RT_ERR_INVALID, "the sequence's rope order is %u, not %d or %d", h->rope_order,
               RT_ROPE_INTERLEAVED, RT_ROPE_HALF);
    RT_REQUIRE(h->header_bytes == header_bytes(h->layers) && h->reserved == 0, err, RT_ERR_INVALID,
               "the sequence's pages begin at byte %u, reserved is %" PRIu64 ": must be %u and 0",
               h->header_bytes, h->reserved, header_bytes(h->layers));
    return RT_OK;
}

enum rt_status rt_seq_image_read(const void *image, uint64_t bytes, struct rt_seq_header *out,
                                 struct rt_kv_format *format, struct rt_error *err)
{
    struct rt_seq_header h;
    RT_REQUIRE(bytes >= sizeof(h), err, RT_ERR_INVALID,
               "%" PRIu64 " bytes are no sequence, whose header has %zu", bytes, sizeof(h));
    memcpy(&h, image, sizeof(h));
    RT_TRY(check_numbers(&h, err));
    struct rt_kv_format found;
    RT_REQUIRE(find_format(&h, &found), err, RT_ERR_INVALID,
               "the sequence's layout \"%.*s\" is none that d_qk/d_v %u/%u has",
               (int)sizeof(h.layout), h.layout, h.d_qk, h.d_v);
    RT_REQUIRE(h.page_bytes == rt_kv_page_bytes(&found, h.page_size), err, RT_ERR_INVALID,
               "the sequence's pages have %" PRIu64 " bytes, %u tokens of %s have %" PRIu64,
               h.page_bytes, h.page_size, found.name, rt_kv_page_bytes(&found, h.page_size));
    RT_REQUIRE(bytes == image_bytes(&h), err, RT_ERR_INVALID,
               "%" PRIu64 " bytes, of a sequence that has %" PRIu64, bytes, image_bytes(&h));
    const uint64_t sum = checksum(&h, image, bytes);
    RT_REQUIRE(sum == h.checksum, err, RT_ERR_INVALID,
               "the sequence's checksum is 0x%016" PRIx64 ", its bytes have 0x%016" PRIx64
               ": they were changed",
               h.checksum, sum);
    *out = h;
    *format = found;
    return RT_OK;
}

void rt_seq_image_blank(const struct rt_kv_format *format, uint32_t page_size, uint32_t rows,
                        unsigned char *page)
{
    const uint64_t rows_end = (uint64_t)page_size * format->row_bytes;
    const uint64_t apart = format->token_bytes - format->row_bytes;
    const uint64_t used = (uint64_t)rows * format->row_bytes;
    memset(page + used, 0, rows_end - used);
    memset(page + rows_end + rows * apart, 0,
           rt_kv_page_bytes(format, page_size) - rows_end - rows * apart);
}
