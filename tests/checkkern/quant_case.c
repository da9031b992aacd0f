/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/checkkern/quant_case.h"

const struct ck_format ck_formats[CK_FORMATS] = {
    {RT_KV_FP8_TENSOR, 576, 512}, {RT_KV_FP8_TENSOR, 320, 256}, {RT_KV_FP8_TENSOR, 288, 256},
    {RT_KV_FP8_TENSOR, 512, 512}, {RT_KV_FP8_TOKEN, 576, 512},  {RT_KV_FP8_TOKEN, 320, 256},
    {RT_KV_FP8_TOKEN, 288, 256},  {RT_KV_FP8_TOKEN, 512, 512},  {RT_KV_V32, 576, 512},
    {RT_KV_V32, 320, 256},        {RT_KV_V32, 288, 256},        {RT_KV_V32_NO_ROPE, 512, 512},
    {RT_KV_V4, 512, 512}};

struct rt_kv_format ck_format_make(uint32_t i)
{
    struct rt_kv_format format;
    (void)rt_kv_format_make(ck_formats[i].layout, RT_PRECISION_BF16, ck_formats[i].d_qk,
                            ck_formats[i].d_v, &format);
    return format;
}
