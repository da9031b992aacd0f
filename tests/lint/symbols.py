#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One list of exported symbols: the headers' RT_API, the version script, the library's own table.

usage: symbols.py INCLUDE_DIR MAP LIBRARY.so ARCHIVE.a

Also: the library needs nothing at load time that a machine without a GPU lacks, and none of its
objects can print, exit or read the environment.
"""
import pathlib
import re
import subprocess
import sys

# Loaded at run time by name, or not at all.
UNWANTED = re.compile(r"^lib(cuda|cudart|cublas\w*|nv\w*|stdc\+\+|gcc_s)\.so")
# A library that is linked into other people's programs has no business with these.
FORBIDDEN = set("""stdout stderr printf puts putchar vprintf perror __printf_chk __vprintf_chk
    exit _exit _Exit quick_exit abort raise signal sigaction atexit
    getenv secure_getenv setenv putenv unsetenv environ""".split())


def output(*command):
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout


def declared(include_dir):
    """Functions that the public headers declare with RT_API."""
    names = []
    for header in sorted(include_dir.rglob("*.h")):
        text = re.sub(r"/\*.*?\*/", " ", header.read_text(encoding="utf-8"), flags=re.S)
        text = re.sub(r"^[ \t]*#.*$", "", text, flags=re.M)
        names += re.findall(r"\bRT_API\b[^;(]*?(\w+)\s*\(", text)
    return names


def mapped(path):
    """Symbols of the version script's global sections."""
    text = re.sub(r"/\*.*?\*/", " ", path.read_text(encoding="utf-8"), flags=re.S)
    names = []
    for body in re.findall(r"global:(.*?)(?:local:|\})", text, flags=re.S):
        names += [name.strip() for name in body.split(";") if name.strip()]
    return names


def exported(library):
    """Defined dynamic symbols, without the version nodes themselves."""
    lines = output("nm", "-D", "--defined-only", str(library)).splitlines()
    words = [line.split() for line in lines]
    return [w[-1].split("@")[0] for w in words if w and w[-2] != "A"]


def needed(library):
    return re.findall(r"\(NEEDED\).*\[(.*)\]", output("readelf", "-d", "-W", str(library)))


def used(archive):
    """Symbols that the library's own objects take from elsewhere."""
    return set(re.findall(r"^\s+U (\S+)$", output("nm", "-u", str(archive)), flags=re.M))


def differences(title, left, right):
    return [f"{title}: {name}" for name in sorted(set(left) - set(right))]


def main():
    include_dir, version_script, library, archive = map(pathlib.Path, sys.argv[1:5])
    headers, script, real = declared(include_dir), mapped(version_script), exported(library)
    complaints = differences("declared with RT_API but not in the map", headers, script)
    complaints += differences("in the map but not declared with RT_API", script, headers)
    complaints += differences("in the map but not exported", script, real)
    complaints += differences("exported but not in the map", real, script)
    complaints += [f"named twice in the map: {n}" for n in set(script) if script.count(n) > 1]
    complaints += [f"the library needs {n}" for n in needed(library) if UNWANTED.search(n)]
    complaints += [f"the library uses {name}" for name in sorted(used(archive) & FORBIDDEN)]
    if not headers:
        complaints.append("no RT_API declaration found: the headers have changed their form")
    print("\n".join(complaints) if complaints else f"{len(headers)} symbols, all three lists agree")
    sys.exit(1 if complaints else 0)


main()
