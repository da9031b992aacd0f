/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over caches of e4m3. */
#include "tests/emu/emu.h"

#include "kernels/generic/mla_attend_quant_288x256.cu"
#include "kernels/generic/mla_attend_quant_320x256.cu"
#include "kernels/generic/mla_attend_quant_512x512.cu"
#include "kernels/generic/mla_attend_quant_576x512.cu"
#include "kernels/generic/mla_sparse_quant_512x512.cu"
#include "kernels/generic/mla_sparse_quant_576x512.cu"
