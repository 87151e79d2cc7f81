"""Runs the rendered pods: Redis, a gateway, a publisher and nginx as the chart configures them, and the pods of `helm test`."""

import os
import pwd
import re
import subprocess
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

import pytest

from chart import CHART, Pod, fresh, seconds
from machine import Machine, free_port, make_certificates, status, wait

# Subscription counts are on, because the test pod must not mistake one for the event.
VALUES = """
apps: [{id: app, key: app-key, settings: {subscription_count: true}}]
config: {drain: {accept: 1s, window: 1s}}
tests: {timeoutSeconds: %d}
nginx: {enabled: true}
"""


@pytest.fixture
def machine(tmp_path: Path):
    chart = fresh(CHART / "ci/default-values.yaml", VALUES % 15)
    with Machine(chart, tmp_path) as machine:
        yield machine


@pytest.fixture
def cluster(machine: Machine):
    """A gateway and a publisher that are ready according to their probes."""
    machine.start_redis()
    machine.roles = {role: machine.start_role(role) for role in ("gateway", "publisher")}
    for role in machine.roles:
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            wait(lambda: machine.probe(role, kind) == 200, f"{role}'s {kind}\n{machine.log(role)}")
    return machine


@pytest.mark.parametrize("name", ["broadcast", "presence"])
def test_the_pods_of_helm_test_succeed(cluster: Machine, name: str):
    assert run(cluster, name) == 0, cluster.log("test")


def test_the_broadcast_test_fails_if_nothing_is_published(cluster: Machine):
    """No other message may count as the event."""
    cluster.end(cluster.roles["publisher"])
    shorten(test_pod(cluster, "broadcast"))
    assert run(cluster, "broadcast") != 0


def test_the_presence_test_fails_if_no_other_member_joins(cluster: Machine):
    shorten(test_pod(cluster, "presence"))
    assert run(cluster, "presence", probing=False) != 0


def test_pods_shut_down_within_their_grace_period(cluster: Machine):
    drain = cluster.chart.toml["drain"]
    gateway, publisher = cluster.roles["gateway"], cluster.roles["publisher"]
    pod = test_pod(cluster, "broadcast")
    listener = cluster.start(pod, command=pod.main["command"] + without_count(pod.main["args"]))
    wait(lambda: "listening on" in cluster.log("broadcast"), "a client is connected")

    gateway.terminate()
    publisher.terminate()
    start = time.monotonic()
    for role in cluster.roles:
        wait(lambda: cluster.probe(role, "readinessProbe") == 503, f"{role} is not ready any more")
        assert cluster.probe(role, "livenessProbe") == 200
    assert time.monotonic() - start < seconds(drain["accept"]), "readiness did not fail at once"
    # The pods still accept connections, so no preStop hook is needed.
    for role, port in (("gateway", 8080), ("publisher", 8081)):
        assert status(f"http://127.0.0.1:{cluster.ports[role][port]}/up") == 200

    assert gateway.wait(timeout=60) == 0, cluster.log("gateway")
    took = time.monotonic() - start
    assert publisher.wait(timeout=60) == 0, cluster.log("publisher")
    assert seconds(drain["accept"]) <= took < cluster.chart.pod("gateway").spec["terminationGracePeriodSeconds"]
    assert time.monotonic() - start < cluster.chart.pod("publisher").spec["terminationGracePeriodSeconds"]
    assert listener.wait(timeout=10) != 0
    assert "4200" in cluster.log("broadcast")


def test_pods_without_redis_are_live_but_not_ready(machine: Machine):
    roles = [machine.start_role(role) for role in ("gateway", "publisher")]
    for role in ("gateway", "publisher"):
        wait(lambda: machine.probe(role, "livenessProbe") == 200, f"{role} is live\n{machine.log(role)}")
    assert machine.probe("gateway", "readinessProbe") == 503
    machine.start_redis()
    wait(lambda: machine.probe("gateway", "readinessProbe") == 200, "the gateway is ready with Redis")
    assert [role.poll() for role in roles] == [None, None]


def test_redis_requires_its_password_and_writes_nothing_to_disk(machine: Machine):
    machine.start_redis()
    port = str(machine.ports["redis"][6379])

    def query(*words: str, **environment: str) -> str:
        environment["PATH"] = os.environ["PATH"]
        return subprocess.run(["redis-cli", "-p", port, *words], env=environment, capture_output=True, text=True).stdout

    assert query("ping").startswith("NOAUTH")
    password = machine.environment(machine.chart.pod("redis"), machine.chart.pod("redis").main)
    assert query("config", "get", "save", **password).split("\n")[1] == ""
    assert query("config", "get", "appendonly", **password).split("\n")[1] == "no"
    assert query("config", "get", "maxmemory-policy", **password).split("\n")[1] == "noeviction"


def test_the_doctor_keeps_a_pod_from_starting_without_redis(tmp_path: Path):
    # A limit that every machine has descriptors for.
    few = "config: {server: {connections_max: 100}}"
    chart = fresh(CHART / "ci/default-values.yaml", f"{{doctor: {{enabled: true}}, {few}}}")
    with Machine(chart, tmp_path) as machine:
        pod = chart.pod("gateway")
        (doctor,) = pod.spec["initContainers"]
        assert machine.start(pod, doctor).wait(timeout=30) != 0
        assert "problem  redis" in machine.log("doctor")
        machine.start_redis()
        assert machine.start(pod, doctor).wait(timeout=30) == 0, machine.log("doctor")


def test_pods_connect_to_a_redis_with_tls_and_client_certificates(tmp_path: Path):
    made = make_certificates(tmp_path)
    port = free_port()
    foreign = {
        "broadcast-redis": {"REDIS_URL": f"rediss://127.0.0.1:{port}"},
        "internal-authority": {"ca.crt": made["ca.crt"]},
        "internal-client": {name: made[name] for name in ("tls.crt", "tls.key")},
    }
    files = ["--tls-cert-file", "tls.crt", "--tls-key-file", "tls.key", "--tls-ca-cert-file", "ca.crt"]
    command = ["redis-server", "--port", "0", "--tls-port", str(port), *files, "--save", ""]
    with Machine(fresh(CHART / "ci/redis-tls-values.yaml"), tmp_path, foreign) as machine:
        redis = subprocess.Popen([*command, "--bind", "127.0.0.1"], cwd=tmp_path, stdout=subprocess.DEVNULL)
        machine.processes.append(redis)
        for role in ("gateway", "publisher"):
            machine.start_role(role)
            wait(lambda: machine.probe(role, "readinessProbe") == 200, f"{role} is ready\n{machine.log(role)}")
        assert redis.poll() is None


def test_pods_terminate_tls_if_configured(tmp_path: Path):
    bundled = "redis: {url: '', caSecret: {name: ''}, bundled: {enabled: true}}"
    chart = fresh(CHART / "ci/tls-values.yaml", f"{{{bundled}, config: {{server: {{proxy_protocol: false}}}}}}")
    with Machine(chart, tmp_path, {"ws-tls": make_certificates(tmp_path)}) as machine:
        machine.start_redis()
        for role, port in (("gateway", 8080), ("publisher", 8081)):
            machine.start_role(role)
            wait(lambda: machine.probe(role, "readinessProbe") == 200, f"{role} is ready\n{machine.log(role)}")
            assert status(f"https://localhost:{machine.ports[role][port]}/up", tmp_path / "ca.crt") == 200
            assert status(f"http://localhost:{machine.ports[role][port]}/up") == 0


def test_gateways_listen_for_peers_on_the_port_of_the_chart(cluster: Machine):
    """They refuse requests without a signature by the app's secret."""
    session = "/pusher/app/app-key/1/session1"
    assert status(f"http://127.0.0.1:{cluster.ports['gateway'][8080]}{session}/xhr", method="POST") == 200
    assert status(f"http://127.0.0.1:{cluster.ports['gateway'][8082]}{session}/xhr", method="POST") == 403


def test_nginx_serves_clients_and_applications(cluster: Machine):
    port = start_nginx(cluster)
    assert run(cluster, "broadcast", through=f"http://127.0.0.1:{port}") == 0, cluster.log("")
    for transport in ("xhr", "xhr_streaming"):
        url = f"http://127.0.0.1:{port}/pusher/app/app-key/1/{transport.replace('_', '')}/{transport}?protocol=7"
        with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=2) as response:
            assert response.readline() == b"o\n"
            assert b"pusher:connection_established" in response.readline()
    for path in ("/metrics", "/livez", "/readyz", "/"):
        assert status(f"http://127.0.0.1:{port}{path}") == 404, path


@pytest.mark.parametrize("values", ["nginx-values", "everything-values", "plain"])
def test_nginx_accepts_its_configuration(values: str, tmp_path: Path):
    file = CHART / "ci" / ("default-values.yaml" if values == "plain" else f"{values}.yaml")
    chart = fresh(
        file,
        "{listenAddress: '::', nginx: {enabled: true, trustedProxies: [10.0.0.0/8]}}" if values == "plain" else "{}",
    )
    with Machine(chart, tmp_path, {"ws-tls": make_certificates(tmp_path)}) as machine:
        command = nginx_command(machine)
        checked = subprocess.run([*command, "-t"], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr, checked.stderr


def run(machine: Machine, name: str, through: str | None = None, probing: bool = True) -> int:
    """Runs a pod of `helm test` like a kubelet, with its probe once a second. Returns the exit code. `through`: a URL instead of the Services."""
    pod = test_pod(machine, name)
    probe = pod.main["readinessProbe"]
    commands = [pod.main["command"] + pod.main["args"], probe["exec"]["command"]]
    if through:
        commands = [replace_url(command, through) for command in commands]
    main, other = commands
    listener = machine.start(pod, command=main)
    time.sleep(probe["initialDelaySeconds"])
    while listener.poll() is None:
        if probing:
            machine.start(pod, command=other).wait(timeout=probe["timeoutSeconds"])
        with suppress(subprocess.TimeoutExpired):
            listener.wait(timeout=probe["periodSeconds"])
    return listener.returncode


def shorten(pod: Pod):
    """Shortens the timeout for a run that is expected to fail."""
    arguments = pod.main["args"]
    arguments[arguments.index("--timeout") + 1] = "2s"


def replace_url(command: list[str], url: str) -> list[str]:
    at = command.index("--url") + 1
    return [*command[:at], url, *command[at + 1 :]]


def without_count(arguments: list[str]) -> list[str]:
    at = arguments.index("--count")
    return arguments[:at] + arguments[at + 2 :]


def test_pod(machine: Machine, name: str) -> Pod:
    (pod,) = [pod for pod in machine.chart.pods if pod.owner["metadata"]["name"].endswith(f"-test-{name}")]
    return pod


test_pod.__test__ = False


def start_nginx(machine: Machine, shorter: dict[str, str] | None = None) -> int:
    """Starts nginx with its workers, all as one user like in the pod. `shorter`: replacements of directives in nginx.conf."""
    command = nginx_command(machine)
    main = Path(command[-1])
    for directive, other in (shorter or {}).items():
        assert directive in main.read_text()
        main.write_text(main.read_text().replace(directive, other))
    log = (machine.folder / "nginx.log").open("a")
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    machine.processes.append(subprocess.Popen([*command, "-g", f"daemon off; {user}"], stdout=log, stderr=log))
    pod = machine.chart.pod("nginx")
    wait(lambda: machine.probe("nginx", "readinessProbe") == 204, f"nginx\n{machine.log('nginx')}")
    return machine.ports["nginx"][pod.port("https") or pod.port("http")]


def nginx_command(machine: Machine) -> list[str]:
    """Returns the command of nginx with the chart's files, adapted to this machine. Debian's older nginx does not support `resolve` and
    `ssl_certificate_cache`, there is no cluster DNS, and the image's folders do not exist."""
    pod = machine.chart.pod("nginx")
    folder = machine.folder / "etc-nginx"
    texts = {}
    for source in pod.spec["volumes"][0]["projected"]["sources"]:
        texts |= machine.source(source)
    for name, text in texts.items():
        text = machine.here(text, Path("/"), {})
        text = text.replace(" resolve max_fails", " max_fails").replace(
            "resolver kube-dns.kube-system.svc.cluster.local valid=5s;", "resolver 127.0.0.1;"
        )
        text = re.sub(r"^ssl_certificate_cache .*\n", "", text, flags=re.M)
        text = re.sub(r"listen 127\.0\.0\.1:\d+", lambda _: f"listen 127.0.0.1:{free_port()}", text)
        text = re.sub(
            r"listen (\[::\]:)?(\d+)(?![.\d])",
            lambda found: f"listen {'[::1]' if found[1] else '127.0.0.1'}:{machine.ports['nginx'][int(found[2])]}",
            text,
        )
        text = (
            text.replace(" ipv6only=off", "")
            .replace("/var/log/nginx", str(machine.folder))
            .replace("/run/nginx", str(machine.folder / "nginx"))
        )
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return [os.environ.get("NGINX", "nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf")]
