"""Values that must be refused, each for the reason that its first line says."""

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
    # One of them: releases of Helm write the place of a value in different ways.
    assert any(reason in rendered.stderr for reason in first.removeprefix(MARK).split("|")), rendered.stderr


def test_there_are_some():
    assert len(REFUSED_FILES) > 20
