/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_TESTS_EMU_CORE_H
#define RT_TESTS_EMU_CORE_H

/* What the parts of the emulator want of each other. */
#include "tests/emu/emu.h"
#include "tests/emu/order.h"

#include <cstdlib>
#include <sys/mman.h>

enum { EMU_MAX_THREADS = 1024, EMU_SHARED_BYTES = 227 * 1024 };
extern EMU_OF_BLOCK unsigned char rt_attend_shared[EMU_SHARED_BYTES];

/* What a thread waits for, for the message where it waits forever. */
struct emu_wish {
    const char *what;
    int which, more;
};

[[noreturn]] void emu_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Something large for each thread of a block, zeros at first. Of what nobody touches the system
 * has no memory, where it would have for thread_local arrays. */
template <typename T> class emu_of_threads
{
    static constexpr size_t BYTES = EMU_MAX_THREADS * sizeof(T);
    T *const at;

  public:
    emu_of_threads()
        : at((T *)mmap(nullptr, BYTES, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))
    {
        if (at == MAP_FAILED)
            emu_fail("no memory of %zu bytes", BYTES);
    }
    ~emu_of_threads()
    {
        munmap(at, BYTES);
    }
    T &operator[](int i)
    {
        return at[i];
    }
};
int emu_thread_count(void);
uint64_t emu_random(void);
void emu_random_begin(uint64_t seed);

/* The thread sleeps until somebody wakes it; it looks itself whether what it waits for is there. */
void emu_sleep(struct emu_wish wish);
void emu_wake(int thread);
void emu_wake_any(int thread); /* negative: all of the block */

/* Blocks, one by one or at the same time: grid.h decides. */
void emu_blocks_begin(void); /* of a grid */
void emu_block_run(const struct emu_launch *launch, unsigned number);
void emu_block_release(void); /* what is done before is before what waits for the grid before */
void emu_tell_wishes(void);   /* what the block's threads wait for */
bool emu_blocks_end(void);    /* whether some block waited before all of them had triggered */

void emu_copy_begin(void);   /* cp.async, of a block */
void emu_copy_read(void);    /* all that were asked for read their source, at the latest now */
bool emu_copy_pending(void); /* of those that a barrier waits for */
void emu_copy_step(void);
void emu_copy_end(void);

/* What runs beside the threads: copies and products that were asked for. */
void emu_async_begin(void); /* of a block */
bool emu_async_pending(void);
void emu_async_step(void); /* does one of them, any that may be next */
void emu_async_end(void);  /* fails where something is left */

/* Agents that are taken in turn: two one behind the other have no order by their agent. */
void *emu_agent_take(void);
void emu_agent_give_back(void *agent);

void emu_product_begin(void);
bool emu_product_pending(void);
void emu_product_step(void);
void emu_product_end(void);

#endif
