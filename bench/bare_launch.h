/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RT_BENCH_BARE_LAUNCH_H
#define RT_BENCH_BARE_LAUNCH_H

/* What rt_step is compared with. */
#include "replayrt/rt.h"

/* Host time of launching one captured graph without a record: a replay of no live rows, on an idle
 * stream and waited for. Failures are the runtime's last error. Blocks. */
enum rt_status bare_launch(rt_runtime *rt, uint32_t batch, uint32_t query_len, uint64_t *ns);

#endif
