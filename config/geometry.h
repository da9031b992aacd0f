/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_CONFIG_GEOMETRY_H
#define RT_CONFIG_GEOMETRY_H

/* Which absorbed geometries exist at all; which kernel serves one is the resolver's to say. */
#include <stdbool.h>
#include <stdint.h>

#define RT_SERVED_GEOMETRIES "d_qk/d_v 576/512, 320/256, 288/256 or 512/512"

static inline bool rt_geometry_is_served(uint32_t kv_lora_rank, uint32_t qk_rope_head_dim)
{
    return (kv_lora_rank == 512 && (qk_rope_head_dim == 64 || qk_rope_head_dim == 0)) ||
           (kv_lora_rank == 256 && (qk_rope_head_dim == 64 || qk_rope_head_dim == 32));
}

/* Of these, those that have attention over listed keys. */
#define RT_SPARSE_GEOMETRIES "d_qk/d_v 576/512 or 512/512"

static inline bool rt_geometry_is_sparse(uint32_t kv_lora_rank)
{
    return kv_lora_rank == 512;
}

#endif
