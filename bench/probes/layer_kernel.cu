/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probe: an MLA block of DeepSeek-V3 dimensions, 16 heads, as one kernel an H200 stays in from
 * hidden to hidden. README.md beside this says what it measures.
 *
 *   nvcc -std=c++17 -O3 -gencode arch=compute_90a,code=sm_90a -I. -o layer_kernel \
 *        bench/probes/layer_kernel.cu && ./layer_kernel
 */
#include "bench/probes/layer_kernel_attend.cuh"
#include "bench/probes/layer_kernel_truth.cuh"

#include <algorithm>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

#define CHECK(call)                                                                                \
    do {                                                                                           \
        const cudaError_t status = (call);                                                         \
        if (status != cudaSuccess) {                                                               \
            printf("%s: %s\n", #call, cudaGetErrorString(status));                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

enum { LAYERS = 24, REPLAYS = 30 };

/* Even numbers around 0 or 1, their deviation about `scale`. */
static __global__ void fill(uint16_t *to, uint64_t count, float around, float scale, uint32_t seed)
{
    for (uint64_t i = blockIdx.x * 256ull + threadIdx.x; i < count; i += gridDim.x * 256ull) {
        uint32_t h = (uint32_t)i * 2654435761u ^ (uint32_t)(i >> 32) ^ seed * 0x9e3779b9u;
        h = (h ^ h >> 16) * 0x85ebca6bu;
        h = (h ^ h >> 13) * 0xc2b2ae35u;
        h ^= h >> 16;
        const float even = (float)(h >> 8) / 16777216.0f * 2 - 1;
        to[i] = rt_float_bf16(around + scale * 1.732f * even);
    }
}

template <class T> static T *allocate(uint64_t count)
{
    void *memory;
    CHECK(cudaMalloc(&memory, count * sizeof(T)));
    return (T *)memory;
}

static uint16_t *random_numbers(uint64_t count, float around, float scale)
{
    static uint32_t seed;
    uint16_t *memory = allocate<uint16_t>(count);
    fill<<<2048, 256>>>(memory, count, around, scale, ++seed);
    return memory;
}

template <class T> static T *upload(const std::vector<T> &from)
{
    T *memory = allocate<T>(from.size());
    CHECK(cudaMemcpy(memory, from.data(), from.size() * sizeof(T), cudaMemcpyHostToDevice));
    return memory;
}

/* Layers that follow each other, each with weights and a cache of its own. */
template <int B, bool SHORT> struct rig {
    layer_params layer[LAYERS];
    uint32_t longest = 0;
    unsigned char *exchanges[2];
    unsigned long long *stamps;
    cudaStream_t stream;

    explicit rig(const std::vector<uint32_t> &lengths)
    {
        for (uint32_t length : lengths)
            longest = std::max(longest, length);
        layer_params p = {};
        p.pages_per_row = (longest + PAGE - 1) / PAGE;
        std::vector<uint32_t> pages(B * p.pages_per_row);
        for (uint32_t i = 0; i < pages.size(); i++) /* no two neighbours of a row are neighbours */
            pages[i] = i % p.pages_per_row * B + i / p.pages_per_row;
        std::vector<float2> rope(longest * (ROPE / 2));
        for (uint32_t i = 0; i < rope.size(); i++) {
            const double angle = i / (ROPE / 2) * pow(10000.0, -2.0 * (i % (ROPE / 2)) / ROPE);
            rope[i] = make_float2((float)cos(angle), (float)sin(angle));
        }
        p.pages = upload(pages);
        p.lengths = upload(lengths);
        p.rope = upload(rope);
        p.scale_log2 = 0.1352337788608801f * 1.44269504f;
        p.eps = 1e-6f;
        p.flight = 4;
        p.slow = 4;
        p.ahead = 1;
        for (unsigned char *&exchange_memory : exchanges)
            exchange_memory = allocate<unsigned char>(exchange<B, SHORT>::BYTES);
        stamps = allocate<unsigned long long>((uint64_t)LAYERS * BLOCKS * MOMENTS);
        uint16_t *hidden = random_numbers(B * HIDDEN, 0, 1);
        for (int i = 0; i < LAYERS; i++) {
            p.down = random_numbers((uint64_t)DOWN * HIDDEN, 0, 1 / sqrtf(HIDDEN));
            p.up = random_numbers((uint64_t)HEADS * (NOPE + ROPE) * Q_LORA, 0, 1 / sqrtf(Q_LORA));
            p.kv_b =
                random_numbers((uint64_t)HEADS * (NOPE + VALUE) * KV_LORA, 0, 1 / sqrtf(KV_LORA));
            p.o = random_numbers((uint64_t)HIDDEN * OUT, 0, 1 / sqrtf(OUT));
            p.hidden_norm = random_numbers(HIDDEN, 1, 0.2f);
            p.q_norm = random_numbers(Q_LORA, 1, 0.2f);
            p.kv_norm = random_numbers(KV_LORA, 1, 0.2f);
            p.cache = random_numbers((uint64_t)pages.size() * PAGE * TOKEN, 0, 1);
            p.hidden = hidden;
            p.out = hidden = allocate<uint16_t>(B * HIDDEN);
            p.exchange = exchanges[i % 2];
            p.other = exchanges[(i + 1) % 2];
            layer[i] = p;
        }
        CHECK(cudaStreamCreate(&stream));
        CHECK(cudaDeviceSynchronize());
    }

    void blank(void)
    {
        for (unsigned char *exchange_memory : exchanges)
            CHECK(cudaMemset(exchange_memory, 0xff, exchange<B, SHORT>::BYTES));
        CHECK(cudaDeviceSynchronize());
    }

    template <bool WAITS> void launch(bool programmatic, bool stamped)
    {
        const auto kernel = layer_kernel<B, SHORT, WAITS>;
        CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                   SHARED_BYTES));
        cudaLaunchAttribute early = {};
        early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
        early.val.programmaticStreamSerializationAllowed = 1;
        cudaLaunchConfig_t config = {};
        config.gridDim = dim3(BLOCKS);
        config.blockDim = dim3(THREADS);
        config.dynamicSmemBytes = SHARED_BYTES;
        config.stream = stream;
        config.attrs = &early;
        config.numAttrs = programmatic ? 1 : 0;
        for (int i = 0; i < LAYERS; i++) {
            layer_params p = layer[i];
            p.stamps = stamped ? stamps + (uint64_t)i * BLOCKS * MOMENTS : nullptr;
            CHECK(cudaLaunchKernelEx(&config, kernel, p));
        }
    }

    template <bool WAITS> cudaGraphExec_t capture(bool programmatic, bool stamped)
    {
        cudaGraph_t graph;
        cudaGraphExec_t made;
        CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
        launch<WAITS>(programmatic, stamped);
        CHECK(cudaStreamEndCapture(stream, &graph));
        CHECK(cudaGraphInstantiate(&made, graph, 0));
        return made;
    }
};

template <class T> static std::vector<T> download(const T *from, uint64_t count)
{
    std::vector<T> to(count);
    CHECK(cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
    return to;
}

static float float_of(float v)
{
    return v;
}

static float float_of(uint16_t bits)
{
    const uint32_t word = (uint32_t)bits << 16;
    float v;
    memcpy(&v, &word, sizeof(v));
    return v;
}

/* The greatest difference as a part of what the truth has on average. `got` has `of` numbers of
 * each `pitch`, the truth no others. */
template <class T>
static bool agree(const char *what, const T *got, uint32_t pitch, const float *truth, uint32_t of,
                  uint32_t count)
{
    const std::vector<T> g = download(got, (uint64_t)(count - 1) * pitch + of);
    const std::vector<float> y = download(truth, (uint64_t)count * of);
    double squares = 0, worst = 0;
    for (float v : y)
        squares += (double)v * v;
    const double mean = sqrt(squares / y.size());
    for (uint32_t i = 0; i < count; i++)
        for (uint32_t j = 0; j < of; j++) {
            const double off = fabs(float_of(g[(uint64_t)i * pitch + j]) - y[i * of + j]) / mean;
            if (!(off <= worst)) /* no number is the worst */
                worst = off;
        }
    const bool is_right = worst < 0.04;
    printf("  %-8s off by %.4f of %.4f%s\n", what, worst, mean, is_right ? "" : "  WRONG");
    return is_right;
}

static product_truth truth_of(const uint16_t *x, uint32_t x_pitch, const uint16_t *w, uint32_t k,
                              float *y)
{
    product_truth p = {};
    p.x = x;
    p.x_pitch = x_pitch;
    p.w = w;
    p.w_of_row = p.k = k;
    p.w_of_k = 1;
    p.eps = 1e-6f;
    p.y = y;
    return p;
}

/* What the last layer of a run left, step by step. */
template <int B, bool SHORT> static bool check(const rig<B, SHORT> &r)
{
    const layer_params &p = r.layer[LAYERS - 1];
    const auto left = [&](uint32_t at) { return (const uint16_t *)(p.exchange + at); };
    const uint16_t *down = left(exchange<B, SHORT>::DOWN_AT),
                   *nope = left(exchange<B, SHORT>::NOPE_AT);
    const uint16_t *q = left(exchange<B, SHORT>::Q_AT), *o = left(exchange<B, SHORT>::O_AT);
    const uint16_t *v = left(exchange<B, SHORT>::V_AT);
    float *y = allocate<float>(B * HEADS * TOKEN), *token = allocate<float>(B * TOKEN);
    const uint32_t of_q = NOPE + ROPE;

    product_truth t = truth_of(p.hidden, HIDDEN, p.down, HIDDEN, y);
    t.norm = p.hidden_norm;
    product_is<<<dim3(DOWN, B), 128>>>(t);
    bool is_right = agree("qkv_a", down, DOWN, y, DOWN, B);
    t = truth_of(down, DOWN, p.up, Q_LORA, y);
    t.norm = p.q_norm;
    product_is<<<dim3(HEADS * of_q, B), 128>>>(t);
    turn_is<<<dim3(HEADS, B), ROPE / 2>>>(p, y, of_q);
    for (uint32_t i = 0; i < B * HEADS; i += B * HEADS - 1) {
        is_right &= agree("q_b", nope + i * NOPE, NOPE, y + i * of_q, NOPE, 1);
        is_right &= agree("q RoPE", q + i * TOKEN + KV_LORA, ROPE, y + i * of_q + NOPE, ROPE, 1);
    }
    t = truth_of(nope, HEADS * NOPE, p.kv_b, NOPE, y);
    t.x_of_z = NOPE;
    t.w_of_z = (NOPE + VALUE) * KV_LORA;
    t.w_of_row = 1;
    t.w_of_k = KV_LORA;
    product_is<<<dim3(KV_LORA, B, HEADS), 128>>>(t);
    is_right &= agree("w_uk", q, TOKEN, y, KV_LORA, B * HEADS);
    token_is<<<B, 128>>>(p, down, y);
    turn_is<<<dim3(1, B), ROPE / 2>>>(p, y, TOKEN);
    read_token<<<B, 128>>>(p, token);
    is_right &= agree("append", (const float *)token, TOKEN, y, TOKEN, B);
    CHECK(cudaFuncSetAttribute(attend_is, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               (int)r.longest * 4));
    attend_is<<<dim3(HEADS, B), 128, r.longest * 4>>>(p, q, y);
    is_right &= agree("attend", o, KV_LORA, y, KV_LORA, B * HEADS);
    t = truth_of(o, HEADS * KV_LORA, p.kv_b + NOPE * KV_LORA, KV_LORA, y);
    t.x_of_z = KV_LORA;
    t.w_of_z = (NOPE + VALUE) * KV_LORA;
    product_is<<<dim3(VALUE, B, HEADS), 128>>>(t);
    is_right &= agree("w_uv", v, OUT, y, OUT, B);
    product_is<<<dim3(HIDDEN, B), 128>>>(truth_of(v, OUT, p.o, OUT, y));
    std::vector<float> sum = download(y, B * HIDDEN);
    const std::vector<uint16_t> before = download(p.hidden, B * HIDDEN);
    for (uint32_t i = 0; i < B * HIDDEN; i++)
        sum[i] += float_of(before[i]);
    CHECK(cudaMemcpy(y, sum.data(), sum.size() * 4, cudaMemcpyHostToDevice));
    is_right &= agree("o_proj", p.out, HIDDEN, y, HIDDEN, B);
    CHECK(cudaDeviceSynchronize());
    return is_right;
}

/* us a layer: the best and the middle one of the replays. */
static void measure(const char *what, cudaGraphExec_t graph, cudaStream_t stream)
{
    cudaEvent_t begin, end;
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    std::vector<float> us;
    for (int i = 0; i < REPLAYS; i++) {
        float ms;
        CHECK(cudaEventRecord(begin, stream));
        CHECK(cudaGraphLaunch(graph, stream));
        CHECK(cudaEventRecord(end, stream));
        CHECK(cudaEventSynchronize(end));
        CHECK(cudaEventElapsedTime(&ms, begin, end));
        us.push_back(ms * 1000 / LAYERS);
    }
    std::sort(us.begin(), us.end());
    printf("  %-28s %.2f us a layer, at best %.2f\n", what, us[REPLAYS / 2], us[0]);
}

/* Of each moment, when blocks were there behind the last block's end in the layer before: the
 * middle one and the last, each the middle of layers. */
template <int B, bool SHORT> static void tell_moments(const rig<B, SHORT> &r)
{
    static const char *const name[MOMENTS] = {
        "entered",   "waited",       "qkv_a: x",    "qkv_a: sums",  "qkv_a: out",
        "q_b: x",    "q_b: sums",    "q_b: out",    "w_uk: x",      "w_uk: out",
        "attend: q", "attend: sums", "attend: out", "combine: in",  "combine: out",
        "w_uv: x",   "w_uv: out",    "o_proj: x",   "o_proj: sums", "left"};
    const std::vector<unsigned long long> all =
        download(r.stamps, (uint64_t)LAYERS * BLOCKS * MOMENTS);
    for (int m = 0; m < MOMENTS; m++) {
        const int blocks = m >= UP_HERE && m <= UP_STORED ? ASKERS : SHARERS;
        std::vector<double> middle, last;
        for (int i = 2; i < LAYERS; i++) {
            const unsigned long long *of = &all[(uint64_t)i * BLOCKS * MOMENTS];
            unsigned long long begin = 0;
            for (int block = 0; block < BLOCKS; block++)
                begin = std::max(begin, of[(block - BLOCKS) * MOMENTS + LEFT]);
            std::vector<double> us;
            for (int block = 0; block < blocks; block++)
                us.push_back((double)(int64_t)(of[block * MOMENTS + m] - begin) / 1000);
            std::sort(us.begin(), us.end());
            middle.push_back(us[blocks / 2]);
            last.push_back(us[blocks - 1]);
        }
        std::sort(middle.begin(), middle.end());
        std::sort(last.begin(), last.end());
        printf("  %-14s %7.2f %7.2f\n", name[m], middle[middle.size() / 2], last[last.size() / 2]);
    }
}

template <int B, bool SHORT>
static void set(rig<B, SHORT> &r, uint32_t flight, uint32_t slow, uint32_t ahead, uint32_t touch)
{
    for (layer_params &p : r.layer) {
        p.flight = flight;
        p.slow = slow;
        p.ahead = ahead;
        p.touch = touch;
    }
}

template <int B, bool SHORT> static void sweep(rig<B, SHORT> &r)
{
    for (uint32_t flight : {3, 4, 8})
        for (uint32_t slow : {1, 2, 3, 8})
            for (uint32_t ahead : {0, 1, 2}) {
                set(r, flight, slow, ahead, 0);
                printf("  %u in flight, %u slow, %u ahead", flight, slow, ahead);
                measure("", r.template capture<true>(true, false), r.stream);
            }
    set(r, 4, 4, 1, 0);
    for (layer_params &p : r.layer)
        p.eager = 1;
    measure("eager pieces", r.template capture<true>(true, false), r.stream);
    for (layer_params &p : r.layer)
        p.eager = 0;
    set(r, 4, 4, 1, 1);
    measure("touched", r.template capture<true>(true, false), r.stream);
    set(r, 4, 4, 1, 0);
    measure("plain edges", r.template capture<true>(false, false), r.stream);
    measure("with moments", r.template capture<true>(true, true), r.stream);
    tell_moments(r);
    measure("nobody waits for another", r.template capture<false>(true, true), r.stream);
    tell_moments(r);
    r.blank();
}

template <int B, bool SHORT> static bool probe(const std::vector<uint32_t> &lengths, bool is_timed)
{
    printf("%d rows of at most %u tokens, pieces of %d bytes a number\n", B,
           *std::max_element(lengths.begin(), lengths.end()), SHORT ? 2 : 4);
    rig<B, SHORT> r(lengths);
    r.blank();
    r.template launch<true>(false, false);
    CHECK(cudaDeviceSynchronize());
    bool is_right = check(r);
    const std::vector<uint16_t> eager = download(r.layer[LAYERS - 1].out, B * HIDDEN);
    cudaGraphExec_t graph = r.template capture<true>(true, false);
    for (int i = 0; i < 3; i++)
        CHECK(cudaGraphLaunch(graph, r.stream));
    CHECK(cudaDeviceSynchronize());
    const std::vector<uint16_t> replayed = download(r.layer[LAYERS - 1].out, B * HIDDEN);
    const bool is_same = eager == replayed;
    printf("  replay %s eager, bit by bit\n", is_same ? "is" : "IS NOT");
    if (is_timed)
        sweep(r);
    return is_right && is_same;
}

int main(int count, char **)
{
    const std::vector<uint32_t> even(8, 4096), odd = {1, 2, 64, 65, 500, 1023, 3000, 4097};
    if (count > 1) /* for a profiler: little, and no times */
        return probe<1, true>({4096}, false) ? 0 : 1;
    bool is_right = probe<1, true>({4096}, true);
    is_right &= probe<8, true>(even, true);
    is_right &= probe<1, false>({4096}, true);
    is_right &= probe<8, false>(even, true);
    is_right &= probe<1, true>({1}, false);
    is_right &= probe<8, true>(odd, false);
    is_right &= probe<8, false>(odd, false);
    printf("%s\n", is_right ? "right" : "WRONG");
    return is_right ? 0 : 1;
}
