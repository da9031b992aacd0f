#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Static analysis of every host source that a build knows. A finding fails.
# usage: tidy.sh [BUILD_DIR [clang-tidy|cppcheck]]    default: build, both
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
build=$(cd "${1:-$root/build}" && pwd)
only=${2:-}
cd "$root"

[[ -f $build/compile_commands.json ]] || {
    echo "tidy.sh: $build has no compile_commands.json: configure it with meson first" >&2
    exit 2
}

# The hand-written C files of the compilation database, NUL-separated.
sources() {
    python3 - "$build/compile_commands.json" "$build" "$root" <<'PYTHON'
import json, os, sys
database, build, root = sys.argv[1:]
entries = json.load(open(database))
files = {os.path.realpath(os.path.join(e["directory"], e["file"])) for e in entries}
own = os.path.realpath(root) + os.sep
generated = os.path.realpath(build) + os.sep
for name in sorted(files):
    if name.startswith(own) and not name.startswith(generated) and name.endswith(".c"):
        print(os.path.relpath(name, root), end="\0")
PYTHON
}

# The compilation database without what compiles a file once more in the same way: clang-tidy would
# look at it as often. Ways differ by what they define that the file reads, or a header of this tree
# that it includes: headers are named from the root in all.
single_database() {
    python3 - "$build/compile_commands.json" "$root" > "$1/compile_commands.json" <<'PYTHON'
import json, os, re, shlex, sys
database, root = sys.argv[1:]
words_of, ways = {}, {}

def words(path):
    """All words of a file and of what it includes."""
    if path not in words_of:
        words_of[path] = set()
        text = open(path, encoding="utf-8").read() if os.path.isfile(path) else ""
        own = set(re.findall(r"\w+", text))
        for name in re.findall(r'#\s*include\s+["<]([^">]+)', text):
            for folder in ("", "include"):
                own |= words(os.path.join(root, folder, name))
        words_of[path] = own
    return words_of[path]

for entry in json.load(open(database)):
    of = os.path.realpath(os.path.join(entry["directory"], entry["file"]))
    defined = [w for w in shlex.split(entry["command"]) if w.startswith(("-D", "-U"))]
    read = frozenset(w for w in defined if re.match(r"\w+", w[2:]).group() in words(of))
    ways.setdefault((of, read), entry)
json.dump(list(ways.values()), sys.stdout)
PYTHON
}

run_clang_tidy() {
    local status=0 database
    database=$(mktemp -d)
    single_database "$database"
    sources | xargs -0 -r -n 4 -P "$(nproc)" clang-tidy -p "$database" --quiet \
        --extra-arg=-Wno-unknown-warning-option 2> >(grep -v 'warnings\? generated\.$' >&2) ||
        status=$?
    rm -rf "$database"
    return "$status"
}

# Files by name, not by the database: the host code has one configuration, and the database
# would have each file that several tests link checked once for each of them.
run_cppcheck() {
    local -a files
    mapfile -d '' -t files < <(sources)
    cppcheck --quiet --error-exitcode=1 --std=c11 --language=c --platform=unix64 -j "$(nproc)" \
        --enable=warning,performance,portability --inline-suppr \
        --suppressions-list=scripts/cppcheck.txt --template='{file}:{line}: {id}: {message}' \
        -I. -Iinclude -D_POSIX_C_SOURCE=200809L -DRT_HAVE_CUDA=1 \
        -U__clang_analyzer__ -U__cplusplus -U__CUDACC__ "${files[@]}"
}

analyse() {
    case $1 in
        clang-tidy) run_clang_tidy ;;
        cppcheck) run_cppcheck ;;
    esac
}

[[ -n $(sources | tr -d '\0') ]] || {
    echo "tidy.sh: no source of this tree in $build/compile_commands.json" >&2
    exit 2
}
status=0
for tool in ${only:-clang-tidy cppcheck}; do
    if ! command -v "$tool" > /dev/null; then
        echo "$tool: not installed"
        [[ -z $only ]] || exit 77
    elif analyse "$tool"; then
        echo "$tool: clean"
    else
        echo "$tool: findings above"
        status=1
    fi
done
exit "$status"
