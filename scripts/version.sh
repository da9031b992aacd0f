#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Prints the version that include/replayrt/version.h states.
set -eu
awk '$2 ~ /^RT_VERSION_(MAJOR|MINOR|PATCH)$/ { v = v sep $3; sep = "." } END { print v }' \
    "$(dirname "$0")/../include/replayrt/version.h"
