"""Checks that the chart and Carillon agree on the settings, by the schema that Carillon generates from its types."""

import json

import pytest
import yaml

from chart import CHART, REPOSITORY, values_schema
from test_values import resolve

# Settings that the chart decides for every pod.
OF_THE_CHART = {
    "server": {"host", "port"},
    "admin": {"host", "port"},
    "redis": {"url", "url_file", "ca_file", "cert_file", "key_file"},
    "peers": {"host", "port", "advertise"},
    "tls": {"cert", "key"},
    "webhooks": {"ca_file"},
    "apps": {"id", "key", "secret", "secret_file"},
    # A header of a webhook is a key of a Secret, so its value comes from a file.
    "apps.webhooks": set(),
}

# Other names that Carillon accepts for a setting; its schema has the main names only.
ALIASES = {"apps.webhooks.filter": {"channel_name_starts_with", "channel_name_ends_with"}}

# Defaults of the chart that differ from those of Carillon: a pod has limited memory and CPU, and shuts down behind balancers.
DIFFERENT = {
    "server.connections_max": 20000,
    "server.shards": 2,
    "drain.accept": "10s",
    "drain.window": "30s",
    "log.format": "json",
    "redis.prefix": "",
}

SETTINGS = json.loads((REPOSITORY / "docs/configuration.schema.json").read_text())
VALUES = values_schema()
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())["config"]
SECTIONS = sorted(SETTINGS["properties"].keys() - {"tls", "apps"})


def of_settings(node: dict) -> dict:
    """The properties of a table or of the tables in a list."""
    return node.get("items", node).get("properties", {})


def of_values(node: dict) -> dict:
    node = resolve(VALUES, node)
    return resolve(VALUES, node.get("items", node)).get("properties", {})


def choices(node: dict) -> list[str]:
    """The values of an enum; the schema of Carillon lists them with a description."""
    return sorted(node.get("enum", [variant["const"] for variant in node.get("oneOf", [])]))


def differences(settings: dict, values: dict, path: str) -> list[str]:
    """The keys that only one of two tables has, and the choices that differ."""
    known, chart = of_settings(settings), of_values(values)
    ours = chart.keys() | OF_THE_CHART.get(path, set())
    found = [f"{path}.{key}: the chart does not know it" for key in known.keys() - ours]
    unknown = chart.keys() - known.keys() - ALIASES.get(path, set())
    found += [f"{path}.{key}: Carillon does not know it" for key in unknown]
    for key in known.keys() & chart.keys():
        below, value = known[key], resolve(VALUES, chart[key])
        if of_values(value):
            found += differences(below, value, f"{path}.{key}")
        for one, other in [(below, value), (below.get("items", {}), resolve(VALUES, value.get("items", {})))]:
            if isinstance(other, dict) and other.get("enum") and choices(one) != choices(other):
                found.append(f"{path}.{key}: {choices(one)} are not {choices(other)}")
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_has_the_same_settings_in_the_chart(section: str):
    chart = VALUES["properties"]["config"]["properties"]
    assert differences(SETTINGS["properties"][section], chart.get(section, {}), section) == []


def test_an_app_has_the_same_settings_in_the_chart():
    assert differences(SETTINGS["properties"]["apps"], VALUES["definitions"]["settings"], "apps") == []


def test_the_chart_has_no_other_section():
    assert sorted(VALUES["properties"]["config"]["properties"]) == SECTIONS


def test_a_wrong_key_is_found():
    wrong = {"properties": {"level": {}, "levels": {}}}
    assert differences(SETTINGS["properties"]["log"], wrong, "log") == [
        "log.format: the chart does not know it",
        "log.levels: Carillon does not know it",
    ]


def test_defaults_of_the_chart_are_those_of_carillon_or_are_listed():
    stated = {f"{section}.{key}": value for section, keys in DEFAULTS.items() for key, value in keys.items()}
    known = {
        f"{section}.{key}": node.get("default")
        for section in SECTIONS
        for key, node in of_settings(SETTINGS["properties"][section]).items()
    }
    assert stated.keys() <= known.keys()
    assert {key: value for key, value in stated.items() if value != known[key]} == DIFFERENT
