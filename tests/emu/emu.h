/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_EMU_H
#define RT_TESTS_EMU_EMU_H

/*
 * Runs blocks of a CUDA kernel on the CPU: every thread is a fiber, warps exchange values where
 * the hardware does, barriers are barriers. Included before the kernel's source; the headers of
 * kernels/device/ptx are replaced by this folder's.
 *
 * What it finds: wrong indices (the numbers differ); missing barriers (fibers run in random order,
 * whole warps late or early; an asynchronous copy poisons its destination when it is issued and
 * lands at the last moment or at any; products of warp groups are done as late and as early; under
 * the thread sanitizer order.h says what is in order); barriers that are come to twice or forever;
 * registers touched while a product has them; data of the grid before this one, read before it is
 * over; divergence inside a warp's collective operation; misaligned matrix rows; writes behind the
 * shared memory asked for.
 */
#include "tests/emu/entries.h"
#include "tests/emu/run.h"

#include <cmath>
#include <cstdint>

#define __global__
#define __device__
/* Blocks that are there at the same time are threads of the host: what a block has, each has. */
#define EMU_OF_BLOCK thread_local
#define __shared__ EMU_OF_BLOCK
#define __forceinline__ inline
#define __noinline__
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))

struct emu_dim {
    unsigned x, y, z;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(16) int4 {
    int x, y, z, w;
};

extern EMU_OF_BLOCK struct emu_dim blockIdx, gridDim;
extern EMU_OF_BLOCK int emu_self; /* number of the thread that runs, in its block */

static inline struct emu_dim emu_thread_index(void)
{
    return {(unsigned)emu_self, 0, 0};
}
#define threadIdx emu_thread_index()

static inline int emu_lane(void)
{
    return emu_self % 32;
}

/* What the lane brings; returns what all 32 lanes of the warp have brought, each 10 words. */
typedef uint32_t emu_words[10];
const emu_words *emu_exchange(int operation, const uint32_t *words, int count);

/* mma.m16n8k16 of bf16, with fragments as the PTX ISA lays them out: d += a b. */
void emu_multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

void __syncthreads(void);
bool __syncthreads_or(bool vote);
int __syncthreads_count(bool vote);
void __syncwarp(void);
void emu_copy_async(void *to, const void *from, bool valid);
void emu_copy_async_4(void *to, const void *from);
void emu_copy_commit(void);
void emu_copy_arrive(uint64_t *barrier);
void emu_copy_wait(int pending);
void emu_poison_shared(void); /* of kernels that declare their own; beside their source */
void emu_load_row(uint32_t (&words)[4], const void *row);
void emu_store_row(void *row, const uint32_t (&words)[4]);
void emu_load_relaxed(uint32_t *words, int count, const void *from);
void emu_store_relaxed(void *to, const uint32_t *words, int count);
void emu_ticket_look(const uint32_t *counter); /* in front of every load; see tickets.cpp */
void emu_ticket_drawn(const uint32_t *counter);
[[noreturn]] void __trap(void);
void emu_grid_wait(void);
void emu_grid_trigger(void);
void emu_yield(void); /* for who asks memory until another has written there */

static inline float emu_float(uint32_t bits)
{
    float value;
    __builtin_memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint32_t emu_bits(float value)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline uint16_t emu_bf16(float value)
{
    const uint32_t bits = emu_bits(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* Sign, 5 bits of exponent, bias 15, 10 of mantissa. */
static inline uint16_t emu_f16(float value)
{
    const uint32_t bits = emu_bits(value), magnitude = bits & 0x7fffffffu;
    const uint32_t sign = bits >> 16 & 0x8000u;
    if (magnitude > 0x7f800000u)
        return 0x7fff;
    if (magnitude >= 0x477ff000u) /* 65520, half way from the largest to 2^16 */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) /* 2^-14; floats from a half on are 2^-24 apart, as these are */
        return (uint16_t)(sign | (emu_bits(emu_float(magnitude) + 0.5f) - emu_bits(0.5f)));
    return (uint16_t)(sign |
                      (((magnitude + 0xfffu + (magnitude >> 13 & 1u)) >> 13) - (112u << 10)));
}

static inline float emu_of_f16(uint16_t half)
{
    const uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00u)
        return emu_float(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
    if (magnitude < 0x400u)
        return emu_float(sign | emu_bits((float)magnitude * 0x1p-24f));
    return emu_float(sign | (magnitude + (112u << 10)) << 13);
}

enum {
    EMU_SHUFFLE = 1,
    EMU_VOTE,
    EMU_MMA,
    EMU_LDMATRIX,
    EMU_STMATRIX,
    EMU_SYNCWARP,
    EMU_BARRIER,
    EMU_CLUSTER,
    EMU_WAIT,
    EMU_PRODUCT,
    EMU_PRODUCT_FENCE,
    EMU_PRODUCT_COMMIT,
    EMU_PRODUCT_WAIT
};

static inline float __uint_as_float(uint32_t bits)
{
    return emu_float(bits);
}

static inline uint32_t __float_as_uint(float value)
{
    return emu_bits(value);
}

static inline uint32_t emu_shuffle(uint32_t value, int from)
{
    return emu_exchange(EMU_SHUFFLE, &value, 1)[from][0];
}

static inline uint32_t __shfl_sync(unsigned, uint32_t value, int from)
{
    return emu_shuffle(value, from);
}

static inline float __shfl_sync(unsigned, float value, int from)
{
    return emu_float(emu_shuffle(emu_bits(value), from));
}

static inline int __shfl_sync(unsigned, int value, int from)
{
    return (int)emu_shuffle((uint32_t)value, from);
}

static inline float __shfl_xor_sync(unsigned, float value, int distance)
{
    return emu_float(emu_shuffle(emu_bits(value), emu_lane() ^ distance));
}

static inline uint32_t __shfl_xor_sync(unsigned, uint32_t value, int distance)
{
    return emu_shuffle(value, emu_lane() ^ distance);
}

static inline uint64_t __shfl_xor_sync(unsigned, uint64_t value, int distance)
{
    const uint32_t words[2] = {(uint32_t)value, (uint32_t)(value >> 32)};
    const uint32_t *from = emu_exchange(EMU_SHUFFLE, words, 2)[emu_lane() ^ distance];
    return from[0] | (uint64_t)from[1] << 32;
}

static inline uint32_t __shfl_up_sync(unsigned, uint32_t value, int distance)
{
    return emu_shuffle(value, emu_lane() < distance ? emu_lane() : emu_lane() - distance);
}

static inline uint64_t __shfl_up_sync(unsigned, uint64_t value, int distance)
{
    const uint32_t words[2] = {(uint32_t)value, (uint32_t)(value >> 32)};
    const emu_words *all = emu_exchange(EMU_SHUFFLE, words, 2);
    const uint32_t *from = all[emu_lane() < distance ? emu_lane() : emu_lane() - distance];
    return from[0] | (uint64_t)from[1] << 32;
}

static inline uint32_t __shfl_down_sync(unsigned, uint32_t value, int distance)
{
    return emu_shuffle(value, emu_lane() + distance < 32 ? emu_lane() + distance : emu_lane());
}

static inline uint32_t __reduce_add_sync(unsigned, uint32_t value)
{
    const emu_words *all = emu_exchange(EMU_SHUFFLE, &value, 1);
    uint32_t sum = 0;
    for (int i = 0; i < 32; i++)
        sum += all[i][0];
    return sum;
}

static inline uint32_t __reduce_max_sync(unsigned, uint32_t value)
{
    const emu_words *all = emu_exchange(EMU_SHUFFLE, &value, 1);
    uint32_t most = 0;
    for (int i = 0; i < 32; i++)
        most = all[i][0] > most ? all[i][0] : most;
    return most;
}

static inline uint32_t __reduce_min_sync(unsigned, uint32_t value)
{
    const emu_words *all = emu_exchange(EMU_SHUFFLE, &value, 1);
    uint32_t least = UINT32_MAX;
    for (int i = 0; i < 32; i++)
        least = all[i][0] < least ? all[i][0] : least;
    return least;
}

static inline unsigned __ballot_sync(unsigned, bool vote)
{
    const uint32_t mine = vote;
    const emu_words *all = emu_exchange(EMU_VOTE, &mine, 1);
    unsigned ballot = 0;
    for (int i = 0; i < 32; i++)
        ballot |= all[i][0] << i;
    return ballot;
}

static inline bool __any_sync(unsigned mask, bool vote)
{
    return __ballot_sync(mask, vote) != 0;
}

static inline int __ffs(int word)
{
    return __builtin_ffs(word);
}

static inline uint32_t __popc(uint32_t word)
{
    return (uint32_t)__builtin_popcount(word);
}

static inline int __popcll(uint64_t v)
{
    return __builtin_popcountll(v);
}

static inline uint32_t __umulhi(uint32_t a, uint32_t b)
{
    return (uint32_t)((uint64_t)a * b >> 32);
}

static inline int min(int a, int b)
{
    return a < b ? a : b;
}

static inline int max(int a, int b)
{
    return a > b ? a : b;
}

static inline uint32_t min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static inline uint32_t min(uint32_t a, int b)
{
    return min(a, (uint32_t)b);
}

static inline uint32_t max(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

static inline uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* PTX ISA, "max": of a number and NaN of any kind the number, where C's lets a signalling one
 * through. */
static inline float emu_max(float a, float b)
{
    return std::isnan(a) ? b : std::isnan(b) ? a : std::fmax(a, b);
}
#define fmaxf(a, b) emu_max(a, b)

/* Never fused with what follows. */
static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float2 make_float2(float x, float y)
{
    return {x, y};
}

static inline float4 make_float4(float x, float y, float z, float w)
{
    return {x, y, z, w};
}

static inline uint2 make_uint2(unsigned x, unsigned y)
{
    return {x, y};
}

static inline int4 make_int4(int x, int y, int z, int w)
{
    return {x, y, z, w};
}

static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
    return {x, y, z, w};
}

/* Atomic, and no more: it puts nothing before anything. */
template <typename T, typename CHOOSE> static inline T emu_atomic(T *at, T value, CHOOSE choose)
{
    T old = __atomic_load_n(at, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(at, &old, choose(old, value), false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
    }
    return old;
}

template <typename T, typename V> static inline T atomicAdd(T *at, V value)
{
    return emu_atomic(at, (T)value, [](T a, T b) { return a + b; });
}

template <typename T, typename V> static inline T atomicMin(T *at, V value)
{
    return emu_atomic(at, (T)value, [](T a, T b) { return a < b ? a : b; });
}

template <typename T, typename V> static inline T atomicMax(T *at, V value)
{
    return emu_atomic(at, (T)value, [](T a, T b) { return a > b ? a : b; });
}

template <typename T, typename V> static inline T atomicOr(T *at, V value)
{
    return emu_atomic(at, (T)value, [](T a, T b) { return a | b; });
}

#endif
