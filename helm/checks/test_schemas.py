"""Validates everything that is rendered with the schemas of Kubernetes and of custom resources."""

import json
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from chart import CHART, KUBERNETES, Rendering, contents, helm

OLDEST, NEWEST = "1.27", "1.37"
VERSIONS = [OLDEST, "1.29", "1.31", KUBERNETES, NEWEST]

# The schemas of custom resources accept unknown fields, which the API server drops silently. These are the known fields.
KNOWN = {
    "HTTPRoute": {"parentRefs", "hostnames", "rules"},
    "HTTPRoute.rules": {"matches", "backendRefs", "timeouts"},
    "PrometheusRule": {"groups"},
    "PrometheusRule.groups": {"name", "rules", "interval", "labels", "limit"},
    "ServiceMonitor": {"selector", "namespaceSelector", "endpoints"},
    "ServiceMonitor.endpoints": {"port", "path", "interval", "scrapeTimeout", "relabelings", "metricRelabelings"},
}
ADDED = {kind for kind in KNOWN if "." not in kind}


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_accepts_the_manifests(chart: Rendering, version: str):
    kinds = set()
    for manifest in chart.manifests:
        if manifest["kind"] not in ADDED:
            kubernetes_validate.validate(manifest, version, strict=True)
            kinds.add(manifest["kind"])
    assert {"Deployment", "Service", "ConfigMap"} <= kinds or {"Deployment", "Service", "Secret"} <= kinds


def test_the_validation_finds_errors():
    manifest = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [], "port": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def test_custom_resources_match_their_schemas(chart: Rendering):
    manifests = chart.all(*ADDED)
    assert not (errors := added_errors(manifests)), errors
    for manifest in manifests:
        kind = manifest["kind"]
        assert manifest["spec"].keys() <= KNOWN[kind]
        for field, items in manifest["spec"].items():
            for item in items if f"{kind}.{field}" in KNOWN else []:
                assert item.keys() <= KNOWN[f"{kind}.{field}"]


def test_the_validation_of_custom_resources_finds_errors():
    wrong = [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "ServiceMonitor",
            "metadata": {"name": "a"},
            "spec": {"endpoints": 1},
        },
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {"name": "b"},
            "spec": {"groups": [{}]},
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": "c"},
            "spec": {"rules": [{"timeouts": {"request": "soon"}}]},
        },
        {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "TCPRoute", "metadata": {"name": "d"}},
    ]
    errors = added_errors(wrong)
    assert [name in errors for name in ("ServiceMonitor a:", "PrometheusRule b:", "HTTPRoute c:", "TCPRoute d:")] == [
        True
    ] * 4


def test_every_custom_resource_is_rendered_by_a_values_file():
    from chart import VALUES_FILES, render

    assert {manifest["kind"] for file in VALUES_FILES for manifest in render(file).all(*ADDED)} == ADDED


def test_lint_finds_nothing(values_file: Path):
    linted = helm("lint", "--strict", str(CHART), "-f", str(values_file), "--kube-version", KUBERNETES)
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_rules_and_dashboard_are_the_files_of_the_chart(chart: Rendering):
    for rule in chart.all("PrometheusRule"):
        files = sorted((CHART / "files/prometheus/rules").glob("*.yml"))
        groups = [group for file in files for group in yaml.safe_load(file.read_text())["groups"]]
        assert groups and rule["spec"]["groups"] == groups
    for config in chart.all("ConfigMap"):
        if config["metadata"]["name"].endswith("-dashboard"):
            files = {file.name: file.read_text() for file in (CHART / "files/grafana/dashboards").glob("*.json")}
            assert files
            assert {name: json.loads(text) for name, text in contents(config).items()} == {
                name: json.loads(text) for name, text in files.items()
            }


def added_errors(manifests: list) -> str:
    """Returns the validation errors, one per line."""
    checked = subprocess.run(
        ["node", "crds/validate.mjs"],
        cwd=Path(__file__).parent,
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not checked.stderr, checked.stderr
    assert (checked.returncode != 0) == bool(checked.stdout)
    return checked.stdout
