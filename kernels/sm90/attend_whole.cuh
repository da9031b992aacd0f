/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_KERNELS_SM90_ATTEND_WHOLE_CUH
#define RT_KERNELS_SM90_ATTEND_WHOLE_CUH

/*
 * Few query tokens: a row is a cluster's, so that there is neither a plan nor a reduction behind.
 * Of a row's n blocks of keys rank r has [r n / 8, (r + 1) n / 8), which its list's count says
 * alone; the narrow kernel's products and softmax, and a way out through the cluster's memory.
 */
#include "kernels/device/ptx/timer.cuh"
#include "kernels/sm90/attend_narrow.cuh"

/* All of the block have stored what they have. */
template <class PARAMS> static __device__ __forceinline__ void rt_sm90_stamp_last(const PARAMS &all)
{
    if (all.sparse.stamp_last && threadIdx.x == 0)
        atomicMax((unsigned long long *)all.sparse.stamp_last, rt_globaltimer_ns());
}

template <class SHAPE> struct rt_sm90_whole : rt_sm90_narrow<SHAPE> {
    typedef rt_sm90_narrow<SHAPE> base;
    static_assert(base::PAIRS_END, "a pair's end sends");

    __device__ __forceinline__ rt_sm90_whole(const typename SHAPE::params &all_,
                                             const rt_sm90_room<SHAPE> &room_, int worker_)
        : base(all_, room_, worker_)
    {
    }

    /* A block without keys sends sums of none. */
    __device__ __forceinline__ void end_segment(const struct rt_sm90_segment &segment)
    {
        const typename base::out_of_segment leaves(this->all, this->room, segment, this->worker);
        const rt_sm90_whole_out<SHAPE> row(leaves);
        if (segment.blocks == 0) {
            row.send_states();
            row.send_values(this->out);
        }
        row.add();
    }
};

#endif
