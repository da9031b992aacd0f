/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels that are emulated, as C++. */
#include "tests/emu/emu.h"

#include "kernels/generic/mla_attend_288x256.cu"
#include "kernels/generic/mla_attend_320x256.cu"
#include "kernels/generic/mla_attend_512x512.cu"
#include "kernels/generic/mla_attend_576x512.cu"
#include "kernels/generic/mla_sparse_512x512.cu"
#include "kernels/generic/mla_sparse_576x512.cu"
#include "kernels/generic/prefill_attend.cu"
#include "kernels/generic/reduce.cu"

#include <cstring>

void emu_poison_shared(void)
{
    memset(&rt_reduce_memory, 0xa5, sizeof(rt_reduce_memory));
}
