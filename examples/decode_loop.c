/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decode loop to copy: sequences of different lengths decode together, the host stays one step
 * ahead of the device, and a sequence that is done leaves the batch.
 *
 *   cc decode_loop.c $(pkg-config --cflags --libs replayrt)
 *   ./a.out [auto|host|cuda:N]
 *
 * The model around the attention is missing here, so q and latent are made up and written once; in
 * an engine, stages put the kernels that compute them into the graph: see own_kernels.
 */
#include <replayrt/rt.h>

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#define SCALE 0.0721687836 /* (128 + 64)^-0.5: a head before it was absorbed was that wide */
enum { HEADS = 8, RANK = 512, ROPE = 64, WIDTH = RANK + ROPE, LAYERS = 2, SEQUENCES = 5 };

static bool good(rt_runtime *runtime, enum rt_status status)
{
    if (status != RT_OK)
        fprintf(stderr, "decode_loop: %s\n", rt_last_error(runtime)->message);
    return status == RT_OK;
}

/* ---- the loop ----------------------------------------------------------------------------- */

/* A full ring is no failure: an older step is waited for, and the step is tried once more. */
static bool step_when_there_is_room(rt_runtime *runtime, const struct rt_step_params *step,
                                    uint64_t older, uint64_t *ticket)
{
    enum rt_status status = rt_step(runtime, step, ticket);
    if (status == RT_ERR_BUSY && older && good(runtime, rt_wait(runtime, older, UINT64_MAX)))
        status = rt_step(runtime, step, ticket);
    return good(runtime, status);
}

static bool decode(rt_runtime *runtime, uint32_t *steps)
{
    rt_seq seqs[SEQUENCES];
    uint32_t wanted[SEQUENCES], live = 0;
    for (; live < SEQUENCES; live++) {
        wanted[live] = 30 + 12 * live;
        if (!good(runtime, rt_seq_open(runtime, NULL, &seqs[live])))
            return false;
    }
    uint64_t ticket, previous = 0;
    for (*steps = 0; live > 0; ++*steps) {
        const struct rt_step_params step = {.struct_size = sizeof step, .rows = live, .seqs = seqs};
        if (!step_when_there_is_room(runtime, &step, previous, &ticket))
            return false;
        /* The device works on this step while the host looks at the one before it. */
        if (*steps > 0 && !good(runtime, rt_wait(runtime, previous, UINT64_MAX)))
            return false;
        previous = ticket;
        for (uint32_t row = live; row-- > 0;) {
            if (*steps + 1 < wanted[row])
                continue;
            if (!good(runtime, rt_seq_close(runtime, seqs[row])))
                return false;
            live--;
            seqs[row] = seqs[live];
            wanted[row] = wanted[live];
        }
    }
    return good(runtime, rt_wait(runtime, previous, UINT64_MAX));
}

/* ---- what surrounds it --------------------------------------------------------------------- */

/* bf16 numbers of either sign, 2^-7 to 1 in size, the same on every machine. */
static void make_up(uint32_t seed, size_t count, uint16_t *out)
{
    for (size_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        const uint32_t exponent = 120 + (seed >> 16) % 7;
        out[i] = (uint16_t)((seed >> 31) << 15 | exponent << 7 | (seed >> 24 & 0x7f));
    }
}

/* Every row gets a query of its own and the same latent, so every token's latent is the same, and
 * its attention must give that latent back, whatever the query. */
static bool write_inputs(rt_runtime *runtime, const uint16_t *latent)
{
    uint16_t q[HEADS * WIDTH];
    for (uint32_t row = 0; row < SEQUENCES; row++) {
        make_up(row, (size_t)HEADS * WIDTH, q);
        if (!good(runtime, rt_tensor_write(runtime, "q", 0, row * sizeof q, q, sizeof q)) ||
            !good(runtime, rt_tensor_write(runtime, "latent", 0, row * WIDTH * sizeof *latent,
                                           latent, WIDTH * sizeof *latent)))
            return false;
    }
    return true;
}

/* The last step's only row against the latent: a bf16 or two beside it, counted by their bits. */
static bool check_output(rt_runtime *runtime, const uint16_t *latent)
{
    uint16_t out[HEADS * RANK];
    if (!good(runtime, rt_tensor_read(runtime, "out", 0, 0, out, sizeof out)))
        return false;
    for (uint32_t i = 0; i < HEADS * RANK; i++) {
        const uint16_t should = latent[i % RANK];
        if (abs(out[i] - should) > 2) {
            fprintf(stderr, "decode_loop: head %u element %u is bf16 0x%04x, not 0x%04x\n",
                    i / RANK, i % RANK, out[i], should);
            return false;
        }
    }
    return true;
}

static bool run(rt_runtime *runtime)
{
    uint16_t latent[WIDTH];
    uint32_t steps;
    make_up(SEQUENCES, WIDTH, latent);
    if (!write_inputs(runtime, latent) || !decode(runtime, &steps) ||
        !check_output(runtime, latent))
        return false;
    struct rt_stats stats = {.struct_size = sizeof stats};
    struct rt_info info = {.struct_size = sizeof info};
    if (!good(runtime, rt_get_stats(runtime, &stats)) ||
        !good(runtime, rt_get_info(runtime, &info)))
        return false;
    printf("%u steps of %d layers on %s, %.2f us of host time each\n", steps, LAYERS, info.device,
           (double)stats.host_ns_total / steps / 1e3);
    return true;
}

int main(int argc, char **argv)
{
    struct rt_config config;
    rt_config_default(&config);
    config.geometry = (struct rt_geometry){.heads = HEADS,
                                           .kv_lora_rank = RANK,
                                           .qk_rope_head_dim = ROPE,
                                           .layers = LAYERS,
                                           .softmax_scale = SCALE};
    config.max_length = 128;
    config.max_sequences = SEQUENCES;
    config.pages = 16;
    if (argc > 1)
        (void)snprintf(config.device, sizeof config.device, "%s", argv[1]);

    struct rt_error error = {0};
    rt_runtime *runtime;
    const struct rt_create_params params = {.struct_size = sizeof params, .config = &config};
    if (rt_create(&params, &runtime, &error) != RT_OK) {
        fprintf(stderr, "decode_loop: %s\n", error.message);
        return 1;
    }
    const bool done = run(runtime);
    rt_destroy(&runtime);
    return done ? 0 : 1;
}
