#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# From a fresh clone to the verdict: builds, then runs every test that this machine can run.
# Closes with one line, `N passed, N failed, N skipped`, summed over all runs below.
#
#   build        gcc, warnings are errors, kernels where nvcc is found: all tests
#   build        again under valgrind: unit and contract tests but the long ones
#   build        clang-tidy and cppcheck over its sources
#   build-order  ThreadSanitizer: the kernels, emulated thread by thread
#   build-asan   AddressSanitizer and UndefinedBehaviorSanitizer, host device: by clang where it is
#                found, whose warnings are errors too, else by gcc
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
source scripts/build.sh

passed=0 failed=0 skipped=0
declare -a failures=()

has() { command -v "$1" > /dev/null 2>&1; }
pass() { passed=$((passed + 1)); }
skip() { skipped=$((skipped + 1)); printf 'skipped: %s\n' "$*"; }
fail() { failed=$((failed + 1)); failures+=("$*"); printf 'FAILED: %s\n' "$*"; }

# build DIR [meson options]: one more test, passed where it configures and compiles.
build() {
    if configure "$@" && compile "$1"; then
        pass
    else
        fail "$1: does not build"
        return 1
    fi
}

# run_tests DIR NAME [meson test arguments]: adds Meson's own counts.
run_tests() {
    local dir=$1 name=$2
    local -a logs counts
    shift 2
    rm -f "$dir/meson-logs/$name"*.json
    printf '+ meson test -C %s %s\n' "$dir" "$*"
    meson test -C "$dir" --no-rebuild --print-errorlogs --logbase "$name" "$@" < /dev/null || true
    logs=("$dir/meson-logs/$name"*.json) # Meson adds the wrapper's name
    if [[ ! -f ${logs[0]} ]]; then
        fail "$dir: $name left no log"
        return
    fi
    mapfile -t counts < <(scripts/tally.py "${logs[@]}")
    read -r p f s <<< "${counts[0]}"
    passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
    failures+=("${counts[@]:1}")
}

# analyse DIR TOOL: clang-tidy or cppcheck over the sources of a build.
analyse() {
    local status=0
    scripts/tidy.sh "$1" "$2" || status=$?
    case $status in
        0) pass ;;
        77) skip "$2" ;;
        *) fail "$2" ;;
    esac
}

scripts/setup.sh --tests

if build build -Dwerror=true -Dtests=true; then
    run_tests build default
    if has valgrind; then
        run_tests build memory --setup valgrind --suite unit --suite contract \
            --no-suite long
    else
        skip valgrind
    fi
    analyse build clang-tidy
    analyse build cppcheck
fi

readonly host=(-Dgpu=disabled -Dwerror=true -Dtests=true)

# Not every operating system lays memory out as the sanitizer's runtime wants it.
thread_sanitizer_runs() {
    local at status
    at=$(mktemp -d)
    printf 'int main() { return 0; }\n' > "$at/none.cpp"
    "${CXX:-c++}" -fsanitize=thread -o "$at/none" "$at/none.cpp" > "$at/log" 2>&1 &&
        "$at/none" > "$at/log" 2>&1
    status=$?
    rm -rf "$at"
    return "$status"
}

if ! thread_sanitizer_runs; then
    skip 'order of accesses: the thread sanitizer does not run here'
elif configure build-order "${host[@]}" -Db_sanitize=thread -Db_lundef=false &&
    compile build-order tests/emu/emu_attend tests/emu/checkkern_emu; then
    pass
    run_tests build-order order --suite order
else
    fail 'build-order: does not build'
fi

export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
if has clang++; then
    export CC=clang CXX=clang++
    # Meson puts it before compilers of its own choice alone.
    ! has ccache || export CC='ccache clang' CXX='ccache clang++'
else
    skip 'clang build'
fi
if build build-asan "${host[@]}" -Db_sanitize=address,undefined -Db_lundef=false; then
    run_tests build-asan sanitizers --no-suite lint --timeout-multiplier 10
fi

[[ ${#failures[@]} -eq 0 ]] || printf 'failed: %s\n' "${failures[@]}"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[[ $failed -eq 0 ]]
