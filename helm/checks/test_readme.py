"""Checks that the chart accepts the examples of its README, and that these follow the README's advice."""

import re

import pytest
import yaml

from chart import CHART, fresh, values_schema

README = (CHART / "README.md").read_text()
BASE = CHART / "ci/default-values.yaml"
DOCUMENTS = [
    document
    for block in re.findall(r"^```yaml\n(.*?)^```", README, re.S | re.M)
    for document in yaml.safe_load_all(block)
]
VALUES = [document for document in DOCUMENTS if document.keys() <= values_schema()["properties"].keys()]


@pytest.mark.parametrize("values", VALUES, ids=lambda values: ",".join(values))
def test_examples_of_values_render(values: dict):
    # Only one Redis may be configured, and the base has the bundled one.
    bundled = {} if "redis" not in values else {"redis": {"bundled": {"enabled": False}} | values["redis"]}
    assert fresh(BASE, yaml.safe_dump(values | bundled)).manifests


def test_there_are_examples():
    others = {document.get("kind", "rules") for document in DOCUMENTS if document not in VALUES}
    assert len(VALUES) >= 8 and others == {"rules", "BackendConfig", "HealthCheckPolicy", "GCPBackendPolicy"}


def test_balancers_check_a_path_that_is_healthy_without_redis_and_during_a_drain():
    """Some balancers cut the open connections of a target that fails its check."""
    text = yaml.safe_dump_all(DOCUMENTS)
    paths = re.findall(r"(?:health(?:check|-probe)-path|requestPath): (\S+)", text)
    assert len(paths) >= 5 and set(paths) <= {"/up", "/healthz"}


def test_balancers_keep_open_connections_longer_than_the_drain():
    checked = 0
    for values in VALUES:
        drain = values.get("config", {}).get("drain")
        for seconds in re.findall(r"(?:deregistration_delay\.timeout_seconds=|connection-draining-timeout: .)(\d+)", yaml.safe_dump(values)):
            if drain:
                assert int(seconds) > sum(int(drain[key].removesuffix("s")) for key in ("accept", "window"))
            else:
                assert int(seconds) > values["nginx"]["acceptSeconds"] + 60 + 20
            checked += 1
    assert checked == 3


def test_a_controller_without_releases_is_listed_last():
    rows = re.findall(r"^  \| (\S.*?) \|", README[README.index("## Ingress and load balancers") :], re.M)
    assert "ingress-nginx" in rows[-1] and not any("ingress-nginx" in row for row in rows[:-1])
