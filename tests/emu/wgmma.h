/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_WGMMA_H
#define RT_TESTS_EMU_WGMMA_H

#include "tests/emu/core.h"

/* A product of the warp that runs; a in registers where a_registers is not null. */
struct emu_product {
    float *d;
    int n;
    uint64_t a, b;
    const uint32_t *a_registers;
    bool a_across, b_across, keep, f16;
};
void emu_product_fence(void);
void emu_product_issue(const struct emu_product *product);
void emu_product_commit(void);
void emu_product_wait(int pending);

#endif
