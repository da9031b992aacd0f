#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Every relative link of the documents leads to a file of the tree, or to a heading in one.

usage: links.py SOURCE_ROOT
"""
import pathlib
import re
import subprocess
import sys

LINK = re.compile(r"\]\(([^()\s]+)\)")
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")
SKIPPED = {".git", "subprojects", "build-tools"}


def documents(root):
    """What git knows or would add; in an unpacked archive everything outside of builds."""
    done = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=root,
                          capture_output=True, text=True)
    if done.returncode == 0 and done.stdout:
        return sorted(root / name for name in done.stdout.split("\n") if name)
    return sorted(path for path in root.rglob("*.md")
                  if not any(part in SKIPPED or part.startswith("build")
                             for part in path.relative_to(root).parts[:-1]))


def prose(text):
    """Without code, where brackets before parentheses are no links; lines keep their numbers."""
    text = re.sub(r"^```.*?^```", lambda m: "\n" * m.group().count("\n"), text, flags=re.M | re.S)
    return re.sub(r"`[^`\n]*`(?!\])", "", text)


def headings(path):
    """As the hosts of repositories name them: lower case, no punctuation, dashes for blanks."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    for heading in re.findall(r"^#+ +(.*?) *$", text, flags=re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def complaint(document, target):
    name, _, anchor = target.partition("#")
    path = document.parent / name if name else document
    if not path.exists():
        return f"{target}: nothing is there"
    if anchor and path.suffix == ".md" and anchor not in headings(path):
        return f"{target}: no such heading"
    return None


def main():
    root = pathlib.Path(sys.argv[1]).resolve()
    complaints, count = [], 0
    for document in documents(root):
        lines = prose(document.read_text(encoding="utf-8")).split("\n")
        for number, line in enumerate(lines, 1):
            for target in LINK.findall(line):
                if ELSEWHERE.match(target):
                    continue
                count += 1
                why = complaint(document, target)
                if why:
                    complaints.append(f"{document.relative_to(root)}:{number}: {why}")
    print("\n".join(complaints) if complaints else f"{count} links lead somewhere")
    sys.exit(1 if complaints or not count else 0)


main()
