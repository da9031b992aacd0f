/* SPDX-License-Identifier: Apache-2.0 */
/* Those over caches of e4m3, as C++. */
#include "tests/emu/emu.h"

#include "kernels/sm90/mla_quant_sm90_288x256.cu"
#include "kernels/sm90/mla_quant_sm90_320x256.cu"
#include "kernels/sm90/mla_quant_sm90_512x512.cu"
#include "kernels/sm90/mla_quant_sm90_576x512.cu"
#include "kernels/sm90/mla_quant_sm90_576x512_one.cu"
#include "kernels/sm90/mla_quant_sm90_576x512_tiles.cu"
#include "kernels/sm90/mla_sparse_quant_sm90_512x512.cu"
#include "kernels/sm90/mla_sparse_quant_sm90_576x512.cu"
