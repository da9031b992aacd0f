#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to the main job: a recorded DeepSeek-V3-architecture decode trace, replayed
# through rt_step on the best device of this machine and compared with the trace. A few minutes,
# most of it kernels where a CUDA toolkit is there.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
source scripts/build.sh

scripts/setup.sh
configure build
compile build
exec build/examples/mla_trace tests/data/golden/tiny_deepseek_v3
