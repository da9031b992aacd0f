/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/bench_ranks.h"

#include "common/math.h"
#include "runtime/ranks_impl.h"
#include "tools/commands.h"

#define PIECE 256u

enum rt_status bench_ranks_join(struct bench_ranks *r, struct rt_config *config,
                                struct rt_error *error)
{
    const struct rt_ranks_params params = {.struct_size = sizeof(params),
                                           .rank = r->crew.rank,
                                           .ranks = r->crew.ranks,
                                           .path = r->crew.path};
    if (!r->crew.ranks)
        return RT_OK;
    rank_crew_device(&r->crew, config->device, sizeof(config->device));
    RT_TRY(rt_ranks_create(&params, &r->group, error));
    return rt_ranks_cut(r->group, config, error);
}

int bench_ranks_end(struct bench_ranks *r, int code)
{
    const bool lingers = rt_ranks_destroy(&r->group) != RT_OK;
    if (!rank_crew_end(&r->crew, code != EXIT_OK))
        code = EXIT_FAILED;
    if (lingers)
        rank_crew_leave(code);
    return code;
}

enum rt_status bench_ranks_spread(rt_runtime *rt, uint64_t *ns, uint32_t count)
{
    struct rt_comm *const comm = &rt->ranks->comm;
    for (uint32_t done = 0; done < count; done += PIECE) {
        const uint32_t n = rt_min_u32(count - done, PIECE);
        uint64_t all[RT_MAX_RANKS * PIECE];
        RT_TRY(rt_comm_gather(comm, ns + done, all, n * (uint32_t)sizeof(*ns), &rt->error));
        for (uint32_t i = 0; i < n; i++) {
            uint64_t first = all[i], last = all[i];
            for (uint32_t r = 1; r < comm->ranks; r++) {
                first = rt_min_u64(first, all[r * n + i]);
                last = rt_max_u64(last, all[r * n + i]);
            }
            ns[done + i] = last - first;
        }
    }
    return RT_OK;
}
