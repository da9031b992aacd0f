/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_ENTRIES_H
#define RT_TESTS_EMU_ENTRIES_H

/*
 * Every device entry point under a name of the emulator's own. On a GPU kernels and the library's
 * functions never meet; here both are linked into one program, and some have the same name.
 */
#include "kernels/abi/all_reduce_norm.h"
#include "kernels/abi/append.h"
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/chunk.h"
#include "kernels/abi/context.h"
#include "kernels/abi/context_merge.h"
#include "kernels/abi/convert.h"
#include "kernels/abi/embed.h"
#include "kernels/abi/experts_many.h"
#include "kernels/abi/experts_sm90.h"
#include "kernels/abi/gather.h"
#include "kernels/abi/input_norm.h"
#include "kernels/abi/merge.h"
#include "kernels/abi/mla_block.h"
#include "kernels/abi/moe_block.h"
#include "kernels/abi/preattend_absorb_sm90.h"
#include "kernels/abi/preattend_sums.h"
#include "kernels/abi/project_many.h"
#include "kernels/abi/project_sm90.h"
#include "kernels/abi/quant_sm90.h"
#include "kernels/abi/reduce.h"
#include "kernels/abi/sample.h"
#include "kernels/abi/sparse_sm90.h"
#include "kernels/abi/step.h"
#include "kernels/abi/take.h"

#ifdef __cplusplus
extern "C" {
#endif

#define RT_KERNEL(entry_, image_, params_, addresses_, smem_, waits_, ref_)                        \
    void entry_(params_ p) __asm__("emu_" #entry_);
#include "kernels/kernels.inc"

#ifdef __cplusplus
}
#endif

#endif
