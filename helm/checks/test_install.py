"""Installing and upgrading, as far as Helm's own part in it: secrets stay, and pods that need not be replaced are not."""

import base64
import re
from copy import deepcopy
from pathlib import Path

import pytest

from apiserver import ApiServer
from chart import CHART, NAMESPACE, RELEASE, contents, helm

DEFAULT = CHART / "ci/default-values.yaml"
TWO_APPS = "apps: [{id: one, key: one}, {id: two, key: two}]"
THREE_APPS = "apps: [{id: one, key: one}, {id: two, key: two}, {id: three, key: three}]"


class Cluster:
    """A release in a cluster that keeps objects and runs none."""

    def __init__(self, server: ApiServer, folder: Path):
        self.server = server
        self.config = server.kubeconfig(folder / "kubeconfig")

    def helm(self, command: str, file: Path, values: str, *arguments: str) -> str:
        done = helm(
            command,
            RELEASE,
            str(CHART),
            "-n",
            NAMESPACE,
            "--kubeconfig",
            str(self.config),
            "--disable-openapi-validation",
            "-f",
            str(file),
            "-f",
            "-",
            *arguments,
            values=values,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def secrets(self) -> dict[str, dict[str, str]]:
        return {name: contents(secret) for name, secret in self.server.kept("Secret").items()}

    def templates(self) -> dict[str, dict]:
        """What pods are made from, by workload."""
        return {
            name: deepcopy(workload["spec"]["template"])
            for kind in ("Deployment", "StatefulSet")
            for name, workload in self.server.kept(kind).items()
        }


@pytest.fixture
def cluster(tmp_path: Path):
    with ApiServer() as server:
        yield Cluster(server, tmp_path)


def test_an_upgrade_keeps_what_was_generated_and_replaces_no_pod(cluster: Cluster):
    cluster.helm("install", DEFAULT, TWO_APPS)
    secrets, templates = cluster.secrets(), cluster.templates()
    assert secrets["shop-carillon-apps"].keys() == {"one", "two"} and len(templates) == 3
    cluster.helm("upgrade", DEFAULT, TWO_APPS)
    assert cluster.secrets() == secrets
    assert cluster.templates() == templates
    cluster.helm("upgrade", DEFAULT, TWO_APPS + "\ngateway: {replicas: 5}")
    assert cluster.server.kept("Deployment")["shop-carillon-gateway"]["spec"]["replicas"] == 5
    assert cluster.templates() == templates


def test_another_app_gets_a_secret_of_its_own_and_the_others_keep_theirs(cluster: Cluster):
    cluster.helm("install", DEFAULT, TWO_APPS)
    secrets, templates = cluster.secrets(), cluster.templates()
    cluster.helm("upgrade", DEFAULT, THREE_APPS)
    after = cluster.secrets()["shop-carillon-apps"]
    assert secrets["shop-carillon-apps"].items() <= after.items() and after.keys() == {"one", "two", "three"}
    assert cluster.secrets()["shop-carillon-redis"] == secrets["shop-carillon-redis"]
    for role in ("gateway", "publisher"):
        before, now = (
            kept[f"shop-carillon-{role}"]["metadata"]["annotations"] for kept in (templates, cluster.templates())
        )
        assert before["checksum/secrets"] != now["checksum/secrets"]
        assert before["checksum/config"] != now["checksum/config"]
    # Redis is not restarted for it, which would lose what it holds.
    assert cluster.templates()["shop-carillon-redis"] == templates["shop-carillon-redis"]


def test_what_was_generated_may_be_changed_in_the_cluster(cluster: Cluster):
    """As by someone who brings the secret of another server along."""
    cluster.helm("install", DEFAULT, TWO_APPS)
    templates = cluster.templates()
    cluster.server.kept("Secret")["shop-carillon-apps"]["data"]["one"] = base64.b64encode(b"brought along").decode()
    cluster.helm("upgrade", DEFAULT, TWO_APPS)
    assert cluster.secrets()["shop-carillon-apps"]["one"] == "brought along"
    assert cluster.templates()["shop-carillon-gateway"] != templates["shop-carillon-gateway"]


def test_what_is_printed_is_for_people(values_file: Path, cluster: Cluster):
    printed = cluster.helm("install", values_file, "{}").split("NOTES:\n")[1]
    assert f"in {NAMESPACE}." in printed
    assert not re.search(r"<no value>|%!|<nil>|map\[", printed), printed
    for command in re.findall(r"kubectl .*", printed):
        (secret, key) = re.search(
            r"get secret (\S+) -o go-template='\{\{index \.data \"(.*)\" \| base64decode\}\}'", command
        ).groups()
        if secret in cluster.secrets():
            assert key in cluster.secrets()[secret]
    for secrets in cluster.secrets().values():
        for secret in secrets.values():
            assert len(secret) <= 8 or secret not in printed
