/* SPDX-License-Identifier: Apache-2.0 */
/* A warp's product, once for its 32 lanes: products exact, summed in double, rounded once. */
#include "tests/emu/mma.h"

enum { M = 16, N = 8, K = 16, A = 4, B = 8 }; /* words of a and b begin there */

/* Two elements of a word, which lie beside each other along k. */
static void widen(double *to, int step, uint32_t pair)
{
    to[0] = emu_float(pair << 16);
    to[step] = emu_float(pair & 0xffff0000u);
}

void emu_multiply_warp(emu_words *lanes)
{
    double a[K][M], b[K][N], d[M][N];
    for (int l = 0; l < 32; l++) {
        const int of_k = l % 4 * 2;
        for (int i = 0; i < 4; i++) {
            const int row = l / 4 + i % 2 * 8;
            widen(&a[of_k + i / 2 * 8][row], M, lanes[l][A + i]);
            d[l / 4 + i / 2 * 8][of_k + i % 2] = emu_float(lanes[l][i]);
        }
        for (int i = 0; i < 2; i++)
            widen(&b[of_k + i * 8][l / 4], N, lanes[l][B + i]);
    }
    for (int row = 0; row < M; row++)
        for (int k = 0; k < K; k++)
            for (int column = 0; column < N; column++)
                d[row][column] += a[k][row] * b[k][column];
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++)
            lanes[l][i] = emu_bits((float)d[l / 4 + i / 2 * 8][l % 4 * 2 + i % 2]);
}
