/* SPDX-License-Identifier: Apache-2.0 */
/*
 * e4m3 by integers, which devices without the instructions have, and as the emulator has those: the
 * same bits, of all codes and of floats around every one of them. The emulated kernels have the
 * instructions; so this is what holds the others' way to theirs.
 *
 *   emu_e4m3
 */
#include "tests/emu/emu.h"

#include "kernels/device/e4m3.cuh"

#include <cstdio>

void emu_poison_shared(void)
{
}

static unsigned failures, cases;

static void expect(const char *what, uint32_t of, uint32_t found, uint32_t expected)
{
    cases++;
    if (found != expected && failures++ < 10)
        std::printf("%s of 0x%08x: 0x%x by integers, 0x%x by instructions\n", what, of, found,
                    expected);
}

static void narrow(uint32_t bits)
{
    const float x = __uint_as_float(bits);
    expect("e4m3", bits, rt_float_e4m3(x), rt_pack_e4m3x2(x, 0.0f));
    expect("the upper e4m3", bits, rt_float_e4m3(x) << 8, rt_pack_e4m3x2(0.0f, x));
}

/* The floats nearest to one, and halfway to its neighbours, where rounding turns. */
static void narrow_around(float x)
{
    for (uint32_t sign = 0; sign <= 1; sign++)
        for (int32_t off = -2; off <= 2; off++)
            narrow((__float_as_uint(x) + (uint32_t)off) ^ sign << 31);
}

/* f16's NaN leaves a float's last bits 0. */
static void widen(uint32_t code)
{
    const uint32_t pair = rt_e4m3x2_f16x2<0>(code | (code ^ 0x80u) << 8);
    expect("float", code, __float_as_uint(rt_e4m3_float(code)),
           __float_as_uint(rt_f16_float((uint16_t)pair)) | ((code & 0x7fu) == 0x7fu ? 0x1fffu : 0));
    expect("the upper float", code ^ 0x80u, __float_as_uint(rt_e4m3_float(code ^ 0x80u)),
           __float_as_uint(rt_f16_float((uint16_t)(pair >> 16))) |
               ((code & 0x7fu) == 0x7fu ? 0x1fffu : 0));
}

int main(void)
{
    for (uint32_t code = 0; code < 256; code++)
        widen(code);
    for (uint32_t code = 1; code < RT_E4M3_NAN; code++) {
        const float below = rt_e4m3_float(code - 1), x = rt_e4m3_float(code);
        narrow_around(x);
        narrow_around((below + x) / 2);
    }
    narrow_around(464.0f);          /* as near to 448 as to what would be next */
    narrow_around(0x1.fffffcp127f); /* the last of its neighbours is infinity */
    for (uint32_t high = 0; high < 1u << 16; high++)
        narrow(high << 16 | 0x5aa5u); /* NaN of many kinds among them */
    for (uint32_t high = 0; high < 1u << 16; high++)
        narrow(high << 16);
    std::printf("%u cases, %u failed\n", cases, failures);
    return failures != 0;
}
