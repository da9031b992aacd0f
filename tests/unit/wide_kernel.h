/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_UNIT_WIDE_KERNEL_H
#define RT_TESTS_UNIT_WIDE_KERNEL_H

/* A kernel of compute capability 9.0 for tests of the driver, which fake_cuda.c knows too. */
#include "driver/driver.h"

/* rt_test_wide: *p = last word of its 512 bytes of parameters + blocks of its cluster. */
static const char wide_ptx[] = ".version 8.0\n.target sm_90\n.address_size 64\n"
                               ".visible .entry rt_test_wide(.param .align 64 .b8 p[512])\n"
                               "{\n"
                               "    .reg .b32 %r<4>;\n    .reg .b64 %d<3>;\n"
                               "    griddepcontrol.wait;\n"
                               "    ld.param.u64 %d1, [p];\n"
                               "    ld.param.u32 %r1, [p+508];\n"
                               "    mov.u32 %r2, %cluster_nctaid.x;\n"
                               "    add.u32 %r3, %r1, %r2;\n"
                               "    cvta.to.global.u64 %d2, %d1;\n"
                               "    st.global.u32 [%d2], %r3;\n"
                               "    ret;\n"
                               "}\n";

struct wide_params {
    rt_addr p, tensor;
    struct rt_tensor_map maps[3];
    uint32_t filling[15], last;
};
_Static_assert(sizeof(struct wide_params) == 512, "three maps and a line before and after");

#endif
