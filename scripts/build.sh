# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
# How the scripts configure and compile; sourced with the source tree's root as working directory.

if [[ -d build-tools/bin ]]; then
    export PATH="$PWD/build-tools/bin:$PATH" # the Meson that setup.sh put there
fi

# configure DIR [meson options]: a new build, or an old one with these options changed; an old one
# that Meson cannot read (of another Meson, of a tree that has moved) starts anew.
configure() {
    local dir=$1
    shift
    mkdir -p "$dir"
    if [[ ! -f $dir/build.ninja ]]; then
        run_logged "$dir/script.log" meson setup "$dir" "$@"
    elif [[ $# -gt 0 ]]; then
        run_logged "$dir/script.log" meson configure "$dir" "$@" 2> /dev/null ||
            run_logged "$dir/script.log" meson setup --wipe "$dir" "$@"
    fi
}

# compile DIR [targets]: all of them by default.
compile() {
    if [[ -t 1 ]]; then
        ninja -C "$@" < /dev/null
    else
        run_logged "$1/script.log" ninja -C "$@"
    fi
}

# run_logged LOG COMMAND...: quiet while all is well; all of its output where it fails.
run_logged() {
    local log=$1
    shift
    printf '+ %s\n' "$*"
    "$@" > "$log" 2>&1 < /dev/null && return
    cat "$log" >&2
    return 1
}
