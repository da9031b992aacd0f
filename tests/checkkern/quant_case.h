/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_CHECKKERN_QUANT_CASE_H
#define RT_TESTS_CHECKKERN_QUANT_CASE_H

/* What the tests of quantised caches share: every layout with every geometry that has it. */
#include "common/kv_format.h"

#define CK_FORMATS 13u

struct ck_format {
    enum rt_kv_layout layout;
    uint32_t d_qk, d_v;
};
extern const struct ck_format ck_formats[CK_FORMATS];

/* Of ck_formats[i]. */
struct rt_kv_format ck_format_make(uint32_t i);

#endif
