/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_IMAGES_H
#define RT_KERNELS_IMAGES_H

/*
 * The images, one per .cu file, and the device code of those that this build has. The build writes
 * images.c from images.c.in and the list of fat binaries it made; without a CUDA compiler that list
 * is empty and everything links all the same.
 */
#include <stddef.h>
#include <stdint.h>

enum rt_image_id {
#define RT_IMAGE(name, cc_min, cc_max) RT_IMAGE_##name,
#include "kernels/images.inc"
    RT_IMAGE_COUNT
};

/* In this order in the table that the build writes. */
struct rt_built_image {
    const char *name;
    const void *fatbin;
    const void *end; /* behind its last byte */
};

/* Ends with a null name. */
extern const struct rt_built_image rt_built_images[];

#endif
