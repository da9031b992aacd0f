/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of the host device: a list of live blocks, and whether a range lies in one. */
#include "driver/host/host_parts.h"

#include "common/math.h"

#include <stdlib.h>
#include <string.h>

#define ALLOC_ALIGN 256 /* what device allocations promise */
#define ALLOC_POISON 0xC3

void *rt_host_alloc_aligned(uint64_t bytes)
{
    void *p = NULL;
    if (bytes > SIZE_MAX || posix_memalign(&p, _Alignof(struct rt_launch), (size_t)bytes) != 0)
        return NULL;
    memset(p, 0, (size_t)bytes);
    return p;
}

/* Room on the device for `bytes` more: an operating system that promises more memory than there is
 * would kill the process while it is being filled. */
static bool has_room(const struct rt_driver *d, uint64_t bytes)
{
    uint64_t used = bytes;
    for (const struct rt_host_block *b = ((const struct rt_host *)d->impl)->blocks; b;
         b = b->next) {
        if (!b->adopted && !rt_add_u64(used, b->bytes, &used))
            return false;
    }
    return used <= (d->caps.memory_bytes ? d->caps.memory_bytes : PTRDIFF_MAX);
}

/* posix_memalign, not aligned_alloc: it allocates exactly `bytes`, so a sanitizer sees the first
 * byte behind them. */
static int block_add(struct rt_driver *d, uint64_t bytes, bool pinned, void **out)
{
    if (bytes == 0)
        return RT_HOST_INVALID;
    if (!has_room(d, bytes))
        return RT_HOST_NO_MEMORY;
    struct rt_host *h = rt_host_of(d);
    void *memory = NULL;
    struct rt_host_block *b = calloc(1, sizeof(*b));
    if (!b || posix_memalign(&memory, ALLOC_ALIGN, (size_t)bytes) != 0) {
        free(b);
        return RT_HOST_NO_MEMORY;
    }
    memset(memory, ALLOC_POISON, (size_t)bytes);
    *b = (struct rt_host_block){
        .next = h->blocks, .base = (uintptr_t)memory, .bytes = bytes, .pinned = pinned};
    h->blocks = b;
    *out = memory;
    return 0;
}

static int block_remove(struct rt_host *h, void *memory, bool pinned)
{
    for (struct rt_host_block **link = &h->blocks; *link; link = &(*link)->next) {
        struct rt_host_block *b = *link;
        if (b->base != (uintptr_t)memory || b->pinned != pinned || b->adopted)
            continue;
        *link = b->next;
        free(b);
        free(memory);
        return 0;
    }
    return RT_HOST_NOT_FOUND;
}

static const struct rt_host_block *block_find(const struct rt_host *h, rt_addr addr)
{
    const struct rt_host_block *b = h->blocks;
    while (b && (addr < b->base || addr - b->base >= b->bytes))
        b = b->next;
    return b;
}

int rt_host_check_range(const struct rt_host *h, rt_addr addr, uint64_t bytes)
{
    if (bytes == 0)
        return 0;
    const struct rt_host_block *b = block_find(h, addr);
    return b && bytes <= b->bytes - (addr - b->base) ? 0 : RT_HOST_RANGE;
}

static int mem_alloc(struct rt_driver *d, uint64_t bytes, rt_addr *out)
{
    if (rt_probe_enter(d, RT_DOP_mem_alloc))
        return RT_DRIVER_INJECTED;
    void *memory;
    const int rc = block_add(d, bytes, false, &memory);
    if (rc != 0)
        return rc;
    d->probe.live++;
    *out = (uintptr_t)memory;
    return 0;
}

static int mem_free(struct rt_driver *d, rt_addr addr)
{
    const bool injected = rt_probe_enter(d, RT_DOP_mem_free);
    const int rc = block_remove(rt_host_of(d), (void *)(uintptr_t)addr, false);
    if (rc != 0)
        return rc;
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

static int host_alloc(struct rt_driver *d, uint64_t bytes, void **out_host, rt_addr *out_addr)
{
    if (rt_probe_enter(d, RT_DOP_host_alloc))
        return RT_DRIVER_INJECTED;
    void *memory;
    const int rc = block_add(d, bytes, true, &memory);
    if (rc != 0)
        return rc;
    d->probe.live++;
    *out_host = memory;
    *out_addr = (uintptr_t)memory;
    return 0;
}

static int host_free(struct rt_driver *d, void *host)
{
    const bool injected = rt_probe_enter(d, RT_DOP_host_free);
    const int rc = block_remove(rt_host_of(d), host, true);
    if (rc != 0)
        return rc;
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

static int address_range(struct rt_driver *d, rt_addr addr, struct rt_address_range *out)
{
    if (rt_probe_enter(d, RT_DOP_address_range))
        return RT_DRIVER_INJECTED;
    const struct rt_host_block *b = block_find(rt_host_of(d), addr);
    *out = (struct rt_address_range){.base = b ? b->base : 0, .bytes = b ? b->bytes : 0};
    return 0;
}

/* ---- other ranks' memory, within one process ---- */

static int peer_export(struct rt_driver *d, rt_addr addr, struct rt_peer_handle *out)
{
    if (rt_probe_enter(d, RT_DOP_peer_export))
        return RT_DRIVER_INJECTED;
    const struct rt_host_block *const b = block_find(rt_host_of(d), addr);
    if (!b || b->base != addr)
        return RT_HOST_NOT_FOUND;
    *out = (struct rt_peer_handle){{0}};
    memcpy(out->bytes, &addr, sizeof(addr));
    return 0;
}

static int peer_open(struct rt_driver *d, const struct rt_peer_handle *handle, rt_addr *out)
{
    if (rt_probe_enter(d, RT_DOP_peer_open))
        return RT_DRIVER_INJECTED;
    rt_addr addr;
    memcpy(&addr, handle->bytes, sizeof(addr));
    if (addr == 0)
        return RT_HOST_INVALID;
    d->probe.live++;
    *out = addr;
    return 0;
}

static int peer_close(struct rt_driver *d, rt_addr addr)
{
    const bool injected = rt_probe_enter(d, RT_DOP_peer_close);
    if (addr == 0)
        return RT_HOST_INVALID;
    d->probe.live--;
    return injected ? RT_DRIVER_INJECTED : 0;
}

/* ---- memory of the caller's ---- */

/* Adopted memory that holds the range, or ends where it begins; null: there is none. */
static struct rt_host_block *find_adopted(struct rt_host *h, rt_addr addr, uint64_t bytes)
{
    for (struct rt_host_block *b = h->blocks; b; b = b->next)
        if (b->adopted && addr >= b->base &&
            (addr - b->base == b->bytes ||
             (addr - b->base < b->bytes && bytes <= b->bytes - (addr - b->base))))
            return b;
    return NULL;
}

/* What lies behind each other is one block: it may be one operand. */
int rt_driver_host_adopt(struct rt_driver *d, rt_addr addr, uint64_t bytes)
{
    struct rt_host *h = rt_host_of(d);
    struct rt_host_block *b = find_adopted(h, addr, bytes);
    if (b) {
        b->bytes += addr - b->base == b->bytes ? bytes : 0;
        return 0;
    }
    b = calloc(1, sizeof(*b));
    if (!b)
        return RT_HOST_NO_MEMORY;
    *b = (struct rt_host_block){.next = h->blocks, .base = addr, .bytes = bytes, .adopted = true};
    h->blocks = b;
    return 0;
}

void rt_host_forget_adopted(struct rt_host *h)
{
    struct rt_host_block **link = &h->blocks;
    while (*link) {
        struct rt_host_block *b = *link;
        if (!b->adopted) {
            link = &b->next;
            continue;
        }
        *link = b->next;
        free(b);
    }
}

void rt_host_bind_memory(struct rt_driver *d)
{
    d->mem_alloc = mem_alloc;
    d->mem_free = mem_free;
    d->host_alloc = host_alloc;
    d->host_free = host_free;
    d->address_range = address_range;
    d->peer_export = peer_export;
    d->peer_open = peer_open;
    d->peer_close = peer_close;
}
