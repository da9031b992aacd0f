/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_DEVICE_PTX_WGMMA_CUH
#define RT_KERNELS_DEVICE_PTX_WGMMA_CUH

/*
 * Products of a warp group: PTX ISA, "wgmma.mma_async". d [64][N] += a [64][16] b [16][N], bf16 or
 * f16 in, float out, asynchronous. Lane i of warp w (of four) holds
 *   d[4 j + 0], d[4 j + 1]   row 16 w + i / 4,      columns 8 j + 2 (i % 4) and the next
 *   d[4 j + 2], d[4 j + 3]   row 16 w + i / 4 + 8,  the same columns
 * and, where a is in registers, a[0] (row i / 4, columns 2 (i % 4) and the next), a[1] (row + 8),
 * a[2] (columns + 8), a[3] (both).
 *
 * An operand in shared memory is named by a descriptor (PTX ISA, "matrix descriptor"): tiles of 64
 * elements, 128 bytes, to a row, in the 128-byte swizzle of the copy engine, each tile a multiple
 * of 1024 bytes from address 0. Rows in a group of 8 are 128 bytes apart, groups `group_bytes`.
 *   along K       row = row of a or column of b, contiguous along K: step over K by 32 bytes
 *   across (1)    row = index along K, contiguous along M or N: step over K by two groups; the
 *                 next 64 of M or N are `tile_bytes` further
 *
 * Between rt_wgmma_begin and the wait that covers a commit, nobody may touch its registers.
 */
#include <stdint.h>

#define RT_WGMMA_SWIZZLE_128 (1ull << 62)
#define RT_WGMMA_GROUP_BYTES 1024u /* where groups are one behind the other */

/* `tile_bytes` matters only across, for N above 64. */
static __device__ __forceinline__ uint64_t rt_wgmma_spaced_operand(uint32_t shared_address,
                                                                   uint32_t tile_bytes,
                                                                   uint32_t group_bytes)
{
    return RT_WGMMA_SWIZZLE_128 | (uint64_t)((group_bytes >> 4) & 0x3fff) << 32 |
           (uint64_t)((tile_bytes >> 4) & 0x3fff) << 16 | ((shared_address >> 4) & 0x3fff);
}

static __device__ __forceinline__ uint64_t rt_wgmma_operand(uint32_t shared_address,
                                                            uint32_t tile_bytes)
{
    return rt_wgmma_spaced_operand(shared_address, tile_bytes, RT_WGMMA_GROUP_BYTES);
}

/* The operand so many bytes further. */
static __device__ __forceinline__ uint64_t rt_wgmma_further(uint64_t operand, uint32_t bytes)
{
    return operand + (bytes >> 4);
}

/* What this warp group has put into registers and shared memory so far is seen by the next product.
 */
static __device__ __forceinline__ void rt_wgmma_begin(void)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* Closes the group of products since the last commit; it may be empty. */
static __device__ __forceinline__ void rt_wgmma_commit(void)
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Waits until at most the PENDING newest groups are unfinished. */
template <int PENDING> static __device__ __forceinline__ void rt_wgmma_wait(void)
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* The compiler takes the registers as changed here: they are not moved across a wait. */
template <int COUNT> static __device__ __forceinline__ void rt_wgmma_settle(float (&d)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

#define RT_D4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define RT_D16(i) RT_D4(i), RT_D4(i + 4), RT_D4(i + 8), RT_D4(i + 12)
#define RT_D64(i) RT_D16(i), RT_D16(i + 16), RT_D16(i + 32), RT_D16(i + 48)

/* Of both operands. */
enum rt_wgmma_type { RT_WGMMA_BF16, RT_WGMMA_F16 };

template <int N> struct rt_wgmma;

template <> struct rt_wgmma<8> {
    /* Both operands in shared memory; A_ACROSS and B_ACROSS as drawn above. keep 0: d = a b. */
    template <int A_ACROSS, int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void shared(float (&d)[4], uint64_t a, uint64_t b,
                                                  int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %8, 0;\n"                                 \
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32." type "." type " "                    \
                 "{%0, %1, %2, %3}, "                                                              \
                 "%4, %5, keep, 1, 1, %6, %7;\n}"                                                  \
                 : RT_D4(0)                                                                        \
                 : "l"(a), "l"(b), "n"(A_ACROSS), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }

    /* a in registers. */
    template <int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void registers(float (&d)[4], const uint32_t (&a)[4],
                                                     uint64_t b, int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %10, 0;\n"                                \
                 "wgmma.mma_async.sync.aligned.m64n8k16.f32." type "." type " "                    \
                 "{%0, %1, %2, %3}, "                                                              \
                 "{%4, %5, %6, %7}, %8, keep, 1, 1, %9;\n}"                                        \
                 : RT_D4(0)                                                                        \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }
};

template <> struct rt_wgmma<16> {
    /* Both operands in shared memory; A_ACROSS and B_ACROSS as drawn above. keep 0: d = a b. */
    template <int A_ACROSS, int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void shared(float (&d)[8], uint64_t a, uint64_t b,
                                                  int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %12, 0;\n"                                \
                 "wgmma.mma_async.sync.aligned.m64n16k16.f32." type "." type " "                   \
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, "                                              \
                 "%8, %9, keep, 1, 1, %10, %11;\n}"                                                \
                 : RT_D4(0), RT_D4(4)                                                              \
                 : "l"(a), "l"(b), "n"(A_ACROSS), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }

    /* a in registers. */
    template <int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void registers(float (&d)[8], const uint32_t (&a)[4],
                                                     uint64_t b, int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %14, 0;\n"                                \
                 "wgmma.mma_async.sync.aligned.m64n16k16.f32." type "." type " "                   \
                 "{%0, %1, %2, %3, %4, %5, %6, %7}, "                                              \
                 "{%8, %9, %10, %11}, %12, keep, 1, 1, %13;\n}"                                    \
                 : RT_D4(0), RT_D4(4)                                                              \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }
};

template <> struct rt_wgmma<32> {
    /* Both operands in shared memory; A_ACROSS and B_ACROSS as drawn above. keep 0: d = a b. */
    template <int A_ACROSS, int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void shared(float (&d)[16], uint64_t a, uint64_t b,
                                                  int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %20, 0;\n"                                \
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type " "                   \
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "        \
                 "%16, %17, keep, 1, 1, %18, %19;\n}"                                              \
                 : RT_D16(0)                                                                       \
                 : "l"(a), "l"(b), "n"(A_ACROSS), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }

    /* a in registers. */
    template <int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void registers(float (&d)[16], const uint32_t (&a)[4],
                                                     uint64_t b, int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %22, 0;\n"                                \
                 "wgmma.mma_async.sync.aligned.m64n32k16.f32." type "." type " "                   \
                 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "        \
                 "{%16, %17, %18, %19}, %20, keep, 1, 1, %21;\n}"                                  \
                 : RT_D16(0)                                                                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }
};

template <> struct rt_wgmma<64> {
    /* Both operands in shared memory; A_ACROSS and B_ACROSS as drawn above. keep 0: d = a b. */
    template <int A_ACROSS, int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void shared(float (&d)[32], uint64_t a, uint64_t b,
                                                  int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile(                                                                                  \
        "{\n.reg .pred keep;\nsetp.ne.b32 keep, %36, 0;\n"                                         \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " "                            \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "        \
        "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "                  \
        "%32, %33, keep, 1, 1, %34, %35;\n}"                                                       \
        : RT_D16(0), RT_D16(16)                                                                    \
        : "l"(a), "l"(b), "n"(A_ACROSS), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }

    /* a in registers. */
    template <int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void registers(float (&d)[32], const uint32_t (&a)[4],
                                                     uint64_t b, int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile(                                                                                  \
        "{\n.reg .pred keep;\nsetp.ne.b32 keep, %38, 0;\n"                                         \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " "                            \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "        \
        "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "                  \
        "{%32, %33, %34, %35}, %36, keep, 1, 1, %37;\n}"                                           \
        : RT_D16(0), RT_D16(16)                                                                    \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }
};

template <> struct rt_wgmma<128> {
    /* Both operands in shared memory; A_ACROSS and B_ACROSS as drawn above. keep 0: d = a b. */
    template <int A_ACROSS, int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void shared(float (&d)[64], uint64_t a, uint64_t b,
                                                  int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile(                                                                                  \
        "{\n.reg .pred keep;\nsetp.ne.b32 keep, %68, 0;\n"                                         \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " "                           \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "        \
        "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "         \
        "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "         \
        "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "                  \
        "%64, %65, keep, 1, 1, %66, %67;\n}"                                                       \
        : RT_D64(0)                                                                                \
        : "l"(a), "l"(b), "n"(A_ACROSS), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }

    /* a in registers. */
    template <int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void registers(float (&d)[64], const uint32_t (&a)[4],
                                                     uint64_t b)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile(                                                                                  \
        "{\n.reg .pred keep;\nsetp.ne.b32 keep, %70, 0;\n"                                         \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type " "                           \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "        \
        "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "         \
        "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "         \
        "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "                  \
        "{%64, %65, %66, %67}, %68, keep, 1, 1, %69;\n}"                                           \
        : RT_D64(0)                                                                                \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(B_ACROSS), "r"(1))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }
};

template <> struct rt_wgmma<256> {
    /* Both operands in shared memory; A_ACROSS and B_ACROSS as drawn above. keep 0: d = a b. */
    template <int A_ACROSS, int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void shared(float (&d)[128], uint64_t a, uint64_t b,
                                                  int keep = 1)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile(                                                                                  \
        "{\n.reg .pred keep;\nsetp.ne.b32 keep, %132, 0;\n"                                        \
        "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " "                           \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "        \
        "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "         \
        "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "         \
        "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "         \
        "%66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "         \
        "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "         \
        "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "       \
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "           \
        "%125, %126, %127}, "                                                                      \
        "%128, %129, keep, 1, 1, %130, %131;\n}"                                                   \
        : RT_D64(0), RT_D64(64)                                                                    \
        : "l"(a), "l"(b), "n"(A_ACROSS), "n"(B_ACROSS), "r"(keep))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }

    /* a in registers. */
    template <int B_ACROSS, enum rt_wgmma_type TYPE = RT_WGMMA_BF16>
    static __device__ __forceinline__ void registers(float (&d)[128], const uint32_t (&a)[4],
                                                     uint64_t b)
    {
#define RT_PRODUCT(type)                                                                           \
    asm volatile(                                                                                  \
        "{\n.reg .pred keep;\nsetp.ne.b32 keep, %134, 0;\n"                                        \
        "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type " "                           \
        "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, "        \
        "%18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, "         \
        "%34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, "         \
        "%50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, "         \
        "%66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "         \
        "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, "         \
        "%98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "       \
        "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, "           \
        "%125, %126, %127}, "                                                                      \
        "{%128, %129, %130, %131}, %132, keep, 1, 1, %133;\n}"                                     \
        : RT_D64(0), RT_D64(64)                                                                    \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "n"(B_ACROSS), "r"(1))
        if constexpr (TYPE == RT_WGMMA_F16)
            RT_PRODUCT("f16");
        else
            RT_PRODUCT("bf16");
#undef RT_PRODUCT
    }
};

#undef RT_D4
#undef RT_D16
#undef RT_D64

#endif
