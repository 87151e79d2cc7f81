"""Checks of the rendered configuration with the binary."""

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from chart import VALUES_FILES, Rendering, values_schema
from machine import BINARY, Machine, make_certificates
from test_settings import OF_THE_CHART
from test_values import resolve


@pytest.fixture(scope="module")
def foreign(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Secrets that the values files refer to."""
    made = make_certificates(tmp_path_factory.mktemp("certificates"))
    pair = {key: made[key] for key in ("tls.crt", "tls.key")}
    return {
        "admin-broadcast": {"admin": "made-up"},
        "authority": {"root.pem": made["ca.crt"]},
        "broadcast-redis": {"REDIS_URL": "rediss://redis.example:6379"},
        "elsewhere": {"elsewhere": "made-up"},
        "hooks": {"authorization": "Bearer made-up", "api-key": "made-up"},
        "internal-authority": {"ca.crt": made["ca.crt"]},
        "hooks-authority": {"ca.crt": made["ca.crt"]},
        "internal-client": pair,
        "redis": {"redis-password": "made-up"},
        "shop-broadcast": {"secret": "made-up"},
        "ws-tls": pair,
    }


@pytest.mark.parametrize("role", ["gateway", "publisher"])
def test_the_binary_accepts_the_configuration(chart: Rendering, role: str, foreign, tmp_path: Path):
    with Machine(chart, tmp_path, foreign) as machine:
        checked = machine.run_command(role, "check-config")
        assert checked.returncode == 0, checked.stderr


def test_settings_are_rendered_unchanged(values_file: Path, chart: Rendering):
    """Every setting keeps its type and unit, and none is missing."""
    values = yaml.safe_load(values_file.read_text())
    toml = chart.toml
    for section, settings in values.get("config", {}).items():
        for key, value in settings.items():
            assert toml[section][key] == value, f"{section}.{key}"
    for app, rendered in zip(values.get("apps", []), toml["apps"], strict=False):
        assert (rendered["id"], rendered["key"]) == (app["id"], app["key"])
        for key, value in app.get("settings", {}).items():
            assert without_files(rendered[key]) == without_files(value), key


def without_files(setting):
    """Replaces header files by their names: they are Secrets in values and paths in Carillon's configuration."""
    if isinstance(setting, list):
        return [without_files(item) for item in setting]
    if isinstance(setting, dict) and "header_files" in setting:
        return setting | {"header_files": setting["header_files"].keys()}
    return setting


def test_every_setting_of_the_schema_is_used_in_a_values_file():
    schema = values_schema()
    tried = set()
    for file in VALUES_FILES:
        values = yaml.safe_load(file.read_text())
        tried |= paths(values.get("config", {}))
        for app in values.get("apps", []):
            tried |= {f"apps.{path}" for path in paths(app.get("settings", {}))}
    defaults = yaml.safe_load((VALUES_FILES[0].parent.parent / "values.yaml").read_text())["config"]
    tried |= paths(defaults)

    def known(node: dict, path: str) -> set[str]:
        node = resolve(schema, node)
        if node.get("type") == "array":
            node = resolve(schema, node["items"])
        if "properties" not in node:
            return {path}
        return set().union(*(known(below, f"{path}.{key}".lstrip(".")) for key, below in node["properties"].items()))

    everything = known(schema["properties"]["config"], "")
    everything |= {f"apps.{path}" for path in known(schema["definitions"]["settings"], "")}
    assert everything - tried == set()


def test_every_setting_of_the_binary_is_in_the_schema_or_set_by_the_chart(tmp_path: Path):
    schema = values_schema()
    (tmp_path / "carillon.toml").write_text('[[apps]]\nid = "a"\nkey = "a"\nsecret = "a"\n')
    printed = subprocess.run(
        [str(BINARY), "print-config", "--config", str(tmp_path / "carillon.toml")], capture_output=True, text=True
    )
    assert printed.returncode == 0, printed.stderr
    config = tomllib.loads(printed.stdout)
    known = {
        name: set(resolve(schema, node)["properties"])
        for name, node in schema["properties"]["config"]["properties"].items()
    }
    known["apps"] = set(schema["definitions"]["settings"]["properties"])
    for section, settings in config.items():
        settings = settings[0] if section == "apps" else settings
        covered = known.get(section, set()) | OF_THE_CHART.get(section, set())
        assert settings.keys() <= covered, f"[{section}]: {settings.keys() - covered}"
    assert config["apps"][0]["limits"].keys() <= schema["definitions"]["limits"]["properties"].keys()


def paths(value: object, path: str = "") -> set[str]:
    """Returns every path, including paths of mappings. Items of a list share one path."""
    if isinstance(value, dict):
        return {path}.union(*(paths(below, f"{path}.{key}".lstrip(".")) for key, below in value.items()))
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {path}.union(*(paths(item, path) for item in value))
    return {path}
