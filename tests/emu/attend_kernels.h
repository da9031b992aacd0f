/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_ATTEND_KERNELS_H
#define RT_TESTS_EMU_ATTEND_KERNELS_H

/* The dense kernels over bf16, of all geometries and tiles. */
#include "kernels/abi/attend_generic.h"
#include "kernels/abi/attend_sm90.h"
#include "kernels/abi/invariant.h"
#include "tests/emu/device.h"

#define RT_KERNEL(entry, image, params, addresses, smem, waits, ref)
#define RT_ATTEND_GENERIC(d_qk, d_v, tile_rows)                                                    \
    {"rt_mla_attend_" #d_qk "x" #d_v "_r" #tile_rows, d_qk, d_v, tile_rows, false, false, 1},
#define RT_ATTEND_SM90(d_qk, d_v, kind, tile_rows)                                                 \
    {"rt_mla_sm90_" #d_qk "x" #d_v "_" #kind, d_qk, d_v, tile_rows, true, false, 1},
#ifdef __SANITIZE_THREAD__ /* has no room for the threads of two blocks */
#define RT_ATTEND_SM90_SHARED(d_qk, d_v, kind, own)
#else
#define RT_ATTEND_SM90_SHARED(d_qk, d_v, kind, own)                                                \
    {"rt_mla_sm90_" #d_qk "x" #d_v "_" #kind, d_qk, d_v, 64, true, own, 2},
#endif
#define RT_ATTEND_GENERIC_FOLD(d_qk, d_v, tile_rows)                                               \
    {"rt_mla_attend_" #d_qk "x" #d_v "_f" #tile_rows, d_qk, d_v, tile_rows, false, true, 1},
#define RT_ATTEND_SM90_FOLD(d_qk, d_v, tile_rows)                                                  \
    {"rt_mla_sm90_" #d_qk "x" #d_v "_f" #tile_rows, d_qk, d_v, tile_rows, true, true, 1},
#define RT_ATTEND_SM90_OWN(d_qk, d_v)                                                              \
    {"rt_mla_sm90_" #d_qk "x" #d_v "_p64", d_qk, d_v, 64, true, true, 1},
static const struct emu_attend_kernel kernels[] = {
#include "kernels/kernels.inc"
};

/* schedule.invariant of a batch-invariant one. */
static inline unsigned emu_attend_way(const struct emu_attend_kernel *kernel, unsigned share)
{
    return kernel->tile_rows == 64 ? RT_INVARIANT_PIECES(2, share) : RT_INVARIANT_FOLDED(2, share);
}

#endif
