/* SPDX-License-Identifier: Apache-2.0 */
#include "driver/cuda/cuda_blas.h"

#include <stdarg.h>
#include <stdio.h>

#define MIB 1048576.0

/* The numbers that the header gives to tiles, stages and clusters. They grow with each release, and
 * a number keeps its meaning: those of a header that is older than the library are known too. */

#define FIRST_TILES 36u /* the first ones have no order */
static const uint16_t first_tiles[FIRST_TILES][2] = {
    {0, 0},     {8, 8},    {8, 16},   {16, 8},   {8, 32},    {16, 16},   {32, 8},    {8, 64},
    {16, 32},   {32, 16},  {64, 8},   {32, 32},  {32, 64},   {64, 32},   {32, 128},  {64, 64},
    {128, 32},  {64, 128}, {128, 64}, {64, 256}, {128, 128}, {256, 64},  {64, 512},  {128, 256},
    {256, 128}, {512, 64}, {64, 96},  {96, 64},  {96, 128},  {128, 160}, {160, 128}, {192, 128},
    {128, 192}, {128, 96}, {32, 256}, {256, 32}};

static bool is_first_tile(uint32_t rows, uint32_t columns)
{
    for (uint32_t i = 1; i < FIRST_TILES; i++)
        if (first_tiles[i][0] == rows && first_tiles[i][1] == columns)
            return true;
    return false;
}

/* Later ones come in two runs, each by rows and then by columns, without what was there already:
 * rows by eights with columns by 64, at most 48 Ki elements; then the other way, at most 64 Ki. */
static bool later_tile(uint32_t id, uint32_t *rows, uint32_t *columns)
{
    static const uint32_t most[] = {49152, 65536};
    uint32_t next = FIRST_TILES;
    for (int run = 0; run < 2; run++) {
        const uint32_t row_step = run ? 64 : 8, column_step = run ? 8 : 64;
        for (*rows = row_step; *rows <= 768; *rows += row_step)
            for (*columns = column_step; *columns <= 768; *columns += column_step) {
                const bool in_first_run = *columns % 64 == 0 && *rows * *columns <= most[0];
                if (*rows * *columns > most[run] || (run && in_first_run) ||
                    is_first_tile(*rows, *columns))
                    continue;
                if (next++ == id)
                    return true;
            }
    }
    return false;
}

struct writer {
    char *text;
    size_t bytes, used;
};

/* What does not fit is cut. */
static RT_PRINTF(2, 3) void put(struct writer *w, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    const int n = vsnprintf(w->text + w->used, w->bytes - w->used, fmt, args);
    va_end(args);
    const size_t room = w->bytes - w->used - 1;
    w->used += n < 0 ? 0 : (size_t)n < room ? (size_t)n : room;
}

static void put_tile(struct writer *w, uint32_t id)
{
    uint32_t rows, columns;
    if (id > 0 && id < FIRST_TILES)
        put(w, ", tile %ux%u", first_tiles[id][0], first_tiles[id][1]);
    else if (id > 0 && later_tile(id, &rows, &columns))
        put(w, ", tile %ux%u", rows, columns);
    else if (id > 0)
        put(w, ", tile number %u", id);
}

static void put_stages(struct writer *w, uint32_t id)
{
    static const char *const later[] = {
        [25] = "32x10",   [26] = "8x4",      [27] = "16x10",    [28] = "8x5",
        [31] = "8x3",     [32] = "8xauto",   [33] = "16xauto",  [34] = "32xauto",
        [35] = "64xauto", [36] = "128xauto", [37] = "256xauto", [38] = "768xauto"};
    if (id >= 1 && id <= 24)
        put(w, ", stages %ux%u", 16u << (id - 1) / 6, (id - 1) % 6 + 1);
    else if (id < sizeof(later) / sizeof(later[0]) && later[id])
        put(w, ", stages %s", later[id]);
    else if (id > 0)
        put(w, ", stages number %u", id);
}

static void put_cluster(struct writer *w, uint32_t id)
{
    static const uint8_t shapes[][2] = {
        {0, 0},  {0, 0},  {1, 1},  {2, 1},  {4, 1},  {1, 2},  {2, 2},  {4, 2},  {1, 4},
        {2, 4},  {4, 4},  {8, 1},  {1, 8},  {8, 2},  {2, 8},  {16, 1}, {1, 16}, {3, 1},
        {5, 1},  {6, 1},  {7, 1},  {9, 1},  {10, 1}, {11, 1}, {12, 1}, {13, 1}, {14, 1},
        {15, 1}, {3, 2},  {5, 2},  {6, 2},  {7, 2},  {1, 3},  {2, 3},  {3, 3},  {4, 3},
        {5, 3},  {3, 4},  {1, 5},  {2, 5},  {3, 5},  {1, 6},  {2, 6},  {1, 7},  {2, 7},
        {1, 9},  {1, 10}, {1, 11}, {1, 12}, {1, 13}, {1, 14}, {1, 15}};
    if (id < sizeof(shapes) / sizeof(shapes[0]) && shapes[id][0])
        put(w, ", cluster %ux%u", shapes[id][0], shapes[id][1]);
    else if (id > 1)
        put(w, ", cluster number %u", id);
}

static void put_workspace(struct writer *w, size_t bytes)
{
    if (bytes >= MIB / 10)
        put(w, ", %.1f MiB workspace", (double)bytes / MIB);
    else if (bytes > 0)
        put(w, ", %zu bytes workspace", bytes);
}

/* An attribute of two bytes or four; what is not told stays zero. */
static void read(const struct rt_cuda_blas *blas, const cublasLtMatmulAlgo_t *algo,
                 cublasLtMatmulAlgoConfigAttributes_t attribute, size_t bytes, uint32_t *word)
{
    uint16_t half = 0;
    uint32_t whole = 0;
    size_t written = 0;
    void *const value = bytes == sizeof(half) ? (void *)&half : (void *)&whole;
    (void)blas->api.MatmulAlgoConfigGetAttribute(algo, attribute, value, bytes, &written);
    *word = bytes == sizeof(half) ? half : whole;
}

void rt_cuda_blas_identify(const struct rt_cuda_blas *blas, const cublasLtMatmulAlgo_t *algo,
                           uint32_t identity[RT_CUDA_BLAS_WORDS])
{
    static const struct {
        enum rt_cuda_blas_word word;
        cublasLtMatmulAlgoConfigAttributes_t attribute;
        size_t bytes;
    } told[] = {{RT_CUDA_BLAS_ALGORITHM, CUBLASLT_ALGO_CONFIG_ID, 4},
                {RT_CUDA_BLAS_TILE, CUBLASLT_ALGO_CONFIG_TILE_ID, 4},
                {RT_CUDA_BLAS_STAGES, CUBLASLT_ALGO_CONFIG_STAGES_ID, 4},
                {RT_CUDA_BLAS_INNER_SHAPE, CUBLASLT_ALGO_CONFIG_INNER_SHAPE_ID, 2},
                {RT_CUDA_BLAS_CLUSTER, CUBLASLT_ALGO_CONFIG_CLUSTER_SHAPE_ID, 2},
                {RT_CUDA_BLAS_SPLIT_K, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, 4},
                {RT_CUDA_BLAS_REDUCTION, CUBLASLT_ALGO_CONFIG_REDUCTION_SCHEME, 4},
                {RT_CUDA_BLAS_SWIZZLE, CUBLASLT_ALGO_CONFIG_CTA_SWIZZLING, 4},
                {RT_CUDA_BLAS_OPTION, CUBLASLT_ALGO_CONFIG_CUSTOM_OPTION, 4}};
    identity[RT_CUDA_BLAS_VERSION] = (uint32_t)blas->api.GetVersion();
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++)
        read(blas, algo, told[i].attribute, told[i].bytes, &identity[told[i].word]);
}

void rt_cuda_blas_describe(const uint32_t identity[RT_CUDA_BLAS_WORDS], size_t workspace_bytes,
                           char *text, size_t bytes)
{
    struct writer w = {.text = text, .bytes = bytes};
    put(&w, "algo %d", (int32_t)identity[RT_CUDA_BLAS_ALGORITHM]);
    put_tile(&w, identity[RT_CUDA_BLAS_TILE]);
    put_stages(&w, identity[RT_CUDA_BLAS_STAGES]);
    put_cluster(&w, identity[RT_CUDA_BLAS_CLUSTER]);
    if ((int32_t)identity[RT_CUDA_BLAS_SPLIT_K] > 1)
        put(&w, ", split-K %u", identity[RT_CUDA_BLAS_SPLIT_K]);
    if (identity[RT_CUDA_BLAS_SWIZZLE] > 0)
        put(&w, ", swizzle %u", identity[RT_CUDA_BLAS_SWIZZLE]);
    if (identity[RT_CUDA_BLAS_OPTION] > 0)
        put(&w, ", option %u", identity[RT_CUDA_BLAS_OPTION]);
    put_workspace(&w, workspace_bytes);
}
