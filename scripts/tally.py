#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Counts the results in Meson's test logs.

usage: tally.py TESTLOG.json...
Prints `PASSED FAILED SKIPPED`, then one line for each failed test.
"""
import json
import sys

PASSED = {"OK", "EXPECTEDFAIL"}
SKIPPED = {"SKIP", "IGNORED"}


def main():
    passed = skipped = 0
    failures = []
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as log:
            for result in map(json.loads, log):
                if result["result"] in PASSED:
                    passed += 1
                elif result["result"] in SKIPPED:
                    skipped += 1
                else:
                    failures.append(f'{result["name"]}: {result["result"]}')
    print(passed, len(failures), skipped)
    for failure in failures:
        print(failure)


main()
