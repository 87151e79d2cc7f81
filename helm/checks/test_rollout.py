"""Checks that updates and terminating pods do not lose clients, and that pods are replaced when their configuration changes."""

import re

import pytest

from chart import CHART, VALUES_FILES, Rendering, fresh, render, seconds

DEFAULT = CHART / "ci/default-values.yaml"
ELSEWHERE = CHART / "ci/redis-tls-values.yaml"

# Shutdown time of each role after drain.accept and, on gateways, drain.window. docs/OPERATIONS.md states it.
SHUTDOWN_S = 10


def test_the_grace_period_exceeds_the_drain(chart: Rendering):
    drain = chart.toml["drain"]
    accept, window = seconds(drain["accept"]), seconds(drain["window"])
    assert chart.pod("gateway").spec["terminationGracePeriodSeconds"] > accept + window + SHUTDOWN_S
    assert chart.pod("publisher").spec["terminationGracePeriodSeconds"] > accept + SHUTDOWN_S
    for pod in chart.pods:
        if pod.component == "nginx":
            notice, step, last = (int(number) for number in re.findall(r"sleep (\d+)", nginx_hook(chart)))
            workers, cut = number_of(chart, "worker_processes"), number_of(chart, "worker_shutdown_timeout")
            # A worker cuts its clients after this time, and the hook waits for the last one.
            assert last == cut
            # After the hook nginx itself shuts down, including clients that new workers accepted in the meantime.
            assert pod.spec["terminationGracePeriodSeconds"] > notice + workers * step + last + cut


@pytest.mark.parametrize("accept, window, seconds", [("10s", "30s", 40), ("2m", "5m", 420), ("1500ms", "5s", 7), ("0s", "20m", 1200)])
def test_an_update_drains_one_gateway_at_a_time(accept: str, window: str, seconds: int):
    """The clients of a gateway reconnect before the next one drains. Otherwise 20 gateways would be replaced in 41 s."""
    chart = render(DEFAULT, f"config: {{drain: {{accept: {accept}, window: {window}}}}}")
    spec = chart.pod("gateway").owner["spec"]
    assert spec["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert spec["minReadySeconds"] == seconds
    assert chart.pod("gateway").spec["terminationGracePeriodSeconds"] == seconds + 20
    # Kubernetes refuses a Deployment if it is not longer, and reports a failed update if it is too short.
    assert spec["progressDeadlineSeconds"] >= spec["minReadySeconds"] + 300
    scaled = render(DEFAULT, f"{{config: {{drain: {{accept: {accept}, window: {window}}}}}, gateway: {{autoscaling: {{enabled: true}}}}}}")
    (scaler,) = scaled.all("HorizontalPodAutoscaler")
    (policy,) = scaler["spec"]["behavior"]["scaleDown"]["policies"]
    assert policy["value"] == 1 and policy["periodSeconds"] == max(120, seconds + 20)


@pytest.mark.parametrize(
    "connections, rate, window", [(20000, 5000, 4), (100000, 2000, 50), (100001, 2000, 51), (100000, 0, 1), (0, 5000, 1)]
)
def test_the_rate_extends_the_window_of_a_full_gateway(connections: int, rate: int, window: int):
    values = f"config: {{server: {{connections_max: {connections}}}, drain: {{accept: 0s, window: 1s, rate: {rate}}}}}"
    chart = render(DEFAULT, values)
    assert chart.toml["drain"]["rate"] == rate
    assert chart.pod("gateway").owner["spec"]["minReadySeconds"] == window
    assert chart.pod("gateway").spec["terminationGracePeriodSeconds"] == window + 2 * SHUTDOWN_S


@pytest.mark.parametrize(
    "gateway",
    [
        "{replicas: 100, maxSurge: 5}",
        "{replicas: 3, maxSurge: 25%}",
        # The maximum of the autoscaler counts, not the current number.
        "{autoscaling: {enabled: true, maxReplicas: 100}, maxSurge: 10}",
    ],
)
def test_a_tenth_of_the_gateways_may_drain_at_a_time(gateway: str):
    strategy = render(DEFAULT, f"gateway: {gateway}").pod("gateway").owner["spec"]["strategy"]
    assert strategy["rollingUpdate"]["maxSurge"] in (5, "25%", 10)


def test_nginx_stops_its_workers_one_after_the_other(chart: Rendering):
    """A worker cuts its clients without a close frame. If all stopped at once, all clients would reconnect at once."""
    for pod in chart.pods:
        if pod.component == "nginx":
            deployment = pod.owner["spec"]
            assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
            notice, step, last = (int(number) for number in re.findall(r"sleep (\d+)", nginx_hook(chart)))
            assert step >= 5 and number_of(chart, "worker_processes") >= 4
            assert deployment["minReadySeconds"] >= notice + step * number_of(chart, "worker_processes") + last


def test_no_variable_overrides_the_drain(chart: Rendering):
    for role in ("gateway", "publisher"):
        for container in chart.pod(role).containers:
            names = {variable["name"] for variable in container.get("env", [])}
            ours = {name for name in names if name.startswith(("CARILLON_", "REVERB_", "PUSHER_"))}
            assert ours == {"CARILLON_ADMIN__HOST", "CARILLON_REDIS__URL"}
            assert "envFrom" not in container


def test_updates_stop_no_pod_before_a_new_one_is_ready(chart: Rendering):
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


def test_idle_connections_stay_open_longer_than_clients_may_be_silent(chart: Rendering):
    server = chart.toml["server"]
    silence = seconds(server.get("activity_timeout", "2m")) + seconds(server.get("pong_timeout", "30s"))
    if any(pod.component == "nginx" for pod in chart.pods):
        assert silence < 200


CHANGES_OF_CONFIGURATION = [
    "config: {server: {outbox_bytes: 4MiB}}",
    "config: {drain: {accept: 9s}}",
    "config: {log: {level: debug}}",
    "tests: {enabled: false}",
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
        "tests: {timeoutSeconds: 90}",
    ],
)
def test_changes_that_pods_do_not_read_replace_no_pod(values: str):
    """The app's secret is given, because generated secrets differ between renderings."""
    given = "apps: [{id: app, key: app-key, secret: given}]\n"
    before, after = render(ELSEWHERE, given), render(ELSEWHERE, given + values)
    for role in ("gateway", "publisher"):
        assert before.pod(role).owner["spec"]["template"] == after.pod(role).owner["spec"]["template"]


def test_a_change_of_nginx_replaces_its_pods():
    file = next(file for file in VALUES_FILES if file.stem == "nginx-values")
    before, after = checksums(render(file)), checksums(render(file, "nginx: {trustedProxies: [192.0.2.1]}"))
    assert before["nginx"]["config"] != after["nginx"]["config"]
    assert before["gateway"]["config"] == after["gateway"]["config"]


def test_the_checksum_matches_the_secret_of_the_same_rendering():
    """If a value were generated twice, the first upgrade would replace all pods."""
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


def nginx_hook(chart: Rendering) -> str:
    """Returns the script that an nginx pod runs before it receives SIGTERM."""
    shell, flag, script = chart.pod("nginx").main["lifecycle"]["preStop"]["exec"]["command"]
    assert (shell, flag) == ("sh", "-c")
    return script


def number_of(chart: Rendering, directive: str) -> int:
    from test_wiring import nginx_files

    return int(re.search(rf"^{directive} (\d+)s?;", nginx_files(chart)["nginx.conf"], re.M)[1])
