"""Checks of the running nginx of the chart: its shutdown, and its reload of certificates."""

import re
import selectors
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from chart import CHART, fresh
from machine import DEADLINE_S, Machine, make_certificates, wait
from test_cluster import start_nginx
from test_rollout import nginx_hook

DEFAULT = CHART / "ci/default-values.yaml"
CLIENTS = 48


def test_a_terminating_pod_cuts_its_clients_one_worker_at_a_time(tmp_path: Path):
    """Otherwise all clients of a pod would lose their connection without a close frame and reconnect at once."""
    with Machine(fresh(DEFAULT, "nginx: {enabled: true, workers: 4}"), tmp_path) as machine:
        machine.start_redis()
        machine.start_role("gateway")
        wait(lambda: machine.probe("gateway", "readinessProbe") == 200, f"gateway\n{machine.log('gateway')}")
        port = start_nginx(machine, {"worker_shutdown_timeout 20s;": "worker_shutdown_timeout 1s;"})
        clients = [connect(port) for _ in range(CLIENTS)]
        # The hook of the pod, with other times and another path of the pid file.
        script = nginx_hook(machine.chart).replace("/run/nginx.pid", str(machine.folder / "nginx.pid"))
        script = re.sub(r"sleep \d+", "sleep 1", script)
        hook = subprocess.Popen(["sh", "-c", script])
        machine.processes.append(hook)
        ends = ends_of(clients)
        assert hook.wait(timeout=DEADLINE_S) == 0
    assert len(ends) == CLIENTS, f"{CLIENTS - len(ends)} clients were still connected after the hook"
    # Four workers stop one second apart. Each has about a quarter of the clients.
    assert ends[-1] - ends[0] > 1.5
    together = max(sum(start <= end < start + 0.5 for end in ends) for start in ends)
    assert together <= CLIENTS * 0.7, f"{together} of {CLIENTS} clients were cut at the same time"


@pytest.mark.parametrize("name", ["nginx-values"])
def test_a_rotated_certificate_is_served_without_a_reload(name: str, tmp_path: Path):
    first, second = (tmp_path / "first", tmp_path / "second")
    first.mkdir()
    second.mkdir()
    values = "nginx: {proxyProtocol: false, workers: 2}"
    chart = fresh(CHART / f"ci/{name}.yaml", values)
    with Machine(chart, tmp_path, {"ws-tls": make_certificates(first)}) as machine:
        port = start_nginx(machine)
        before = certificate(port)
        # A kubelet replaces all files of the folder in one step.
        for key, text in make_certificates(second).items():
            if key != "ca.crt":
                name = {"tls.crt": "fullchain.pem", "tls.key": "privkey.pem"}[key]
                (machine.folder / "etc-nginx/tls" / name).write_text(text)
        wait(lambda: certificate(port) != before, f"nginx serves the new certificate\n{machine.log('nginx')}")
        assert ssl.DER_cert_to_PEM_cert(certificate(port)) == (second / "tls.crt").read_text()


def connect(port: int) -> socket.socket:
    """Returns the socket of a client with an open WebSocket."""
    client = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S)
    head = ["GET /app/app-key?protocol=7 HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
    head += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
    client.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
    received = b""
    while b"connection_established" not in received:
        part = client.recv(4096)
        assert part, received
        received += part
    assert received.startswith(b"HTTP/1.1 101 ")
    client.setblocking(False)
    return client


def ends_of(clients: list[socket.socket]) -> list[float]:
    """Returns the times at which the clients' TCP connections ended, in order."""
    ends = []
    deadline = time.monotonic() + DEADLINE_S
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() < deadline:
            for key, _ in selector.select(timeout=0.2):
                try:
                    part = key.fileobj.recv(4096)
                except ConnectionResetError:
                    part = b""
                if not part:
                    ends.append(time.monotonic())
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
    for client in clients:
        client.close()
    return ends


def certificate(port: int) -> bytes:
    """Returns the certificate that a new client receives."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=2) as plain:
        with context.wrap_socket(plain) as client:
            return client.getpeercert(binary_form=True)
