"""Runs every check with the fixture `chart` for every values file of helm/carillon/ci."""

import pytest

import chart as rendering


@pytest.fixture(params=rendering.VALUES_FILES, ids=lambda file: file.stem.removesuffix("-values"))
def values_file(request):
    return request.param


@pytest.fixture
def chart(values_file):
    return rendering.render(values_file)
