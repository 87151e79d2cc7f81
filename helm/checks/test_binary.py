"""What the binary says of the configuration that is rendered for it."""

import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from chart import VALUES_FILES, Rendering, values_schema
from machine import BINARY, Machine, make_certificate
from test_values import resolve

# Belong to the chart, which decides them in every pod.
OF_THE_CHART = {
    "server": {"host", "port"},
    "admin": {"host", "port"},
    "redis": {"url", "ca_file"},
    "tls": {"cert", "key"},
    "apps": {"id", "key", "secret", "secret_file"},
}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> dict[str, str]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("role", ["gateway", "publisher"])
def test_the_binary_takes_the_configuration(chart: Rendering, role: str, certificate, tmp_path: Path):
    with Machine(chart, tmp_path) as machine:
        root = files_of(machine, role, certificate)
        checked = run("check-config", root)
        assert checked.returncode == 0, checked.stderr


def test_settings_arrive_as_they_were_written(values_file: Path, chart: Rendering, certificate, tmp_path: Path):
    """Not as another type, another unit, or not at all."""
    values = yaml.safe_load(values_file.read_text())
    toml = chart.toml
    for section, settings in values.get("config", {}).items():
        for key, value in settings.items():
            assert toml[section][key] == value, f"{section}.{key}"
    for app, rendered in zip(values.get("apps", []), toml["apps"], strict=False):
        assert (rendered["id"], rendered["key"]) == (app["id"], app["key"])
        for key, value in app.get("settings", {}).items():
            assert rendered[key] == value, key


def test_every_setting_that_the_schema_knows_is_tried():
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


def test_every_setting_of_the_binary_has_a_place(tmp_path: Path):
    """In the schema, or among those that the chart decides."""
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
        places = known.get(section, set()) | OF_THE_CHART.get(section, set())
        assert settings.keys() <= places, f"[{section}]: {settings.keys() - places}"
    assert config["apps"][0]["limits"].keys() <= schema["definitions"]["limits"]["properties"].keys()


def files_of(machine: Machine, role: str, certificate: dict[str, str]) -> Path:
    """The files of a role's container; those that come from foreign Secrets are made up."""
    pod = machine.chart.pod(role)
    given = {app["secret_file"]: "made-up" for app in machine.chart.toml["apps"]}
    given |= {
        "/run/carillon/redis/ca.crt": certificate["tls.crt"],
        "/run/carillon/tls/tls.crt": certificate["tls.crt"],
        "/run/carillon/tls/tls.key": certificate["tls.key"],
    }
    return machine.files(pod, pod.main, given)


def run(command: str, root: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [str(BINARY), command, "--config", str(root / "etc/carillon/carillon.toml")],
        env={"CARILLON_REDIS__URL": "rediss://redis.example:6379"},
        capture_output=True,
        text=True,
        timeout=20,
    )


def paths(value: object, path: str = "") -> set[str]:
    """Every path, those of mappings included; items of lists share one."""
    if isinstance(value, dict):
        return {path}.union(*(paths(below, f"{path}.{key}".lstrip(".")) for key, below in value.items()))
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return {path}.union(*(paths(item, path) for item in value))
    return {path}
