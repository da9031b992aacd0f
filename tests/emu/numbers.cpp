/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The emulator's own test: numbers of f16, all of them, and products of warp groups of either type,
 * both operands in shared memory or one in registers, against sums in double.
 */
#include "tests/emu/emu.h"

#include "kernels/device/ptx/convert_e4m3.cuh"
#include "kernels/device/ptx/f16x2.cuh"
#include "kernels/device/ptx/mbarrier.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/sync.cuh"
#include "kernels/device/ptx/wgmma.cuh"

#include <cmath>
#include <cstdio>
#include <cstdlib>

enum { ROWS = 64, COLUMNS = 64, DEPTH = 16, TILE_BYTES = 64 * 128 };

extern EMU_OF_BLOCK unsigned char rt_attend_shared[];

static uint16_t a_bits[ROWS][DEPTH], b_bits[COLUMNS][DEPTH];
static float products[2][ROWS][COLUMNS]; /* a in shared memory, in registers */

void emu_poison_shared(void)
{
}

static void must(bool right, const char *what, unsigned at)
{
    if (right)
        return;
    fprintf(stderr, "%s, at 0x%x\n", what, at);
    exit(1);
}

/* By the format, in double. */
static double value_of(uint16_t half)
{
    const int exponent = half >> 10 & 31, mantissa = half & 1023;
    const double magnitude = exponent == 31  ? (mantissa ? (double)NAN : (double)INFINITY)
                             : exponent == 0 ? ldexp(mantissa, -24)
                                             : ldexp(1024 + mantissa, exponent - 25);
    return half & 0x8000 ? -magnitude : magnitude;
}

/* Every number and the middle to the next, which goes to the even one; a little beside it. */
static void check_rounding(void)
{
    for (unsigned i = 0; i < 0x10000; i++) {
        const uint16_t half = (uint16_t)i;
        const double value = value_of(half);
        if (std::isnan(value)) {
            must(std::isnan(emu_of_f16(half)) && std::isnan(value_of(emu_f16(emu_of_f16(half)))),
                 "NaN of f16", i);
            continue;
        }
        must((double)emu_of_f16(half) == value && emu_f16((float)value) == half, "f16", i);
        if ((i & 0x7fff) >= 0x7c00)
            continue;
        const double next = (i & 0x7fff) == 0x7bff ? copysign(65536, value) : value_of(half + 1);
        const float middle = (float)((value + next) / 2);
        must(emu_f16(middle) == half + (half & 1), "a middle of f16", i);
        must(emu_f16(nextafterf(middle, 0)) == half, "below a middle of f16", i);
        must(emu_f16(nextafterf(middle, copysignf(INFINITY, middle))) == half + 1,
             "above a middle of f16", i);
    }
}

/* Four in a word. */
static void check_e4m3(void)
{
    for (unsigned code = 0; code < 256; code++) {
        const int exponent = code >> 3 & 15, mantissa = code & 7;
        const double magnitude =
            exponent ? ldexp(8 + mantissa, exponent - 10) : ldexp(mantissa, -9);
        for (int place = 0; place < 4; place++) {
            const uint32_t word = 0x38383838u ^ (0x38u ^ code) << place * 8; /* 1 elsewhere */
            const uint32_t pairs[2] = {rt_e4m3x2_f16x2<0>(word), rt_e4m3x2_f16x2<1>(word)};
            const double found = value_of((uint16_t)(pairs[place / 2] >> place % 2 * 16));
            must((code & 127) == 127 ? std::isnan(found)
                                     : found == (code & 128 ? -magnitude : magnitude),
                 "e4m3 as f16", code);
            must((uint16_t)(pairs[place / 2] >> (place + 1) % 2 * 16) == 0x3c00 &&
                     pairs[1 - place / 2] == 0x3c003c00,
                 "what is beside e4m3", code);
        }
    }
}

/* One factor a number, the other a power of two: the product is its own rounding. */
static void check_multiply(void)
{
    for (unsigned i = 0; i < 0x7c00; i++)
        for (int power = -12; power <= 0; power += 3) {
            const uint32_t by = emu_f16(ldexpf(1, power)) * 0x10001u;
            const uint32_t pair = rt_multiply_f16x2(i | (i ^ 0x8001u) << 16, by);
            must((uint16_t)pair == emu_f16((float)ldexp(value_of((uint16_t)i), power)) &&
                     pair >> 16 == emu_f16((float)ldexp(value_of((uint16_t)(i ^ 0x8001u)), power)),
                 "a product of f16", i);
        }
}

template <enum rt_wgmma_type TYPE> static void multiply(const void *)
{
    const int t = (int)threadIdx.x, warp = t / 32, lane = t % 32;
    unsigned char *a = rt_attend_shared, *b = a + TILE_BYTES;
    rt_pdl_wait();
    for (int i = t; i < ROWS * DEPTH; i += 128) {
        const int row = i / DEPTH, k = i % DEPTH;
        const int at = row * 128 + (k / 8 ^ row % 8) * 16 + k % 8 * 2;
        *(uint16_t *)(a + at) = a_bits[row][k];
        *(uint16_t *)(b + at) = b_bits[row][k];
    }
    rt_fence_async();
    __syncthreads();
    float shared[COLUMNS / 2] = {}, registers[COLUMNS / 2] = {};
    uint32_t mine[4];
    for (int r = 0; r < 4; r++) {
        const uint16_t *of = &a_bits[warp * 16 + lane / 4 + r % 2 * 8][lane % 4 * 2 + r / 2 * 8];
        mine[r] = of[0] | (uint32_t)of[1] << 16;
    }
    const uint64_t of_a = rt_wgmma_operand(rt_shared_address(a), 0);
    const uint64_t of_b = rt_wgmma_operand(rt_shared_address(b), 0);
    rt_wgmma_begin();
    rt_wgmma<COLUMNS>::template shared<0, 0, TYPE>(shared, of_a, of_b, 0);
    rt_wgmma<COLUMNS>::template registers<0, TYPE>(registers, mine, of_b);
    rt_wgmma_commit();
    rt_wgmma_wait<0>();
    for (int i = 0; i < COLUMNS / 2; i++) {
        const int row = warp * 16 + lane / 4 + i / 2 % 2 * 8;
        const int column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        products[0][row][column] = shared[i];
        products[1][row][column] = registers[i];
    }
}

static double operand(uint16_t bits, bool f16)
{
    return f16 ? value_of(bits) : (double)emu_float((uint32_t)bits << 16);
}

/* Numbers from 2^-3 to 4 of either sign; as f16 some that are subnormal, too. */
static uint16_t some_bits(bool f16, unsigned n)
{
    const unsigned mixed = n * 2654435761u >> 7;
    if (f16 && n % 5 == 0)
        return (uint16_t)(mixed & 0x83ff);
    return (uint16_t)((mixed & 0x8000) |
                      (f16 ? 0x3000 + (mixed & 0x13ff) : 0x3e00 + (mixed & 0x27f)));
}

static void check_products(bool f16)
{
    for (unsigned i = 0; i < ROWS * DEPTH; i++) {
        a_bits[i / DEPTH][i % DEPTH] = some_bits(f16, i + 1);
        b_bits[i / DEPTH][i % DEPTH] = some_bits(f16, 7 * i + 3);
    }
    struct emu_launch launch = {};
    launch.thread = f16 ? multiply<RT_WGMMA_F16> : multiply<RT_WGMMA_BF16>;
    launch.grid_x = launch.grid_y = 1;
    launch.threads = 128;
    launch.shared_bytes = 2 * TILE_BYTES;
    launch.seed = 5;
    emu_run(&launch);
    for (unsigned i = 0; i < ROWS * COLUMNS; i++) {
        double sum = 0, most = 0;
        for (int k = 0; k < DEPTH; k++) {
            const double product =
                operand(a_bits[i / COLUMNS][k], f16) * operand(b_bits[i % COLUMNS][k], f16);
            sum += product;
            most += fabs(product);
        }
        for (int way = 0; way < 2; way++)
            must(fabs((double)products[way][i / COLUMNS][i % COLUMNS] - sum) <= most * 0x1p-20,
                 f16 ? "a product of f16 matrices" : "a product of bf16 matrices", i);
    }
}

int main(void)
{
    check_rounding();
    check_e4m3();
    check_multiply();
    check_products(true);
    check_products(false);
    printf("65536 numbers, 256 of e4m3, 2 products\n");
    return 0;
}
