/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/ref/quant.h"

#include "common/bf16.h"
#include "kernels/ref/keys.h"

#include <math.h>
#include <string.h>

#define MOST 448.0
#define LEAST_EXPONENT (-6) /* of a normal number: 1.0 * 2^-6 */
#define MANTISSA 8          /* mantissas of an exponent */
#define BIAS 7
#define NAN_CODE 0x7fu

uint8_t rt_ref_to_e4m3(double value)
{
    if (isnan(value))
        return NAN_CODE;
    const uint8_t sign = signbit(value) ? 0x80 : 0;
    const double magnitude = fmin(fabs(value), MOST);
    int exponent = magnitude == 0 ? LEAST_EXPONENT : ilogb(magnitude);
    if (exponent < LEAST_EXPONENT)
        exponent = LEAST_EXPONENT;
    /* Eighths of the exponent's power, 8..16, or below it 0..8; a carry is the next exponent. */
    const int eighths = (int)rint(ldexp(magnitude, 3 - exponent));
    return (uint8_t)(sign | (MANTISSA * (exponent - LEAST_EXPONENT) + eighths));
}

double rt_ref_of_e4m3(uint8_t code)
{
    const int magnitude = code & 0x7f, field = magnitude / MANTISSA;
    if (magnitude == NAN_CODE)
        return NAN;
    const int eighths = magnitude % MANTISSA + (field ? MANTISSA : 0);
    const double value = ldexp(eighths, (field ? field : 1) - BIAS - 3);
    return code & 0x80 ? -value : value;
}

/* Of the tile's numbers the exponent of its scale. */
static int tile_log2(const uint16_t *from, uint32_t count)
{
    double most = 0;
    for (uint32_t i = 0; i < count; i++)
        most = fmax(most, fabs((double)rt_bf16_to_float(from[i])));
    int log2 = RT_QUANT_LEAST_LOG2;
    while (log2 < RT_QUANT_MOST_LOG2 && most > ldexp(MOST, log2))
        log2++;
    return log2;
}

static void store_scale(const struct rt_quant_view *quant, unsigned char *scales, uint32_t tile,
                        int log2)
{
    const float scale = ldexpf(1, log2);
    if (quant->scale_kind == RT_QUANT_SCALE_F32)
        memcpy(scales + tile * sizeof(scale), &scale, sizeof(scale));
    else
        scales[tile] = (unsigned char)(log2 + 127);
}

static float load_scale(const struct rt_quant_view *quant, const unsigned char *scales,
                        uint32_t tile)
{
    float scale = quant->tensor_scale;
    if (quant->scale_kind == RT_QUANT_SCALE_F32)
        memcpy(&scale, scales + tile * sizeof(scale), sizeof(scale));
    if (quant->scale_kind == RT_QUANT_SCALE_UE8M0)
        scale = scales[tile] == 0xff ? NAN : ldexpf(1, scales[tile] - 127);
    return scale;
}

static void quantise_tile(const struct rt_quant_view *quant, const uint16_t *from, uint32_t tile,
                          struct rt_ref_quant_row to)
{
    const uint32_t first = tile * quant->tile;
    const bool by_tensor = quant->scale_kind == RT_QUANT_SCALE_TENSOR;
    const float inverse = 1 / quant->tensor_scale;
    const int log2 = by_tensor ? 0 : tile_log2(from + first, quant->tile);
    for (uint32_t i = first; i < first + quant->tile; i++) {
        const float x = rt_bf16_to_float(from[i]);
        to.row[i] = rt_ref_to_e4m3(by_tensor ? (double)(x * inverse) : ldexp((double)x, -log2));
    }
    if (!by_tensor)
        store_scale(quant, to.scales, tile, log2);
}

void rt_ref_quantise(const struct rt_quant_view *quant, const uint16_t *from, uint32_t d_qk,
                     struct rt_ref_quant_row to)
{
    if (quant->scale_kind != RT_QUANT_SCALE_TENSOR)
        memset(to.scales, 0, quant->scale_bytes);
    for (uint32_t tile = 0; tile < quant->fp8 / quant->tile; tile++)
        quantise_tile(quant, from, tile, to);
    memcpy(to.row + quant->rest_offset_bytes, from + quant->fp8,
           (d_qk - quant->fp8) * sizeof(*from));
}

void rt_ref_dequantise(const struct rt_quant_view *quant, struct rt_ref_quant_row from,
                       uint32_t d_qk, uint16_t *to)
{
    for (uint32_t i = 0; i < quant->fp8; i++) {
        const float scale = load_scale(quant, from.scales, i / quant->tile);
        to[i] = rt_float_to_bf16((float)rt_ref_of_e4m3(from.row[i]) * scale);
    }
    memcpy(to + quant->fp8, from.row + quant->rest_offset_bytes, (d_qk - quant->fp8) * sizeof(*to));
}
