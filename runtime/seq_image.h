/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_RUNTIME_SEQ_IMAGE_H
#define RT_RUNTIME_SEQ_IMAGE_H

/*
 * A sequence's cache as bytes (docs/kv_formats.md draws it): what rt_seq_export writes and
 * rt_seq_import reads. Nothing here knows a runtime, so any bytes may be tried.
 *
 *   header | scales, f32 [layers], zeros up to 16 bytes | [layers, pages] of page_bytes
 *
 * Numbers are little-endian, as on every host that the library runs on. Of the last page what is
 * behind the sequence's tokens is 0.
 */
#include "common/kv_format.h"

#include "common/check.h"

#define RT_SEQ_IMAGE_MAGIC "rt kv 1\n"
#define RT_SEQ_IMAGE_BYTE_ORDER 0x01020304u
#define RT_SEQ_IMAGE_LAYOUT_BYTES 16u

struct rt_seq_header {
    char magic[8];                          /* RT_SEQ_IMAGE_MAGIC, without its end */
    uint32_t byte_order;                    /* RT_SEQ_IMAGE_BYTE_ORDER */
    uint32_t header_bytes;                  /* of this and the scales: where pages begin */
    char layout[RT_SEQ_IMAGE_LAYOUT_BYTES]; /* "v32", or "f32"; zeros behind it */
    uint32_t d_qk, d_v, layers, page_size;
    uint32_t rope_order; /* enum rt_rope_order */
    uint32_t length;     /* tokens */
    uint64_t page_bytes; /* rows and scales of a page */
    uint64_t checksum;   /* of all bytes, this number being 0 */
    uint64_t reserved;   /* 0 */
};
_Static_assert(sizeof(struct rt_seq_header) == 80, "a sequence's header is 80 bytes");

/* The layout, geometry and length are those of *header; sets the rest of it but the checksum.
 * Returns the bytes of all. */
uint64_t rt_seq_image_begin(struct rt_seq_header *header, const struct rt_kv_format *format);

/* Writes the header in front of scales and pages that are there, and its checksum. */
void rt_seq_image_end(struct rt_seq_header *header, void *image, uint64_t bytes);

/* RT_ERR_INVALID: the bytes are no image, or were changed, with what is wrong and both values. */
enum rt_status rt_seq_image_read(const void *image, uint64_t bytes, struct rt_seq_header *out,
                                 struct rt_kv_format *format, struct rt_error *err);

/* Of those; pages of the image [layers, rt_seq_image_pages]. */
uint32_t rt_seq_image_pages(const struct rt_seq_header *header);

/* Zeros what is behind `rows` rows of a page, and behind their scales. */
void rt_seq_image_blank(const struct rt_kv_format *format, uint32_t page_size, uint32_t rows,
                        unsigned char *page);

#endif
