/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_DEVICE_H
#define RT_TESTS_EMU_DEVICE_H

#include "kernels/abi/attend.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct emu_attend_kernel {
    const char *entry;
    uint32_t d_qk, d_v, tile_rows;
    bool sm90, folds;
    uint32_t sharers; /* blocks of a cluster, tiles with the same keys */
};

/* Launches attend on the emulated device, through the library. Ends the program where it can't. */
void emu_attend(const struct emu_attend_kernel *kernel, const struct rt_attend_params *p);

#ifdef __cplusplus
}
#endif

#endif
