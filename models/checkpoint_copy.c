/* SPDX-License-Identifier: Apache-2.0 */
#include "models/checkpoint_table.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are read as they lie");

/* ---- numbers --------------------------------------------------------------------------------- */

static float from_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* To the nearest, ties to even; NaN stays NaN. */
static uint16_t bf16_of(float value)
{
    uint32_t word;
    memcpy(&word, &value, sizeof(word));
    if ((word & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(word >> 16 | 0x0040u);
    return (uint16_t)((word + 0x7fffu + (word >> 16 & 1u)) >> 16);
}

/* Exact. A subnormal half is its mantissa in units of 2^-24. */
static float float_of_half(uint16_t half)
{
    const uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    const uint32_t exponent = half >> 10 & 0x1fu, mantissa = half & 0x3ffu;
    if (exponent == 0) {
        const float size = (float)mantissa * 0x1p-24f;
        return sign ? -size : size;
    }
    if (exponent == 31)
        return from_bits(sign | 0x7f800000u | mantissa << 13);
    return from_bits(sign | (exponent + 112) << 23 | mantissa << 13);
}

/* ---- elements of a mapped tensor, which need not be aligned ---------------------------------- */

static uint16_t load16(const unsigned char *at)
{
    uint16_t bits;
    memcpy(&bits, at, sizeof(bits));
    return bits;
}

static float load_float(const struct rt_stored_entry *t, uint64_t i)
{
    uint32_t word;
    switch (t->stored) {
    case RT_STORED_BF16:
        return from_bits((uint32_t)load16(t->data + 2 * i) << 16);
    case RT_STORED_F16:
        return float_of_half(load16(t->data + 2 * i));
    default:
        memcpy(&word, t->data + 4 * i, sizeof(word));
        return from_bits(word);
    }
}

static void copy_bf16(const struct rt_stored_entry *t, uint64_t first, uint64_t count,
                      uint16_t *out)
{
    if (t->stored == RT_STORED_BF16) {
        memcpy(out, t->data + 2 * first, count * sizeof(*out));
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        out[i] = bf16_of(load_float(t, first + i));
}

static void copy_f32(const struct rt_stored_entry *t, uint64_t first, uint64_t count, float *out)
{
    if (t->stored == RT_STORED_F32) {
        memcpy(out, t->data + 4 * first, count * sizeof(*out));
        return;
    }
    for (uint64_t i = 0; i < count; i++)
        out[i] = load_float(t, first + i);
}

/* ---- and of one without a file --------------------------------------------------------------- */

#define PART 1024

static void copy_random(const struct rt_stored_entry *t, uint64_t seed, uint64_t first,
                        uint64_t count, enum rt_dtype dtype, void *out)
{
    uint16_t part[PART];
    float *const floats = out;
    if (dtype == RT_DTYPE_BF16) {
        rt_random_values(t, seed, first, count, out);
        return;
    }
    for (uint64_t done = 0; done < count; done += PART) {
        const uint64_t some = count - done < PART ? count - done : PART;
        rt_random_values(t, seed, first + done, some, part);
        for (uint64_t i = 0; i < some; i++)
            floats[done + i] = from_bits((uint32_t)part[i] << 16);
    }
}

void rt_stored_copy(const rt_checkpoint *c, const struct rt_stored_entry *t, uint64_t from,
                    uint64_t count, enum rt_dtype dtype, void *out)
{
    if (!t->data)
        copy_random(t, c->seed, from, count, dtype, out);
    else if (dtype == RT_DTYPE_BF16)
        copy_bf16(t, from, count, out);
    else if (dtype == RT_DTYPE_F32)
        copy_f32(t, from, count, out);
    else
        memcpy(out, t->data + 4 * from, count * sizeof(int32_t));
}

/* ---- the door -------------------------------------------------------------------------------- */

static enum rt_status check_dtype(const rt_checkpoint *c, const struct rt_stored_entry *t,
                                  enum rt_dtype dtype, struct rt_error *err)
{
    const bool is_float =
        t->stored == RT_STORED_BF16 || t->stored == RT_STORED_F16 || t->stored == RT_STORED_F32;
    RT_MODELS_REQUIRE(dtype == RT_DTYPE_BF16 || dtype == RT_DTYPE_F32 || dtype == RT_DTYPE_I32, err,
                      RT_ERR_INVALID,
                      "rt_checkpoint_copy: dtype is %d: must be bf16 (%d), f32 (%d) or i32 (%d)",
                      (int)dtype, RT_DTYPE_BF16, RT_DTYPE_F32, RT_DTYPE_I32);
    const bool fits = dtype == RT_DTYPE_I32 ? t->stored == RT_STORED_I32 : is_float;
    RT_MODELS_REQUIRE(fits, err, RT_ERR_FILE, "%s: tensor %.96s has dtype %.16s, expected %s",
                      c->label, t->name, t->dtype,
                      dtype == RT_DTYPE_I32 ? "I32" : "BF16, F16 or F32");
    return RT_OK;
}

enum rt_status rt_checkpoint_copy(const rt_checkpoint *checkpoint, const char *name, uint64_t first,
                                  uint64_t count, enum rt_dtype dtype, void *out,
                                  struct rt_error *error)
{
    const struct rt_stored_entry *t = NULL;
    RT_MODELS_REQUIRE(checkpoint, error, RT_ERR_INVALID, "rt_checkpoint_copy: checkpoint is null");
    RT_MODELS_REQUIRE(name, error, RT_ERR_INVALID, "rt_checkpoint_copy: name is null");
    RT_MODELS_REQUIRE(out || count == 0, error, RT_ERR_INVALID, "rt_checkpoint_copy: out is null");
    RT_MODELS_TRY(rt_checkpoint_entry(checkpoint, name, &t, error));
    RT_MODELS_TRY(check_dtype(checkpoint, t, dtype, error));
    RT_MODELS_REQUIRE((uintptr_t)out % (dtype == RT_DTYPE_BF16 ? 2 : 4) == 0, error, RT_ERR_INVALID,
                      "rt_checkpoint_copy: out = %p is not %d-byte aligned, as its elements are",
                      out, dtype == RT_DTYPE_BF16 ? 2 : 4);
    const uint64_t rows = rt_stored_rows(t), columns = rt_stored_columns(t);
    RT_MODELS_REQUIRE(first <= rows && count <= rows - first, error, RT_ERR_INVALID,
                      "%s: tensor %.96s: %" PRIu64 " rows from row %" PRIu64
                      " on were asked for, it has %" PRIu64,
                      checkpoint->label, name, count, first, rows);
    const uint64_t from = first * columns, elements = count * columns;
    if (elements == 0)
        return RT_OK;
    rt_stored_copy(checkpoint, t, from, elements, dtype, out);
    return RT_OK;
}
