/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels of warp groups that are emulated, as C++. */
#include "tests/emu/emu.h"

#include "kernels/sm90/experts_sm90.cu"
#include "kernels/sm90/mla_sm90_288x256.cu"
#include "kernels/sm90/mla_sm90_320x256.cu"
#include "kernels/sm90/mla_sm90_512x512.cu"
#include "kernels/sm90/mla_sm90_576x512.cu"
#include "kernels/sm90/mla_sparse_sm90_512x512.cu"
#include "kernels/sm90/mla_sparse_sm90_576x512.cu"
#include "kernels/sm90/preattend_absorb_sm90.cu"
#include "kernels/sm90/prefill_sm90_128x128.cu"
#include "kernels/sm90/prefill_sm90_192x128.cu"
#include "kernels/sm90/prefill_sm90_256x256.cu"
#include "kernels/sm90/prefill_sm90_96x64.cu"
#include "kernels/sm90/project_many_sm90.cu"
#include "kernels/sm90/project_sm90.cu"
