"""Checks of Helm's part in installs and upgrades: secrets are kept, and pods are only replaced if they must be."""

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
    """A release in a cluster that stores objects and runs none."""

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

    def uninstall(self):
        done = helm("uninstall", RELEASE, "-n", NAMESPACE, "--kubeconfig", str(self.config))
        assert done.returncode == 0, done.stderr

    def replicas(self, role: str) -> int:
        return self.server.kept("Deployment")[f"shop-carillon-{role}"]["spec"]["replicas"]

    def secrets(self) -> dict[str, dict[str, str]]:
        return {name: contents(secret) for name, secret in self.server.kept("Secret").items()}

    def templates(self) -> dict[str, dict]:
        """Returns the pod templates, by workload."""
        return {
            name: deepcopy(workload["spec"]["template"])
            for kind in ("Deployment", "StatefulSet")
            for name, workload in self.server.kept(kind).items()
        }


@pytest.fixture
def cluster(tmp_path: Path):
    with ApiServer() as server:
        yield Cluster(server, tmp_path)


def test_an_upgrade_keeps_generated_secrets_and_replaces_no_pod(cluster: Cluster):
    cluster.helm("install", DEFAULT, TWO_APPS)
    secrets, templates = cluster.secrets(), cluster.templates()
    assert secrets["shop-carillon-apps"].keys() == {"one", "two"} and len(templates) == 3
    cluster.helm("upgrade", DEFAULT, TWO_APPS)
    assert cluster.secrets() == secrets
    assert cluster.templates() == templates
    cluster.helm("upgrade", DEFAULT, TWO_APPS + "\ngateway: {replicas: 5}")
    assert cluster.server.kept("Deployment")["shop-carillon-gateway"]["spec"]["replicas"] == 5
    assert cluster.templates() == templates


def test_a_new_app_gets_a_separate_secret_and_other_apps_keep_theirs(cluster: Cluster):
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
    # Redis is not restarted, which would lose its data.
    assert cluster.templates()["shop-carillon-redis"] == templates["shop-carillon-redis"]


def test_a_generated_secret_may_be_changed_in_the_cluster(cluster: Cluster):
    """An operator may reuse the secret of another server."""
    cluster.helm("install", DEFAULT, TWO_APPS)
    templates = cluster.templates()
    cluster.server.kept("Secret")["shop-carillon-apps"]["data"]["one"] = base64.b64encode(b"reused secret").decode()
    cluster.helm("upgrade", DEFAULT, TWO_APPS)
    assert cluster.secrets()["shop-carillon-apps"]["one"] == "reused secret"
    assert cluster.templates()["shop-carillon-gateway"] != templates["shop-carillon-gateway"]


def scaling(enabled: bool) -> str:
    pods = f"replicas: 6, autoscaling: {{enabled: {str(enabled).lower()}, minReplicas: 2, maxReplicas: 20}}"
    return f"gateway: {{{pods}}}\npublisher: {{{pods}}}\nnginx: {{enabled: true, {pods}}}\n"


def test_autoscaling_keeps_the_current_number_of_pods(cluster: Cluster):
    """Without a number Kubernetes would scale a Deployment to one pod, to which all clients would reconnect."""
    parts = ("gateway", "publisher", "nginx")
    cluster.helm("install", DEFAULT, scaling(False))
    assert [cluster.replicas(part) for part in parts] == [6, 6, 6] and not cluster.server.kept("HorizontalPodAutoscaler")
    cluster.helm("upgrade", DEFAULT, scaling(True))
    assert [cluster.replicas(part) for part in parts] == [6, 6, 6]
    assert len(cluster.server.kept("HorizontalPodAutoscaler")) == 3
    for part, replicas in zip(parts, (9, 4, 3), strict=True):
        cluster.server.scale(f"shop-carillon-{part}", replicas)
    cluster.helm("upgrade", DEFAULT, scaling(True) + "commonLabels: {of: another-upgrade}")
    assert [cluster.replicas(part) for part in parts] == [9, 4, 3]


def test_autoscaling_from_the_start_begins_with_the_minimum(cluster: Cluster):
    cluster.helm("install", DEFAULT, scaling(True))
    assert [cluster.replicas(part) for part in ("gateway", "publisher", "nginx")] == [2, 2, 2]


def test_secrets_of_apps_are_kept_after_uninstall(cluster: Cluster):
    """Pages and applications use them. An installation with the same name uses them again."""
    cluster.helm("install", DEFAULT, TWO_APPS)
    secret = cluster.secrets()["shop-carillon-apps"]
    cluster.uninstall()
    assert cluster.secrets() == {"shop-carillon-apps": secret} and not cluster.server.kept("Deployment")
    cluster.helm("install", DEFAULT, TWO_APPS)
    assert cluster.secrets()["shop-carillon-apps"] == secret


def test_the_notes_are_complete_and_contain_no_secret(values_file: Path, cluster: Cluster):
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
