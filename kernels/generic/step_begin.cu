/* SPDX-License-Identifier: Apache-2.0 */
/*
 * step_begin: one record of mapped host memory -> what the rest of the step reads. The rule is in
 * kernels/abi/step.h, the timeline in cycles in docs/schedule.md. One block, first node of the
 * graph.
 *
 *   all         step of ctrl                                          one trip to L2
 *   lanes 0-3   header          \
 *   thread r    row r            > asked for at once, up to the       one trip over the bus
 *   thread v    4 tokens each   /  bucket, before the header is known
 *   thread r    length and last token of row r's slot                 hidden behind the next line
 *   all         tokens and header -> desk -A- check the header
 *   all         ops, where there are any: window -W- op, op, …        two trips each 8 KiB
 *   thread r    check row r, write it
 *               buckets above the block: next rows -R- fetch -R- write
 *   first error                                                       -E-
 *
 *   barrier   makes visible                                   and frees
 *   A         header, tokens, t_begin                         ctrl, whose step all have read
 *   W         a window of ops                                 the window before
 *   O         slots and table lines as the ops left them      -
 *   R         tokens of the next rows                         those before
 *   E         that some thread has an error, and which
 *             order is the first (two barriers then)          -
 *
 * Nothing of the record is read through a cache: see ptx/mapped.cuh.
 */
#include "common/attributes.h"
#include "kernels/abi/step.h"
#include "kernels/device/ptx/mapped.cuh"
#include "kernels/device/ptx/pdl.cuh"
#include "kernels/device/ptx/timer.cuh"
#include "replayrt/rt.h"

#define THREADS RT_STEP_BEGIN_THREADS
#define SCRIBE (THREADS - 1) /* writes ctrl: up to 480 rows its warp has nothing else to do */
#define VECTOR_BYTES 16u
#define HEADER_VECTORS (sizeof(struct rt_record) / VECTOR_BYTES)
#define VECTOR_TOKENS 4u
#define THREAD_TOKEN_VECTORS (RT_MAX_QUERY_LEN / VECTOR_TOKENS)
#define WINDOW_BYTES (THREADS * VECTOR_BYTES)

RT_STATIC_ASSERT(RT_MAX_QUERY_LEN % VECTOR_TOKENS == 0, "a row's tokens fit whole vectors");

/*
 * Errors are ordered: ops by number and position in the op, then rows. Each thread meets its own in
 * order and keeps the first; the block keeps the least.
 */
#define NO_ERROR UINT64_MAX
#define ROW_ORDER(row) (UINT64_C(1) << 63 | (row))
#define OP_ORDER(number, position) ((uint64_t)(number) << 32 | (position))

struct device_error {
    uint64_t order;
    enum rt_device_error kind;
    uint32_t row;
    int64_t value;
};

struct desk {
    struct rt_record header;
    int32_t tokens[THREADS * RT_MAX_QUERY_LEN]; /* [row of this pass, query_len] */
    unsigned char window[WINDOW_BYTES];         /* of ops */
    uint64_t t_begin;
    unsigned long long first_error;
};
RT_STATIC_ASSERT(offsetof(struct desk, tokens) % VECTOR_BYTES == 0, "written in vectors");
RT_STATIC_ASSERT(offsetof(struct desk, window) % VECTOR_BYTES == 0, "written in vectors");
RT_STATIC_ASSERT(sizeof(struct desk) <= 48 * 1024, "static shared memory");

/* A thread's share of a pass, on its way from the host. */
struct arrival {
    struct rt_record_row row;
    uint4 tokens[THREAD_TOKEN_VECTORS];
};

struct slot_state {
    int32_t length, token;
};

static __device__ __forceinline__ void note(struct device_error &error, uint64_t order,
                                            enum rt_device_error kind, uint32_t row, int64_t value)
{
    if (error.order == NO_ERROR)
        error = {order, kind, row, value};
}

static __device__ __forceinline__ bool id_ok(int32_t id, uint32_t count)
{
    return (uint32_t)id < count && id >= 0;
}

static __device__ __forceinline__ const unsigned char *
record_of(const struct rt_step_begin_params &p, uint64_t step)
{
    /* Most rings are a power of two deep; a 64-bit division is 60 ns that nothing hides. */
    const uint32_t mask = p.ring_depth - 1;
    const uint32_t index = (uint32_t)(p.ring_depth & mask ? step % p.ring_depth : step & mask);
    return p.ring + (uint64_t)index * p.record_bytes;
}

/* Rows first .. first + THREADS - 1 of the bucket and their tokens; asks for all, waits for none.
 */
static __device__ __forceinline__ struct arrival fetch(const struct rt_step_begin_params &p,
                                                       const unsigned char *record, uint32_t first)
{
    struct arrival a = {};
    if (first + threadIdx.x < p.bucket) {
        const uint4 row = rt_load_mapped_16(record + p.rows_offset +
                                            (uint64_t)(first + threadIdx.x) * VECTOR_BYTES);
        a.row = {row.x, (int16_t)(row.y & 0xffffu), (uint16_t)(row.y >> 16), (int32_t)row.z,
                 (int32_t)row.w};
    }
    const uint32_t rows = min(p.bucket - first, THREADS);
    const uint32_t vectors = (rows * p.query_len + VECTOR_TOKENS - 1) / VECTOR_TOKENS;
    const unsigned char *tokens =
        record + p.tokens_offset + (uint64_t)first * p.query_len * sizeof(int32_t);
#pragma unroll
    for (uint32_t i = 0; i < THREAD_TOKEN_VECTORS; i++) {
        const uint32_t v = i * THREADS + threadIdx.x;
        if (v < vectors)
            a.tokens[i] = rt_load_mapped_16(tokens + v * VECTOR_BYTES);
    }
    return a;
}

static __device__ __forceinline__ void stage_tokens(struct desk &desk, const struct arrival &a)
{
    uint4 *to = reinterpret_cast<uint4 *>(desk.tokens);
#pragma unroll
    for (uint32_t i = 0; i < THREAD_TOKEN_VECTORS; i++)
        to[i * THREADS + threadIdx.x] = a.tokens[i];
}

static __device__ __forceinline__ struct slot_state load_slot(const struct rt_step_begin_params &p,
                                                              uint32_t slot)
{
    if (slot >= p.slots)
        return {};
    return {p.slot_length[slot], p.slot_token[slot]};
}

/* RT_DEV_OK, or what is wrong with the header. The same in every thread. */
static __device__ __forceinline__ struct device_error
check_header(const struct rt_step_begin_params &p, const struct rt_record &h, uint64_t expected)
{
    if (h.step != expected)
        return {0, RT_DEV_STEP, 0, (int64_t)h.step};
    if (h.bucket != p.bucket)
        return {0, RT_DEV_BUCKET, 0, h.bucket};
    if (h.query_len != p.query_len)
        return {0, RT_DEV_QUERY_LEN, 0, h.query_len};
    if (h.live_rows > p.bucket)
        return {0, RT_DEV_ROWS, 0, h.live_rows};
    if ((uint64_t)h.row_base + p.bucket > p.max_rows)
        return {0, RT_DEV_ROWS, 0, h.row_base};
    return {NO_ERROR, RT_DEV_OK, 0, 0};
}

static __device__ __forceinline__ void refuse(const struct rt_step_begin_params &p,
                                              const struct rt_record &h, uint64_t expected,
                                              const struct device_error &error, uint64_t t_begin)
{
#pragma unroll 1
    for (uint32_t r = threadIdx.x; r < p.bucket; r += THREADS) {
        p.row_slot[r] = -1;
        p.row_position[r] = 0;
        p.row_length[r] = 0;
        p.row_accept[r] = 0;
        if (p.row_reach)
            p.row_reach[r] = 0;
    }
    if (threadIdx.x != SCRIBE)
        return;
    struct rt_ctrl ctrl = {};
    ctrl.step = expected - 1;
    ctrl.query_len = error.kind == RT_DEV_STEP ? p.query_len : h.query_len;
    ctrl.error = error.kind;
    ctrl.error_value = error.value;
    ctrl.t_begin = t_begin;
    *p.ctrl = ctrl;
}

/* The ops of a record: bytes 0 .. end, of which a window is on the desk. */
struct op_stream {
    const unsigned char *bytes;
    uint32_t end;
    uint32_t window; /* multiple of 16 */
};

static __device__ __forceinline__ void move_window(struct op_stream &ops, uint32_t to,
                                                   struct desk &desk)
{
    __syncthreads(); /* W: nobody reads the old one any more */
    const uint32_t at = threadIdx.x * VECTOR_BYTES;
    if (to + at < ops.end)
        *reinterpret_cast<uint4 *>(desk.window + at) = rt_load_mapped_16(ops.bytes + to + at);
    ops.window = to;
    __syncthreads(); /* W */
}

static __device__ __forceinline__ int32_t page_id(const struct op_stream &ops, uint32_t at,
                                                  const struct desk &desk)
{
    /* A line longer than the window: the rest comes from the host, coalesced, in one more trip. */
    if (at - ops.window >= WINDOW_BYTES)
        return rt_load_mapped_4(ops.bytes + at);
    return *reinterpret_cast<const int32_t *>(desk.window + (at - ops.window));
}

/* Drafts of one line, all -1. */
static __device__ __forceinline__ void clear_drafts(int32_t *drafts, uint64_t line,
                                                    uint32_t columns)
{
#pragma unroll 1
    for (uint32_t i = 0; i < columns; i++)
        drafts[line * columns + i] = -1;
}

static __device__ __forceinline__ void inherit_drafts(const struct rt_step_begin_params &p,
                                                      uint64_t slot, uint64_t source)
{
    const uint32_t columns = p.draft_columns;
#pragma unroll 1
    for (uint32_t i = 0; i < columns; i++)
        p.slot_drafts[slot * columns + i] = p.slot_drafts[source * columns + i];
}

/* The first thread owns all slots while ops are applied: what one writes, the next may read. */
static __device__ __forceinline__ void set_slot(const struct rt_step_begin_params &p,
                                                const struct rt_record_op &op, uint32_t number,
                                                struct device_error &error)
{
    if (threadIdx.x > 0)
        return;
    const uint64_t order = OP_ORDER(number, 0);
    const bool inherits = op.b <= RT_TOKEN_OF_SLOT(0);
    const int32_t source = inherits ? RT_TOKEN_OF_SLOT(op.b) : 0;
    if (op.slot >= p.slots) {
        note(error, order, RT_DEV_SLOT, number, op.slot);
    } else if (op.a < 0 || (uint32_t)op.a > p.max_length) {
        note(error, order, RT_DEV_LENGTH, number, op.a);
    } else if (inherits && (uint32_t)source >= p.slots) {
        note(error, order, RT_DEV_SLOT, number, source);
    } else {
        p.slot_length[op.slot] = op.a;
        p.slot_token[op.slot] = inherits ? p.slot_token[source] : op.b;
        if (inherits)
            inherit_drafts(p, op.slot, (uint32_t)source);
        else
            clear_drafts(p.slot_drafts, op.slot, p.draft_columns);
    }
}

/* Page ids at byte `ids`. A column always belongs to the same thread, so that of two ops the later
 * wins without a barrier. */
static __device__ __forceinline__ void set_pages(const struct rt_step_begin_params &p,
                                                 const struct rt_record_op &op, uint32_t number,
                                                 const struct op_stream &ops, uint32_t ids,
                                                 const struct desk &desk,
                                                 struct device_error &error)
{
    const bool slot_ok = op.slot < p.slots;
    if (!slot_ok || op.a < 0 || (int64_t)op.a + op.b > (int64_t)p.max_blocks) {
        if (threadIdx.x == 0)
            note(error, OP_ORDER(number, 0), slot_ok ? RT_DEV_BLOCK : RT_DEV_SLOT, number,
                 slot_ok ? (int64_t)op.a : (int64_t)op.slot);
        return;
    }
    int32_t *line = p.block_table + (uint64_t)op.slot * p.max_blocks + op.a;
    const uint32_t count = (uint32_t)op.b;
    for (uint32_t i = (threadIdx.x - (uint32_t)op.a) % THREADS; i < count; i += THREADS) {
        const int32_t id = page_id(ops, ids + i * (uint32_t)sizeof(id), desk);
        if (id_ok(id, p.pages))
            line[i] = id;
        else
            note(error, OP_ORDER(number, i), RT_DEV_PAGE, number, id);
    }
}

/* Returns the number of copies after this op; the first thread writes them. */
static __device__ __forceinline__ uint32_t copy_page(const struct rt_step_begin_params &p,
                                                     const struct rt_record_op &op, uint32_t number,
                                                     uint32_t count, struct device_error &error)
{
    const uint64_t order = OP_ORDER(number, 0);
    struct device_error wrong = {NO_ERROR, RT_DEV_OK, 0, 0};
    if (!id_ok(op.a, p.pages) || !id_ok(op.b, p.pages))
        wrong = {order, RT_DEV_PAGE, number, id_ok(op.a, p.pages) ? op.b : op.a};
    else if (op.slot > p.page_size)
        wrong = {order, RT_DEV_LENGTH, number, op.slot};
    else if (count >= RT_MAX_PAGE_COPIES)
        wrong = {order, RT_DEV_OP, number, op.kind};
    if (threadIdx.x == 0) {
        if (wrong.order != NO_ERROR)
            note(error, wrong.order, wrong.kind, wrong.row, wrong.value);
        else
            p.copies[count] = {op.a, op.b, (int32_t)op.slot, 0};
    }
    return wrong.order == NO_ERROR ? count + 1 : count;
}

/* All ops, in order; every thread reads every op. Returns the number of page copies. */
static __device__ uint32_t apply_ops(const struct rt_step_begin_params &p,
                                     const unsigned char *record, struct desk &desk,
                                     struct device_error &error)
{
    const uint32_t op_bytes = (uint32_t)sizeof(struct rt_record_op);
    struct op_stream ops = {record + p.ops_offset,
                            min(desk.header.op_bytes, p.record_bytes - p.ops_offset), 0};
    const uint32_t op_count = desk.header.op_count;
    uint32_t copies = 0, at = 0;
    move_window(ops, 0, desk);
    for (uint32_t number = 0; number < op_count; number++) {
        struct rt_record_op op = {};
        bool whole = ops.end - at >= op_bytes;
        if (whole) {
            if (at - ops.window >= WINDOW_BYTES)
                move_window(ops, at, desk);
            op = *reinterpret_cast<const struct rt_record_op *>(desk.window + (at - ops.window));
            at += op_bytes;
        }
        uint64_t ids_bytes = 0;
        if (op.kind == RT_OP_SET_PAGES) {
            ids_bytes = ((uint64_t)max(op.b, 0) * sizeof(int32_t) + 15) / 16 * 16;
            whole = op.b >= 0 && ids_bytes <= ops.end - at;
        }
        if (!whole || op.kind < RT_OP_SET_SLOT || op.kind > RT_OP_COPY_PAGE) {
            if (threadIdx.x == 0)
                note(error, OP_ORDER(number, 0), RT_DEV_OP, number, op.kind);
            break;
        }
        if (op.kind == RT_OP_SET_SLOT)
            set_slot(p, op, number, error);
        else if (op.kind == RT_OP_SET_PAGES)
            set_pages(p, op, number, ops, at, desk, error);
        else
            copies = copy_page(p, op, number, copies, error);
        at += (uint32_t)ids_bytes;
    }
    __syncthreads(); /* O: slots and lines belong to other threads from here on */
    return copies;
}

/* Applies the row's new page and checks the row; false: it is dropped. */
static __device__ __forceinline__ bool admit_row(const struct rt_step_begin_params &p,
                                                 const struct rt_record_row &row,
                                                 const struct slot_state &slot, uint32_t number,
                                                 struct device_error &error)
{
    const uint64_t order = ROW_ORDER(number);
    if (row.slot >= p.slots) {
        note(error, order, RT_DEV_SLOT, number, row.slot);
        return false;
    }
    if (row.new_block != -1) {
        if (!id_ok(row.new_page, p.pages)) {
            note(error, order, RT_DEV_PAGE, number, row.new_page);
            return false;
        }
        if (!id_ok(row.new_block, p.max_blocks)) {
            note(error, order, RT_DEV_BLOCK, number, row.new_block);
            return false;
        }
        p.block_table[(uint64_t)row.slot * p.max_blocks + (uint32_t)row.new_block] = row.new_page;
    }
    const uint32_t tokens = rt_record_tokens(&row, p.query_len);
    if (tokens > p.query_len) {
        note(error, order, RT_DEV_TOKENS, number, tokens);
        return false;
    }
    const int64_t reach = (int64_t)slot.length + tokens;
    if (slot.length < 0 || reach > (int64_t)p.max_length) {
        note(error, order, RT_DEV_LENGTH, number, reach);
        return false;
    }
    const bool accept_ok =
        row.accept == RT_ACCEPT_BY_DEVICE || (row.accept >= 1 && (uint32_t)row.accept <= tokens);
    if (!accept_ok)
        note(error, order, RT_DEV_ACCEPT, number, row.accept);
    return accept_ok;
}

/* What the row's column t is where the record names no token. A trip to L2 of its own, for steps of
 * drafts alone. */
static __device__ __forceinline__ int32_t nameless_token(const struct rt_step_begin_params &p,
                                                         uint32_t slot_number,
                                                         const struct slot_state &slot, uint32_t t)
{
    if (t == 0)
        return slot.token;
    return p.draft_columns ? p.slot_drafts[(uint64_t)slot_number * p.draft_columns + t - 1] : -1;
}

/* Row `number` of the bucket, or padding. `tokens`: the row's on the desk. */
static __device__ __forceinline__ void write_row(const struct rt_step_begin_params &p,
                                                 const struct rt_record_row &row,
                                                 const struct slot_state &slot,
                                                 const int32_t *tokens, uint32_t number,
                                                 uint32_t row_base, bool runs)
{
    const uint32_t count = rt_record_tokens(&row, p.query_len);
    p.row_slot[number] = runs ? (int32_t)row.slot : -1;
    p.row_position[number] = runs ? slot.length : 0;
    p.row_length[number] = runs ? slot.length + (int32_t)count : 0;
    p.row_accept[number] = runs ? row.accept : 0;
    if (p.row_reach)
        p.row_reach[number] = runs ? slot.length + (int32_t)p.query_len : 0;

    const uint64_t data_row = (uint64_t)row_base + number;
    int32_t *to = p.tokens + data_row * p.query_len;
#pragma unroll 1
    for (uint32_t t = 0; t < p.query_len; t++) {
        const bool named = runs && t < count;
        int32_t token = named ? tokens[t] : -1;
        if (named && token == -1)
            token = nameless_token(p, row.slot, slot, t);
        to[t] = token;
    }
    const int32_t accepted = row.accept == RT_ACCEPT_BY_DEVICE ? (int32_t)count : row.accept;
    p.accepted[data_row] = runs ? accepted : 0;
    p.sampled[data_row] = -1;
    clear_drafts(p.drafts, data_row, p.draft_columns);
}

/* Without an error; publish_error adds it. */
static __device__ __forceinline__ void write_ctrl(const struct rt_step_begin_params &p,
                                                  const struct rt_record &h, uint32_t copies,
                                                  uint64_t t_begin)
{
    struct rt_ctrl ctrl = {};
    ctrl.step = h.step - 1; /* as it was: step_end counts */
    ctrl.live_rows = h.live_rows;
    ctrl.row_base = h.row_base;
    ctrl.query_len = h.query_len;
    ctrl.copy_count = copies;
    ctrl.t_begin = t_begin;
    *p.ctrl = ctrl;
}

/* The first error of the step, behind write_ctrl. */
static __device__ __forceinline__ void publish_error(const struct rt_step_begin_params &p,
                                                     const struct device_error &error,
                                                     struct desk &desk)
{
    if (!__syncthreads_or(error.order != NO_ERROR)) /* E */
        return;
    if (error.order != NO_ERROR)
        atomicMin(&desk.first_error, (unsigned long long)error.order);
    __syncthreads(); /* E */
    if (error.order != NO_ERROR && error.order == desk.first_error) {
        p.ctrl->error = error.kind;
        p.ctrl->error_row = error.row;
        p.ctrl->error_value = error.value;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
    rt_step_begin(const __grid_constant__ struct rt_step_begin_params p)
{
    __shared__ __align__(16) struct desk desk;
    const uint64_t t_begin = rt_globaltimer_ns();
    rt_pdl_wait();
    rt_pdl_launch_dependents();

    const uint64_t expected = p.ctrl->step + 1;
    const unsigned char *record = record_of(p, expected);
    uint4 header;
    if (threadIdx.x < HEADER_VECTORS)
        header = rt_load_mapped_16(record + threadIdx.x * VECTOR_BYTES);
    struct arrival a = fetch(p, record, 0);
    struct slot_state slot = load_slot(p, a.row.slot);
    if (threadIdx.x < HEADER_VECTORS)
        reinterpret_cast<uint4 *>(&desk.header)[threadIdx.x] = header;
    if (threadIdx.x == 0) {
        desk.t_begin = t_begin;
        desk.first_error = NO_ERROR;
    }
    stage_tokens(desk, a);
    __syncthreads(); /* A */

    const struct rt_record h = desk.header;
    struct device_error error = check_header(p, h, expected);
    if (RT_UNLIKELY(error.kind != RT_DEV_OK)) {
        refuse(p, h, expected, error, desk.t_begin);
        return;
    }
    uint32_t copies = 0;
    if (RT_UNLIKELY(h.op_count > 0)) {
        copies = apply_ops(p, record, desk, error);
        slot = load_slot(p, a.row.slot);
    }
    if (threadIdx.x == SCRIBE)
        write_ctrl(p, h, copies, desk.t_begin);
    for (uint32_t first = 0;;) {
        const uint32_t number = first + threadIdx.x;
        if (number < p.bucket) {
            const bool runs = number < h.live_rows && admit_row(p, a.row, slot, number, error);
            write_row(p, a.row, slot, desk.tokens + threadIdx.x * p.query_len, number, h.row_base,
                      runs);
        }
        first += THREADS;
        if (first >= p.bucket)
            break;
        a = fetch(p, record, first);
        slot = load_slot(p, a.row.slot);
        __syncthreads(); /* R */
        stage_tokens(desk, a);
        __syncthreads(); /* R */
    }
    publish_error(p, error, desk);
}
