/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/verify.h"

#include "tools/chance.h"
#include "tools/random_weights.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Longest sequence of a run, in pages: enough for every page edge, short enough to be quick. */
#define TEST_PAGES 4
/* Above this, all layers read one set of inputs: filling them would be the whole run time. */
#define PER_LAYER_BYTES (4u << 20)

#define SIDES 2
enum side { REPLAY = 0, EAGER = 1 };
static const char *const side_names[SIDES] = {"replay", "eager"};

struct tracked {
    rt_seq seqs[SIDES];
    uint32_t length;
    bool open;
};

/* A tensor of a step's data. */
struct data {
    const char *name;
    bool given;           /* live rows are written in front of a step */
    bool made;            /* compared behind it */
    bool zero;            /* padded rows are zero behind it, live ones hold no NaN */
    uint64_t token_bytes; /* of one token of a row */
    uint32_t rows;        /* that it has */
};

static const struct data attention_data[] = {
    {.name = "q", .given = true},
    {.name = "latent", .given = true},
    {.name = "out", .made = true, .zero = true},
    {.name = "lse", .made = true},
};
static const struct data block_data[] = {
    {.name = "hidden", .given = true, .made = true, .zero = true},
    {.name = "q", .made = true},
    {.name = "out", .made = true, .zero = true},
    {.name = "lse", .made = true},
    {.name = "residual", .made = true}, /* last: with input_norm alone */
};
#define MOST_DATA (sizeof(block_data) / sizeof(block_data[0]))

struct run {
    struct rt_config config;
    struct random_weights weights; /* of blocks, the same for both sides */
    rt_runtime *rts[SIDES];
    struct data data[MOST_DATA];
    uint32_t data_count;
    struct tracked *tracked; /* [max_sequences] */
    uint32_t longest;        /* tokens of a sequence in this run */
    uint32_t data_layers;    /* layers with q, latent, out, lse of their own */
    struct chance chance;
    unsigned char *noise; /* random bf16: inputs are windows of it */
    uint64_t noise_bytes;
    unsigned char *poison; /* 0xff */
    unsigned char *seen[SIDES];
    uint64_t scratch_bytes;
    struct verify_report *report;
    struct rt_error *error;
};

static enum rt_status say(struct rt_error *error, enum rt_status status, const char *what,
                          const char *detail)
{
    if (error) {
        error->status = status;
        snprintf(error->message, sizeof(error->message), "%s: %.440s", what, detail);
    }
    return status;
}

/* Forwards a library failure of one side. */
static enum rt_status check(struct run *run, int side, enum rt_status status)
{
    if (status == RT_OK)
        return RT_OK;
    return say(run->error, status, side_names[side], rt_last_error(run->rts[side])->message);
}

#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum rt_status try_status_ = (expr);                                                       \
        if (try_status_ != RT_OK)                                                                  \
            return try_status_;                                                                    \
    } while (0)

static uint32_t below(struct run *run, uint32_t bound)
{
    return (uint32_t)((chance_draw(&run->chance) >> 32) * bound >> 32);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static uint64_t query_row_bytes(const struct run *run)
{
    const struct rt_geometry *g = &run->config.geometry;
    return (uint64_t)g->heads * (g->kv_lora_rank + g->qk_rope_head_dim) * sizeof(uint16_t);
}

/* The user's configuration with a pool and lengths that make the run quick. */
static void shrink(struct run *run)
{
    struct rt_config *c = &run->config;
    uint32_t q_max = c->query_lens[c->query_len_count - 1];
    uint32_t largest = c->batch_sizes[c->batch_size_count - 1];
    run->longest = TEST_PAGES * c->page_size;
    if (run->longest > c->max_length)
        run->longest = c->max_length;
    /* a few sequences more than rows, so that a step is always a choice */
    uint32_t sequences = largest + largest / 4 + 2;
    if (c->max_sequences > sequences)
        c->max_sequences = sequences;
    c->pages = (uint64_t)c->max_sequences * (TEST_PAGES + 1);
    uint64_t inputs = query_row_bytes(run) * q_max * largest * c->geometry.layers;
    /* a block's data are handed from layer to layer */
    c->tensors = inputs <= PER_LAYER_BYTES && !c->layer ? RT_TENSORS_PER_LAYER : RT_TENSORS_SHARED;
    run->data_layers = c->tensors == RT_TENSORS_PER_LAYER ? c->geometry.layers : 1;
}

static void choose_data(struct run *run)
{
    const struct rt_config *c = &run->config;
    const uint32_t blocks = MOST_DATA - (c->input_norm ? 0 : 1);
    run->data_count = c->layer ? blocks : sizeof(attention_data) / sizeof(attention_data[0]);
    memcpy(run->data, c->layer ? block_data : attention_data,
           run->data_count * sizeof(run->data[0]));
}

/* The largest of all that is written and read. */
static enum rt_status measure_tensors(struct run *run)
{
    const char *const others[] = {"kv", "block_table"};
    struct rt_tensor t = {.struct_size = sizeof(t)};
    for (uint32_t i = 0; i < run->data_count; i++) {
        struct data *d = &run->data[i];
        TRY(check(run, REPLAY, rt_tensor(run->rts[REPLAY], d->name, 0, &t)));
        d->rows = (uint32_t)t.shape[0];
        d->token_bytes = t.bytes / (t.shape[0] * t.shape[1]);
        run->scratch_bytes = t.bytes > run->scratch_bytes ? t.bytes : run->scratch_bytes;
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        TRY(check(run, REPLAY, rt_tensor(run->rts[REPLAY], others[i], 0, &t)));
        run->scratch_bytes = t.bytes > run->scratch_bytes ? t.bytes : run->scratch_bytes;
    }
    return RT_OK;
}

static void fill_noise(struct run *run)
{
    uint16_t *words = (uint16_t *)(void *)run->noise;
    for (uint64_t i = 0; i < run->noise_bytes / 2; i++) {
        uint64_t r = chance_draw(&run->chance);
        /* sign, exponent 2^-8 … 2^0, mantissa; two of them are such an f32 too */
        words[i] = (uint16_t)((r >> 3 & 0x8000) | (119 + (r >> 20) % 9) << 7 | (r >> 40 & 0x7f));
    }
}

static enum rt_status set_up(struct run *run, uint64_t seed)
{
    if (run->config.layer)
        TRY(random_weights_create(&run->config, seed, &run->weights, run->error));
    for (int side = 0; side < SIDES; side++) {
        const struct rt_create_params params = {
            .struct_size = sizeof(params), .config = &run->config, .weights = run->weights.table};
        TRY(rt_create(&params, &run->rts[side], run->error));
    }
    struct rt_info info = {.struct_size = sizeof(info)};
    if (rt_get_info(run->rts[0], &info) == RT_OK)
        memcpy(run->report->device, info.device, sizeof(info.device));
    TRY(measure_tensors(run));
    run->noise_bytes = 2 * run->scratch_bytes;
    run->tracked = calloc(run->config.max_sequences, sizeof(*run->tracked));
    run->noise = malloc(run->noise_bytes);
    run->poison = malloc(run->scratch_bytes);
    for (int side = 0; side < SIDES; side++)
        run->seen[side] = malloc(run->scratch_bytes);
    if (!run->tracked || !run->noise || !run->poison || !run->seen[0] || !run->seen[1])
        return say(run->error, RT_ERR_NOMEM, "verify", "out of host memory");
    memset(run->poison, 0xff, run->scratch_bytes);
    fill_noise(run);
    for (int side = 0; side < SIDES; side++)
        for (uint32_t layer = 0; layer < run->config.geometry.layers; layer++) {
            struct rt_tensor t = {.struct_size = sizeof(t)};
            TRY(check(run, side, rt_tensor(run->rts[side], "kv", layer, &t)));
            TRY(check(run, side,
                      rt_tensor_write(run->rts[side], "kv", layer, 0, run->poison, t.bytes)));
        }
    return RT_OK;
}

static void tear_down(struct run *run)
{
    for (int side = 0; side < SIDES; side++) {
        rt_destroy(&run->rts[side]);
        free(run->seen[side]);
    }
    random_weights_destroy(&run->weights);
    free(run->poison);
    free(run->noise);
    free(run->tracked);
}

/* ---- the random history ---------------------------------------------------------------------- */

static enum rt_status open_one(struct run *run, struct tracked *t)
{
    for (int side = 0; side < SIDES; side++)
        TRY(check(run, side, rt_seq_open(run->rts[side], NULL, &t->seqs[side])));
    t->open = true;
    t->length = 0;
    return RT_OK;
}

static enum rt_status close_one(struct run *run, struct tracked *t)
{
    for (int side = 0; side < SIDES; side++)
        TRY(check(run, side, rt_seq_close(run->rts[side], t->seqs[side])));
    t->open = false;
    run->report->closes++;
    return RT_OK;
}

static enum rt_status fork_one(struct run *run, struct tracked *from, struct tracked *to)
{
    for (int side = 0; side < SIDES; side++)
        TRY(check(run, side, rt_seq_fork(run->rts[side], from->seqs[side], &to->seqs[side])));
    to->open = true;
    to->length = from->length;
    run->report->forks++;
    return RT_OK;
}

static enum rt_status rewind_one(struct run *run, struct tracked *t)
{
    t->length = below(run, t->length + 1);
    for (int side = 0; side < SIDES; side++)
        TRY(check(run, side, rt_seq_rewind(run->rts[side], t->seqs[side], t->length)));
    run->report->rewinds++;
    return RT_OK;
}

/* Closes it and opens another on the first tokens of its pages, which are the caller's between. */
static enum rt_status reopen_one(struct run *run, struct tracked *t)
{
    const uint32_t page_size = run->config.page_size, length = below(run, t->length + 1);
    int32_t pages[TEST_PAGES];
    uint32_t held, shared = (length + page_size - 1) / page_size;
    const struct rt_seq_params params = {.struct_size = sizeof(params),
                                         .length = length,
                                         .last_token = -1,
                                         .shared_pages = pages,
                                         .shared_count = shared};
    for (int side = 0; side < SIDES; side++) {
        rt_runtime *rt = run->rts[side];
        TRY(check(run, side, rt_seq_pages(rt, t->seqs[side], pages, TEST_PAGES, &held)));
        TRY(check(run, side, rt_pages_retain(rt, pages, shared)));
        TRY(check(run, side, rt_seq_close(rt, t->seqs[side])));
        TRY(check(run, side, rt_seq_open(rt, &params, &t->seqs[side])));
        TRY(check(run, side, rt_pages_release(rt, pages, shared)));
    }
    t->length = length;
    run->report->closes++;
    return RT_OK;
}

/* One slot's turn before a step: most of the time nothing. */
static enum rt_status disturb(struct run *run, uint32_t q)
{
    struct tracked *t = &run->tracked[below(run, run->config.max_sequences)];
    struct tracked *other = &run->tracked[below(run, run->config.max_sequences)];
    switch (below(run, 16)) {
    case 0:
        return t->open ? close_one(run, t) : RT_OK;
    case 1:
        return t->open ? rewind_one(run, t) : RT_OK;
    case 2:
        if (!t->open || t == other || t->length + q > run->longest)
            return RT_OK;
        if (other->open)
            TRY(close_one(run, other));
        return fork_one(run, t, other);
    case 3:
        return t->open ? reopen_one(run, t) : RT_OK;
    default:
        return RT_OK;
    }
}

/* `live` distinct open sequences with room for q tokens, in random order. */
static enum rt_status choose_rows(struct run *run, uint32_t live, uint32_t q, uint32_t *rows)
{
    uint32_t count = run->config.max_sequences;
    uint32_t start = below(run, count), found = 0;
    for (uint32_t i = 0; i < count && found < live; i++) {
        uint32_t index = (start + i) % count;
        struct tracked *t = &run->tracked[index];
        if (t->open && t->length + q > run->longest)
            TRY(close_one(run, t));
        if (!t->open)
            TRY(open_one(run, t));
        rows[found++] = index;
    }
    for (uint32_t i = live; i > 1; i--) {
        uint32_t j = below(run, i), swap = rows[i - 1];
        rows[i - 1] = rows[j];
        rows[j] = swap;
    }
    return RT_OK;
}

/* ---- one step on both sides ------------------------------------------------------------------ */

/*
 * Rows of a step's data. Attention's lie behind each other, whatever replays they are of. Blocks'
 * are rows 0..bucket - 1 of each replay, so behind a step of several the last one's are seen, and
 * above them what earlier ones left; what one replay made of hidden is what the next is given.
 */
struct shape {
    uint32_t q;
    uint32_t given;       /* rows that are written with numbers; above them poison */
    uint32_t rows;        /* that are written, and compared */
    uint32_t live, batch; /* of the last replay, or of all: zero from live to batch */
};

static struct shape shape_of(const struct run *run, uint32_t batch, uint32_t q, uint32_t live)
{
    const struct rt_config *c = &run->config;
    const uint32_t largest = c->batch_sizes[c->batch_size_count - 1];
    struct shape s = {.q = q, .given = live, .rows = batch, .live = live, .batch = batch};
    if (!c->layer)
        return s;
    uint32_t bucket = 0;
    s.given = live < largest ? live : largest;
    s.rows = largest;
    s.live = live ? (live - 1) % largest + 1 : 0;
    while (c->batch_sizes[bucket] < s.live)
        bucket++;
    s.batch = c->batch_sizes[bucket];
    return s;
}

/* Windows of the noise, where they are given; the rest is NaN. */
static enum rt_status write_data(struct run *run, const struct data *d, uint32_t layer,
                                 const struct shape *s)
{
    const uint64_t row_bytes = s->q * d->token_bytes, live = d->given ? s->given * row_bytes : 0;
    const uint64_t padding = s->rows * row_bytes - live;
    uint64_t offset = 0;
    if (d->given)
        offset = (chance_draw(&run->chance) % (run->noise_bytes - live + 1)) & ~1ull;
    for (int side = 0; side < SIDES; side++) {
        rt_runtime *rt = run->rts[side];
        TRY(check(run, side, rt_tensor_write(rt, d->name, layer, 0, run->noise + offset, live)));
        TRY(check(run, side, rt_tensor_write(rt, d->name, layer, live, run->poison, padding)));
    }
    return RT_OK;
}

static enum rt_status prepare(struct run *run, const struct shape *s)
{
    for (uint32_t layer = 0; layer < run->data_layers; layer++)
        for (uint32_t i = 0; i < run->data_count; i++)
            TRY(write_data(run, &run->data[i], layer, s));
    return RT_OK;
}

/* A step's rows, and what it says of each. */
struct batch {
    uint32_t *rows;  /* [live] of run.tracked */
    int32_t *accept; /* [live] */
    int32_t *tokens; /* [live, query_len] */
    rt_seq *seqs;    /* [live] of one side */
};

static enum rt_status launch(struct run *run, uint32_t live, uint32_t q, const struct batch *b)
{
    for (int side = 0; side < SIDES; side++) {
        for (uint32_t i = 0; i < live; i++)
            b->seqs[i] = run->tracked[b->rows[i]].seqs[side];
        const struct rt_step_params p = {.struct_size = sizeof(p),
                                         .flags = side == EAGER ? RT_STEP_EAGER : 0,
                                         .rows = live,
                                         .query_len = q,
                                         .seqs = b->seqs,
                                         .tokens = b->tokens,
                                         .accept = b->accept};
        uint64_t ticket;
        TRY(check(run, side, rt_step(run->rts[side], &p, &ticket)));
        TRY(check(run, side, rt_wait(run->rts[side], ticket, UINT64_MAX)));
    }
    return RT_OK;
}

static enum rt_status compare(struct run *run, const char *name, uint32_t layer, uint64_t bytes,
                              const struct shape *s)
{
    for (int side = 0; side < SIDES; side++)
        TRY(check(run, side,
                  rt_tensor_read(run->rts[side], name, layer, 0, run->seen[side], bytes)));
    run->report->bytes_compared += bytes;
    if (!memcmp(run->seen[REPLAY], run->seen[EAGER], bytes))
        return RT_OK;
    uint64_t at = 0;
    while (run->seen[REPLAY][at] == run->seen[EAGER][at])
        at++;
    char text[256];
    snprintf(text, sizeof(text),
             "tensor %s, layer %u, byte %" PRIu64 ": replay 0x%02x, eager 0x%02x; batch %u, query "
             "length %u, %u live, step %" PRIu64,
             name, layer, at, run->seen[REPLAY][at], run->seen[EAGER][at], s->batch, s->q, s->live,
             run->report->steps);
    return say(run->error, RT_ERR_INTERNAL, "difference", text);
}

static bool holds_nan(const struct run *run, const unsigned char *at, uint64_t bytes)
{
    const bool f32 = run->config.precision == RT_PRECISION_F32;
    for (uint64_t i = 0; i < bytes; i += f32 ? sizeof(uint32_t) : sizeof(uint16_t)) {
        uint32_t bits;
        uint16_t half; /* of an f32 the upper one */
        memcpy(&half, at + i, sizeof(half));
        if (f32)
            memcpy(&bits, at + i, sizeof(bits));
        else
            bits = (uint32_t)half << 16;
        if ((bits & 0x7fffffff) > 0x7f800000)
            return true;
    }
    return false;
}

/* Both sides agree by now; one of them is looked at. */
static enum rt_status check_padding(struct run *run, const struct data *d, uint32_t layer,
                                    const struct shape *s)
{
    const uint64_t row_bytes = s->q * d->token_bytes, from = s->live * row_bytes;
    const uint64_t bytes = s->batch * row_bytes;
    unsigned char *seen = run->seen[REPLAY];
    TRY(check(run, REPLAY, rt_tensor_read(run->rts[REPLAY], d->name, layer, 0, seen, bytes)));
    for (uint64_t i = from; i < bytes; i++)
        if (seen[i])
            return say(run->error, RT_ERR_INTERNAL, "a padded row is not zero", d->name);
    if (holds_nan(run, seen, from))
        return say(run->error, RT_ERR_INTERNAL, "NaN reached a live row", d->name);
    return RT_OK;
}

static enum rt_status compare_data(struct run *run, const struct shape *s)
{
    for (uint32_t layer = 0; layer < run->data_layers; layer++)
        for (uint32_t i = 0; i < run->data_count; i++) {
            const struct data *d = &run->data[i];
            if (d->made)
                TRY(compare(run, d->name, layer, s->rows * s->q * d->token_bytes, s));
            if (d->zero)
                TRY(check_padding(run, d, layer, s));
        }
    return RT_OK;
}

static enum rt_status one_step(struct run *run, uint32_t batch, uint32_t q, uint32_t live,
                               const struct batch *b)
{
    TRY(disturb(run, q));
    TRY(choose_rows(run, live, q, b->rows));
    struct shape s = shape_of(run, batch, q, live);
    for (uint32_t i = 0; i < live; i++)
        b->accept[i] = below(run, 4) ? RT_ACCEPT_ALL : 1 + (int32_t)below(run, q);
    for (uint32_t i = 0; i < live * q; i++)
        b->tokens[i] = (int32_t)below(run, INT32_MAX);
    TRY(prepare(run, &s));
    TRY(launch(run, live, q, b));
    for (uint32_t i = 0; i < live; i++)
        run->tracked[b->rows[i]].length += b->accept[i] ? (uint32_t)b->accept[i] : q;
    TRY(compare(run, "tokens", 0, (uint64_t)live * q * sizeof(*b->tokens), &s));
    TRY(compare_data(run, &s));
    run->report->steps++;
    run->report->rows += live;
    run->report->padded_rows += batch - live;
    return RT_OK;
}

static enum rt_status compare_state(struct run *run, const struct shape *s)
{
    static const char *const names[] = {"block_table", "slot_lengths"};
    struct rt_tensor t = {.struct_size = sizeof(t)};
    for (uint32_t layer = 0; layer < run->config.geometry.layers; layer++) {
        TRY(check(run, REPLAY, rt_tensor(run->rts[REPLAY], "kv", layer, &t)));
        TRY(compare(run, "kv", layer, t.bytes, s));
    }
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        TRY(check(run, REPLAY, rt_tensor(run->rts[REPLAY], names[i], 0, &t)));
        TRY(compare(run, names[i], 0, t.bytes, s));
    }
    return RT_OK;
}

/* ---- all graphs ------------------------------------------------------------------------------ */

/* A run of steps with low < live <= high rows. batch 0: steps of several replays, whose rows end
 * with the live ones as far as this looks. */
struct share {
    uint32_t batch, q, low, high, steps;
};

static enum rt_status one_share(struct run *run, const struct share *share, FILE *progress)
{
    const struct batch b = {
        .rows = calloc(share->high, sizeof(*b.rows)),
        .accept = calloc(share->high, sizeof(*b.accept)),
        .tokens = calloc((size_t)share->high * share->q, sizeof(*b.tokens)),
        .seqs = calloc(share->high, sizeof(*b.seqs)),
    };
    enum rt_status status = RT_OK;
    if (!b.rows || !b.accept || !b.tokens || !b.seqs)
        status = say(run->error, RT_ERR_NOMEM, "verify", "out of host memory");
    for (uint32_t i = 0; i < share->steps && status == RT_OK; i++) {
        uint32_t live = share->low + 1 + below(run, share->high - share->low);
        status = one_step(run, share->batch ? share->batch : live, share->q, live, &b);
    }
    if (status == RT_OK) {
        const struct shape s = shape_of(run, share->batch, share->q, 0);
        status = compare_state(run, &s);
    }
    if (status == RT_OK && progress && share->batch)
        fprintf(progress, "batch %4u  query length %u  %u steps  bitwise equal\n", share->batch,
                share->q, share->steps);
    if (status == RT_OK && progress && !share->batch)
        fprintf(progress, "several replays, query length %u  %u steps  bitwise equal\n", share->q,
                share->steps);
    free(b.seqs);
    free(b.tokens);
    free(b.accept);
    free(b.rows);
    return status;
}

/* Bucket `index`; index batch_size_count stands for batches above the largest. */
static enum rt_status one_graph(struct run *run, uint32_t index, uint32_t q,
                                const struct verify_options *options)
{
    const struct rt_config *c = &run->config;
    bool beyond = index == c->batch_size_count;
    uint32_t batch = beyond ? 0 : c->batch_sizes[index];
    uint32_t low = index ? c->batch_sizes[index - 1] : 0;
    /* a step has a replay for each record of the ring at most */
    uint32_t most = beyond ? low * c->ring_depth : batch;
    uint32_t high = most < c->max_sequences ? most : c->max_sequences;
    if (high <= low || q > run->longest)
        return RT_OK; /* no step of this runtime can have so many rows */
    const struct share share = {
        .batch = batch,
        .q = q,
        .low = low,
        .high = high,
        .steps = options->steps,
    };
    run->report->graphs += !beyond;
    return one_share(run, &share, options->progress);
}

enum rt_status verify_replay(const struct rt_config *config, const struct verify_options *options,
                             struct verify_report *report, struct rt_error *error)
{
    *report = (struct verify_report){0};
    struct run run = {
        .config = *config, .chance = chance_of(options->seed), .report = report, .error = error};
    shrink(&run);
    choose_data(&run);
    enum rt_status status = set_up(&run, options->seed);
    for (uint32_t i = 0; i <= run.config.batch_size_count && status == RT_OK; i++)
        for (uint32_t j = 0; j < run.config.query_len_count && status == RT_OK; j++)
            status = one_graph(&run, i, run.config.query_lens[j], options);
    tear_down(&run);
    return status;
}
