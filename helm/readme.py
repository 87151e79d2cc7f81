#!/usr/bin/env python3
"""Writes helm/carillon/README.md: readme.in.md, with `<!-- values -->` replaced by a table of values.yaml.

    helm/readme.py             writes the file
    helm/readme.py --check     fails if the file is not current

The line `# -- …` directly before a key describes its value. A described mapping is one row of the table, unless one of its keys is
described too. A leaf without a description is an error.
"""

import json
import re
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
VALUES = HERE / "carillon/values.yaml"
TEMPLATE = HERE / "readme.in.md"
README = HERE / "carillon/README.md"
MARKER = "<!-- values -->"

# The longest default that the table shows. For longer ones it refers to values.yaml.
DEFAULT_LENGTH_MAX = 60

KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_][A-Za-z0-9_]*):")
DESCRIPTION = re.compile(r"^ *# -- (?P<text>.+)$")


class Undescribed(Exception):
    """A value without a description."""


def descriptions(text: str) -> dict[tuple[str, ...], str]:
    """Returns the description of each described key, by the key's path."""
    found: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    pending = None
    for line in text.splitlines():
        if described := DESCRIPTION.match(line):
            pending = described["text"]
            continue
        if key := KEY.match(line):
            indent = len(key["indent"])
            path = [outer for outer in path if outer[0] < indent] + [(indent, key["key"])]
            if pending is not None:
                found[tuple(name for _, name in path)] = pending
        pending = None
    return found


def rows(values: dict, described: dict[tuple[str, ...], str], path: tuple[str, ...] = ()) -> list[str]:
    """Returns the rows of the table, in the order of the file."""
    out = []
    for key, value in values.items():
        here = (*path, key)
        if here in described and any(len(other) > len(here) and other[: len(here)] == here for other in described):
            out.append(f"| `{'.'.join(here)}` | | {described[here]} |")
            out += rows(value, described, here)
        elif here in described:
            meaning = described[here].replace("|", "\\|")
            out.append(f"| `{'.'.join(here)}` | {default(value)} | {meaning} |")
        elif isinstance(value, dict) and value:
            out += rows(value, described, here)
        else:
            raise Undescribed(f"values.yaml: {'.'.join(here)} has no description (`# -- …`)")
    return out


def default(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= DEFAULT_LENGTH_MAX else "see `values.yaml`"


def readme() -> str:
    text = VALUES.read_text()
    table = ["| key | default | meaning |", "|---|---|---|", *rows(yaml.safe_load(text), descriptions(text))]
    template = TEMPLATE.read_text()
    if template.count(MARKER) != 1:
        raise Undescribed(f"readme.in.md: expected {MARKER} once")
    return template.replace(MARKER, "\n".join(table))


def main() -> int:
    expected = readme()
    if sys.argv[1:] == ["--check"]:
        if not README.exists() or README.read_text() != expected:
            print("helm/carillon/README.md is not current: run helm/readme.py", file=sys.stderr)
            return 1
        return 0
    if sys.argv[1:]:
        print("usage: helm/readme.py [--check]", file=sys.stderr)
        return 2
    README.write_text(expected)
    return 0


if __name__ == "__main__":
    sys.exit(main())
