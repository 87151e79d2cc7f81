"""Checks values that must be refused, with the reason in the first line of each file."""

from pathlib import Path

import pytest

from chart import REFUSED_FILES, template

MARK = "# Refused with: "


@pytest.mark.parametrize("file", REFUSED_FILES, ids=lambda file: file.stem)
def test_bad_values_are_refused_with_their_reason(file: Path):
    first = file.read_text().splitlines()[0]
    assert first.startswith(MARK)
    rendered = template("-f", str(file))
    assert rendered.returncode != 0
    # The alternatives cover several releases of Helm, which write the path of a value in different ways.
    assert any(reason in rendered.stderr for reason in first.removeprefix(MARK).split("|")), rendered.stderr


def test_there_are_some():
    assert len(REFUSED_FILES) > 20
