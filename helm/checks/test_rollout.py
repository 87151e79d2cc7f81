"""That updates and ends of pods lose nobody, and that pods are replaced when what they read has changed."""

import pytest

from chart import CHART, VALUES_FILES, Rendering, fresh, render, seconds

DEFAULT = CHART / "ci/default-values.yaml"
ELSEWHERE = CHART / "ci/redis-tls-values.yaml"

# What any role may take after drain.accept and, where it has clients, drain.window. docs/OPERATIONS.md promises it.
LEAVE_S = 10


def test_the_grace_exceeds_the_drain(chart: Rendering):
    drain = chart.toml["drain"]
    accept, window = seconds(drain["accept"]), seconds(drain["window"])
    assert chart.pod("gateway").spec["terminationGracePeriodSeconds"] > accept + window + LEAVE_S
    assert chart.pod("publisher").spec["terminationGracePeriodSeconds"] > accept + LEAVE_S
    for pod in chart.pods:
        if pod.component == "nginx":
            (sleep,) = [command[1] for command in [pod.main["lifecycle"]["preStop"]["exec"]["command"]]]
            shutdown = int(
                next(line for line in nginx_main(chart) if line.startswith("worker_shutdown_timeout"))
                .split()[1]
                .rstrip("s;")
            )
            assert pod.spec["terminationGracePeriodSeconds"] > int(sleep) + shutdown


def test_nothing_can_change_the_drain_behind_the_checks_back(chart: Rendering):
    for role in ("gateway", "publisher"):
        for container in chart.pod(role).containers:
            names = {variable["name"] for variable in container.get("env", [])}
            ours = {name for name in names if name.startswith(("CARILLON_", "REVERB_", "PUSHER_"))}
            assert ours == {"CARILLON_ADMIN__HOST", "CARILLON_REDIS__URL"}
            assert "envFrom" not in container


def test_updates_take_no_pod_away_before_another_is_ready(chart: Rendering):
    for deployment in chart.all("Deployment"):
        update = deployment["spec"]["strategy"]
        assert update["type"] == "RollingUpdate"
        assert update["rollingUpdate"]["maxUnavailable"] == 0
        assert update["rollingUpdate"]["maxSurge"] not in (0, "0%")
        assert deployment["spec"]["minReadySeconds"] > 0
        assert "readinessProbe" in deployment["spec"]["template"]["spec"]["containers"][0]


def test_roles_need_no_hook_and_no_affinity(chart: Rendering):
    for role in ("gateway", "publisher"):
        assert "lifecycle" not in chart.pod(role).main
    for service in chart.all("Service"):
        assert "sessionAffinity" not in service["spec"]


def test_idle_connections_outlive_what_clients_may_be_silent(chart: Rendering):
    server = chart.toml["server"]
    silence = seconds(server.get("activity_timeout", "2m")) + seconds(server.get("pong_timeout", "30s"))
    if any(pod.component == "nginx" for pod in chart.pods):
        assert silence < 200


CHANGES_OF_CONFIGURATION = [
    "config: {server: {outbox_bytes: 4MiB}}",
    "config: {drain: {accept: 9s}}",
    "config: {log: {level: debug}}",
    "apps: [{id: app, key: other-key}]",
    "apps: [{id: app, key: app-key, settings: {limits: {connections: 5}}}]",
]


@pytest.mark.parametrize("values", CHANGES_OF_CONFIGURATION)
def test_a_change_of_the_configuration_replaces_the_pods_of_both_roles(values: str):
    before, after = checksums(render(DEFAULT)), checksums(render(DEFAULT, values))
    assert before["gateway"]["config"] != after["gateway"]["config"]
    assert before["publisher"]["config"] != after["publisher"]["config"]


def test_a_change_of_a_secret_replaces_the_pods_that_read_it():
    one, other = (
        checksums(render(ELSEWHERE, f"apps: [{{id: app, key: app-key, secret: {secret}}}]"))
        for secret in ("one", "other")
    )
    for role in ("gateway", "publisher"):
        assert one[role]["secrets"] != other[role]["secrets"]
        assert one[role]["config"] == other[role]["config"]
    base = "redis: {existingSecret: {name: ''}, url: rediss://redis:%s}"
    one, other = (checksums(render(ELSEWHERE, base % port)) for port in (6379, 6380))
    assert one["gateway"]["secrets"] != other["gateway"]["secrets"]


@pytest.mark.parametrize(
    "values",
    [
        "gateway: {replicas: 5}",
        "networkPolicy: {enabled: false}",
        "metrics: {dashboard: {enabled: true}}",
        "tests: {enabled: false}",
    ],
)
def test_what_pods_do_not_read_replaces_nobody(values: str):
    """Generated secrets differ from one rendering to the next, so this has none."""
    given = "apps: [{id: app, key: app-key, secret: given}]\n"
    before, after = render(ELSEWHERE, given), render(ELSEWHERE, given + values)
    for role in ("gateway", "publisher"):
        assert before.pod(role).owner["spec"]["template"] == after.pod(role).owner["spec"]["template"]


def test_a_change_of_nginx_replaces_its_pods():
    file = next(file for file in VALUES_FILES if file.stem == "nginx-values")
    before, after = checksums(render(file)), checksums(render(file, "nginx: {trustedProxies: [192.0.2.1]}"))
    assert before["nginx"]["config"] != after["nginx"]["config"]
    assert before["gateway"]["config"] == after["gateway"]["config"]


def test_the_checksum_is_that_of_the_secret_of_the_same_rendering():
    """A value that were generated twice would replace all pods at the first upgrade."""
    first = fresh(DEFAULT)
    again = fresh(DEFAULT)
    assert checksums(first)["gateway"]["secrets"] == checksums(first)["publisher"]["secrets"]
    assert checksums(first)["gateway"]["secrets"] != checksums(again)["gateway"]["secrets"]


def checksums(chart: Rendering) -> dict[str, dict[str, str]]:
    return {
        pod.component: {
            key.removeprefix("checksum/"): value
            for key, value in pod.annotations.items()
            if key.startswith("checksum/")
        }
        for pod in chart.pods
        if pod.component != "test"
    }


def nginx_main(chart: Rendering) -> list[str]:
    from test_wiring import nginx_files

    return nginx_files(chart)["nginx.conf"].splitlines()
