#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what the build needs and this machine lacks, with apt-get. Says each thing it does.
# usage: setup.sh [--tests]    --tests: also what only the tests use
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly root meson_wanted=1.0.0

say() { printf 'setup: %s\n' "$*"; }
has() { command -v "$1" > /dev/null 2>&1; }
has_library() { has pkg-config && pkg-config --exists "$1"; }
at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n1) == "$1" ]]; }

# Installs packages by name; false, and said, where that cannot be done.
install_packages() {
    local -a as_root=()
    local log
    if [[ $(id -u) -ne 0 ]]; then
        has sudo || { say "not root, and no sudo: please install $*"; return 1; }
        as_root=(sudo)
    fi
    has apt-get || { say "no apt-get: please install what these are here: $*"; return 1; }
    log=$(mktemp)
    say "installing $*"
    if ! { "${as_root[@]}" apt-get update -qq &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
            --no-install-recommends "$@"; } > "$log" 2>&1 < /dev/null; then
        tail -n 20 "$log" >&2
        rm -f "$log"
        say "apt-get could not install: $*"
        return 1
    fi
    rm -f "$log"
}

# A Meson that is new enough in a folder of its own, where the system's is too old.
ensure_meson() {
    local found
    found=$(meson --version 2> /dev/null || echo 0)
    at_least "$meson_wanted" "$found" && return
    export PATH="$root/build-tools/bin:$PATH"
    found=$(meson --version 2> /dev/null || echo 0)
    at_least "$meson_wanted" "$found" && return
    python3 -c 'import ensurepip' 2> /dev/null || install_packages python3-venv
    say "installing Meson into build-tools/ (the system's is older than $meson_wanted)"
    python3 -m venv "$root/build-tools"
    "$root/build-tools/bin/pip" --quiet install "meson>=$meson_wanted"
}

ensure_build_packages() {
    local -a missing=()
    has gcc || missing+=(gcc libc6-dev)
    has ninja || missing+=(ninja-build)
    has meson || missing+=(meson)
    has python3 || missing+=(python3)
    has pkg-config || missing+=(pkg-config)
    has_library yaml-0.1 || missing+=(libyaml-dev)
    has_library cmocka || missing+=(libcmocka-dev)
    has_library libcjson || missing+=(libcjson-dev)
    [[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"
}

# Tests that need one of these are skipped without it, so failing to install it is no failure.
ensure_test_packages() {
    local -a missing=()
    local tool
    for tool in g++ clang clang-format clang-tidy cppcheck valgrind; do
        has "$tool" || missing+=("$tool")
    done
    [[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}" ||
        say "going on without; the tests that need them will be skipped"
}

report_gpu() {
    local nvcc release
    if nvcc=$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc); then
        release=$("$nvcc" --version | sed -n 's/.*release \([0-9.]*\).*/\1/p')
        say "CUDA compiler: $nvcc, release $release"
    else
        say "CUDA compiler: none (no nvcc on PATH or in /usr/local/cuda/bin)"
        say "building for the host device only; with a CUDA toolkit the kernels are built too"
    fi
    if [[ -e /dev/nvidiactl || -e /dev/dxg ]]; then
        say "GPU: present"
    else
        say "GPU: none; the host device runs everything"
    fi
}

ensure_build_packages
ensure_meson
if [[ ${1:-} == --tests ]]; then
    ensure_test_packages
fi
report_gpu
