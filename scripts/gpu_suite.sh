#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that only a GPU can prove, from a build directory, on a machine with only a driver:
#   scripts/gpu_suite.sh BUILD [--sanitize] [--bench]
# Checks of the suite and of --sanitize run JOBS at a time (half of the processors, 8 at most),
# each with its output whole behind its name; benches run alone.
# Build it with: meson setup BUILD -Dstatic_deps=true && ninja -C BUILD
# Exits non-zero where anything failed; closes with the line N passed, N failed, N skipped.
set -u
build=${1:?usage: scripts/gpu_suite.sh BUILD [--sanitize] [--bench]}
shift
root=$(cd "$(dirname "$0")/.." && pwd)
build=$(cd "$build" && pwd)
processors=$(nproc)
at_once=${JOBS:-$((processors < 4 ? 1 : processors < 16 ? processors / 2 : 8))}
results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT
checks=0

# Runs one program beside others; its own output shows the details, whole and once it has ended.
check() {
    while [ "$(jobs -rp | wc -l)" -ge "$at_once" ]; do wait -n; done
    checks=$((checks + 1))
    run_check "$results/$checks" "$@" &
}

run_check() {
    local mine=$1 verdict=failed
    shift
    "$@" > "$mine.out" 2>&1
    case $? in 0) verdict=passed ;; 77) verdict=skipped ;; esac
    touch "$mine.$verdict"
    { echo "== $*"; cat "$mine.out"; echo "-- $verdict: $*"; } | flock "$results" cat
}

suite() {
    local part test trace
    for part in 0 1 2 3; do # the longest first
        check "$build/tests/gpu/gpu-tests" every_call_fails_once "--part=$part/4"
    done
    check "$build/tests/gpu/gpu-tests" replay
    for test in $("$build/tests/checkkern/checkkern" --list); do
        check "$build/tests/checkkern/checkkern" --device cuda:0 --test "$test"
    done
    for test in $("$build/tests/gpu/gpu-tests" --list); do
        case $test in every_call_fails_once | replay | nothing_leaks) continue ;; esac
        check "$build/tests/gpu/gpu-tests" "$test"
    done
    for trace in "$root"/tests/data/golden/tiny_*; do
        if [ -f "$trace/replayrt.yaml" ]; then
            check "$build/examples/mla_trace" "$trace" --device cuda:0
        fi
        check "$build/tests/models/decode_golden" "$trace" --device cuda:0
        check "$build/tests/layer/layer_trace" "$trace" --device cuda:0 --projections own
        check "$build/tests/layer/layer_trace" "$trace" --device cuda:0 --query-len 4
    done
    wait # nothing_leaks compares the device's free memory
    check "$build/tests/gpu/gpu-tests" nothing_leaks
}

# memcheck runs everything. racecheck cannot follow an mbarrier at which one lane arrives for its
# warp, and reports correct kernels (tests/gpu/mbarrier_handover.cu shows it), so it runs those that
# have none: all but sm_90 attention, whose judge is the emulator's check of all accesses
# (docs/emulator.md).
sanitize() {
    local memcheck racecheck
    # A kernel's parameter list ends, by the driver's own design, in an API error.
    memcheck=(compute-sanitizer --tool memcheck --report-api-errors no --error-exitcode 9)
    racecheck=(compute-sanitizer --tool racecheck --report-api-errors no --error-exitcode 9)
    check "${memcheck[@]}" "$build/tests/checkkern/checkkern" --device cuda:0
    check "${memcheck[@]}" "$build/tests/gpu/gpu-tests" --quick
    for test in append append_general chunk_rows embed gate input_norm kv_gather merge page_copy \
        preattend preattend_absorb reduce route sample schedule schedule_append step take; do
        check "${racecheck[@]}" "$build/tests/checkkern/checkkern" --device cuda:0 --test "$test"
    done
}

bench() {
    at_once=1
    check "$build/tests/checkkern/checkkern" --device cuda:0 --bench
    check "$build/tools/replayrt" bench step "$root/examples/bench_deepseek.yaml" --length 1024
    check "$build/tools/replayrt" bench layer "$root/examples/bench_layer.yaml"
    check "$build/tools/replayrt" bench attention --shapes "$root/examples/shapes_h200.jsonl"
}

case " $* " in *" --sanitize "*) sanitize ;; *" --bench "*) bench ;; *) suite ;; esac
wait
count() { find "$results" -name "*.$1" | wc -l; }
failed=$((checks - $(count passed) - $(count skipped)))
echo "$(count passed) passed, $failed failed, $(count skipped) skipped"
[ "$failed" = 0 ]
