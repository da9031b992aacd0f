#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to the main job: a small checkpoint of DeepSeek-V3's architecture decodes on
# the best device of this machine, one graph launch a token, and logits and tokens are compared with
# what another implementation recorded of it. A few minutes, most of it kernels where a CUDA toolkit
# is there.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
source scripts/build.sh

scripts/setup.sh
configure build
compile build tests/models/decode_golden tools/replayrt # all that a demo and its reader need
exec build/tests/models/decode_golden tests/data/golden/tiny_deepseek_v3
