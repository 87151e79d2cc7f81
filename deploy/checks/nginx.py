"""Checks a running nginx with the files of deploy/nginx, on free ports.

This program has the clients and the upstreams. The upstreams record every request.

    nginx.py DEPLOY
"""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = "127.0.0.1"
PATIENCE_S = 10
# The number of handshakes per address that nginx accepts at once and per second, and the time limit of the flood check.
BURST, RATE, FLOOD_S = 500, 20, 60

# The certificate is self-signed.
TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
TLS.check_hostname, TLS.verify_mode = False, ssl.CERT_NONE


class Node(ThreadingHTTPServer):
    """An upstream: records every request, responds with its name, and accepts upgrades."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, name, port=0):
        self.name, self.requests, self.drops, self.open = name, [], False, set()
        super().__init__((HERE, port), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def address(self):
        return "%s:%d" % self.server_address

    def process_request(self, request, client_address):
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request):
        self.open.discard(request)
        super().shutdown_request(request)

    def stop(self):
        """Closes the listener and all connections, like a process that exits."""
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append({"method": self.command, "target": self.path, "headers": headers, "body": body})
        if self.server.drops:
            self.close_connection = True
            return
        if headers.get("upgrade") == "websocket":
            self.wfile.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
            while data := self.connection.recv(4096):
                self.connection.sendall(self.server.name.encode() + b":" + data)
            self.close_connection = True
            return
        text = self.server.name.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_GET = do_POST = do_OPTIONS = answer

    def log_message(self, *_):
        pass


def free_port():
    with contextlib.closing(socket.socket()) as listener:
        listener.bind((HERE, 0))
        return listener.getsockname()[1]


class Nginx:
    """nginx with the files of deploy/nginx, and of an example if there is one, in a temporary folder."""

    def __init__(self, deploy, gateways, publishers, example=None, changes=()):
        self.folder = Path(tempfile.mkdtemp(prefix="carillon-nginx-"))
        files = self.folder / "conf"
        shutil.copytree(deploy / "nginx", files)
        if example:
            for path in (deploy / "nginx/examples" / example).iterdir():
                shutil.copy(path, files / "carillon" / path.name)
        self.public, self.plain, self.status = free_port(), free_port(), free_port()
        for name, port in (("listen", self.public), ("listen-plain", self.plain), ("listen-status", self.status)):
            path = files / f"carillon/{name}.conf"
            lines = path.read_text().splitlines()
            ours = [line for line in lines if not line.startswith("listen [")]
            path.write_text("\n".join(self.moved(line, port) for line in ours) + "\n")
        path = files / "carillon/upstreams.conf"
        text = path.read_text()
        for upstream, nodes in (("carillon_gateways", gateways), ("carillon_gateways_by_session", gateways),
                                ("carillon_publishers", publishers)):
            head, rest = text.split(f"upstream {upstream} {{", 1)
            block, tail = rest.split("\n}", 1)
            kept = [line for line in block.splitlines() if not line.strip().startswith("server ")]
            how = next(line.strip().split(" ", 2)[2] for line in block.splitlines() if line.strip().startswith("server "))
            kept += [f"    server {node.address} {how}" for node in nodes]
            text = f"{head}upstream {upstream} {{" + "\n".join(kept) + "\n}" + tail
        path.write_text(text)
        for name, old, new in changes:
            path = files / name
            assert old in path.read_text(), f"{name} has no {old!r}"
            path.write_text(path.read_text().replace(old, new))
        for path in (files / "nginx.conf", files / "conf.d/carillon.conf"):
            text = path.read_text().replace("/var/log/nginx/", f"{self.folder}/").replace("/run/nginx.pid", f"{self.folder}/pid")
            path.write_text(text)
        temporary = "".join(f"{kind}_temp_path {self.folder}/{kind};\n"
                            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (files / "conf.d/0-check.conf").write_text(temporary)
        (files / "tls").mkdir()
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                        "-days", "1", "-subj", "/CN=localhost", "-keyout", files / "tls/privkey.pem",
                        "-out", files / "tls/fullchain.pem"], check=True, capture_output=True)
        # A single process, because a master would leave its workers running after SIGKILL.
        self.process = subprocess.Popen(["nginx", "-p", self.folder, "-c", files / "nginx.conf", "-e", self.folder / "start.log",
                                         "-g", "daemon off; master_process off;"], stdin=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError), socket.create_connection((HERE, self.public), 1):
                return
            if self.process.poll() is not None or time.monotonic() > end:
                raise AssertionError(f"nginx does not listen:\n{(self.folder / 'start.log').read_text()}")
            time.sleep(0.02)

    @staticmethod
    def moved(line, port):
        word, *rest = line.split(" ", 2)
        return f"listen {HERE}:{port}{' ' + rest[1] if len(rest) > 1 else ';'}" if word == "listen" else line

    def stop(self):
        self.process.terminate()
        status = self.process.wait(PATIENCE_S)
        log = (self.folder / "access.log").read_text()
        shutil.rmtree(self.folder)
        assert status == 0, f"nginx ended with {status}"
        return log


def connect(port, tls=True, before=b""):
    stream = socket.create_connection((HERE, port), PATIENCE_S)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(before)
    return TLS.wrap_socket(stream, server_hostname="localhost") if tls else stream


def request(port, method, target, tls=True, headers=(), body=None):
    """Returns status, headers and body. The target is sent unchanged."""
    connection = http.client.HTTPConnection(HERE, port, timeout=PATIENCE_S)
    connection.sock = connect(port, tls)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in [("Host", "ws.example"), *headers]:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def upgrade(port, target, tls=True, headers=(), before=b""):
    """Returns a connection after its 101, and the name of the upstream."""
    stream = connect(port, tls, before)
    lines = [f"GET {target} HTTP/1.1", "Host: ws.example", "Upgrade: websocket", "Connection: Upgrade",
             "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *headers]
    stream.sendall("\r\n".join([*lines, "", ""]).encode())
    head = b""
    while b"\r\n\r\n" not in head:
        data = stream.recv(4096)
        assert data, f"the connection ended before the reply to an upgrade, after {head!r}"
        head += data
    assert head.startswith(b"HTTP/1.1 101 "), head
    stream.sendall(b"hello")
    name = stream.recv(4096).split(b":")[0].decode()
    return stream, name


def websockets_pass_through(nginx, gateways, publishers):
    streams = [upgrade(nginx.public, "/app/app-key?protocol=7&client=js", headers=["X-Forwarded-For: 198.51.100.66"])
               for _ in range(4)]
    names = [name for _, name in streams]
    assert sorted(names) == ["gateway-1", "gateway-1", "gateway-2", "gateway-2"], f"not spread evenly: {names}"
    received = gateways[0].requests[0]
    assert received["target"] == "/app/app-key?protocol=7&client=js", received
    assert received["headers"]["connection"] == "upgrade" and received["headers"]["host"] == "ws.example", received
    assert received["headers"]["x-forwarded-for"] == HERE, f"a client chose its own address: {received}"
    assert received["headers"]["x-forwarded-proto"] == "https", received
    stream, name = streams[0]
    stream.sendall(b"again")
    assert stream.recv(4096) == f"{name}:again".encode()
    for stream, _ in streams:
        stream.close()
    gateways[0].requests.clear()
    gateways[1].requests.clear()
    request(nginx.public, "GET", "/app/app-key")
    received = (gateways[0].requests + gateways[1].requests)[0]
    assert "upgrade" not in received["headers"] and received["headers"].get("connection") != "close", received


def signed_requests_arrive_byte_by_byte(nginx, gateways, publishers):
    body = bytes(range(256)) * 400
    for target in ("/apps/1/events?auth_key=k&auth_signature=ab%2Fcd&b=%20+x", "/apps/1/channels/presence-a%2Cb//x/../y?a=%7e"):
        status, _, _ = request(nginx.public, "POST", target, body=body)
        received = publishers[0].requests.pop()
        assert status == 200 and received["target"] == target and received["body"] == body, received["target"]
    status, _, _ = request(nginx.public, "POST", "/users/7/terminate_connections?auth_key=k", body=b"{}")
    assert status == 200 and publishers[0].requests.pop()["target"].startswith("/users/7/")


def large_requests_are_refused(nginx, gateways, publishers):
    stream = connect(nginx.public)
    stream.sendall(b"POST /apps/1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n")
    assert b" 413 " in stream.recv(4096), "a body of 5 MB is accepted"
    status, _, _ = request(nginx.public, "GET", "/app/k", headers=[("X-Big", "x" * 9000)])
    assert status in (400, 414), f"a header of 9 KB gets {status}"
    assert not publishers[0].requests


def sessions_stay_on_their_node(nginx, gateways, publishers):
    where = {}
    for session in range(40):
        for kind in ("xhr_streaming?protocol=7", "xhr_send?t=1", "xhr_send?t=2"):
            target = f"/pusher/app/app-key/{session * 7 % 1000}/s{session:07}/{kind}"
            status, _, name = request(nginx.public, "POST", target, body=b"[]")
            assert status == 200
            where.setdefault(session, set()).add(name)
    assert all(len(names) == 1 for names in where.values()), f"a session was split: {where}"
    assert len(set.union(*where.values())) == 2, "all sessions are on one node"


def internal_paths_are_closed(nginx, gateways, publishers):
    for node in (*gateways, *publishers):
        node.requests.clear()
    for target in ("/metrics", "/livez", "/readyz", "/metrics/", "/readyz?x=1", "//metrics", "/app/../metrics", "/nginx", "/",
                   "/wp-login.php", "/appsx", "/up/metrics"):
        status, _, _ = request(nginx.public, "GET", target)
        assert status == 404, f"{target} gets {status}"
    assert not any(node.requests for node in (*gateways, *publishers)), "a request for a closed path reached a node"
    status, headers, body = request(nginx.public, "GET", "/up")
    assert (status, body) == (200, b"publisher-1"), (status, body)
    assert "Strict-Transport-Security" in headers and "nginx/" not in headers.get("Server", ""), headers
    publishers[0].requests.clear()


def plain_requests_are_redirected_to_https(nginx, gateways, publishers):
    status, headers, _ = request(nginx.plain, "POST", "/apps/1/events?a=b", tls=False, body=b"")
    assert (status, headers["Location"]) == (308, "https://ws.example/apps/1/events?a=b"), (status, headers)
    status, _, body = request(nginx.status, "GET", "/nginx", tls=False)
    assert status == 200 and body.startswith(b"Active connections"), body


def a_stopped_node_is_skipped(nginx, gateways, publishers):
    gateways[0].stop()
    for _ in range(10):
        stream, name = upgrade(nginx.public, "/app/app-key")
        stream.close()
        assert name == "gateway-2"
    for session in range(20):
        status, _, name = request(nginx.public, "POST", f"/pusher/app/k/1/s{session}/xhr", body=b"")
        assert (status, name) == (200, b"gateway-2"), (status, name)


def a_publish_is_never_sent_twice(nginx, gateways, publishers):
    for publisher in publishers:
        publisher.requests.clear()
        publisher.drops = True
    status, _, _ = request(nginx.public, "POST", "/apps/1/events?auth_key=once", body=b"{}")
    sent = sum(len(publisher.requests) for publisher in publishers)
    assert (status, sent) == (502, 1), f"{status} after {sent} received"
    for publisher in publishers:
        publisher.drops = False


def nodes_can_be_replaced_one_after_the_other(nginx, gateways, publishers):
    for number, node in enumerate(publishers):
        node.stop()
        for _ in range(20):
            status, _, _ = request(nginx.public, "POST", "/apps/1/events", body=b"{}")
            assert status == 200, f"{status} while {node.name} is stopped"
        publishers[number] = Node(node.name, node.server_address[1])
        # nginx counts whole seconds, and skips a node for more than fail_timeout of them.
        time.sleep(2.1)


def a_flood_is_limited(nginx, gateways, publishers):
    connection = http.client.HTTPConnection(HERE, nginx.public, timeout=PATIENCE_S)
    connection.sock = connect(nginx.public)
    counts, start = {200: 0, 429: 0}, time.monotonic()
    while counts[429] < 100:
        connection.request("GET", "/app/app-key", headers={"Host": "ws.example"})
        response = connection.getresponse()
        response.read()
        assert response.status in counts, response.status
        counts[response.status] += 1
        assert time.monotonic() - start < FLOOD_S, f"{counts} within {FLOOD_S} s"
    connection.close()
    # Earlier checks used some of the burst. The longer this loop runs, the more of the limit is refilled.
    most = BURST + 1 + RATE * (time.monotonic() - start)
    assert BURST - 20 <= counts[200] <= most, f"{counts}, of at most {most:.0f}"


def the_balancer_sets_the_client_address(nginx, gateways, publishers):
    hops = "X-Forwarded-For: 6.6.6.6, 203.0.113.9, 10.1.2.3"
    stream, name = upgrade(nginx.public, "/app/app-key", tls=False, headers=[hops])
    stream.close()
    received = next(node for node in gateways if node.name == name).requests.pop()
    assert received["headers"]["x-forwarded-for"] == "203.0.113.9", received
    status, _, _ = request(nginx.public, "GET", "/up", tls=False, headers=[("X-Forwarded-For", "203.0.113.9")])
    assert status == 403, f"an address outside the private networks may read /up: {status}"
    status, _, _ = request(nginx.public, "GET", "/up", tls=False, headers=[("X-Forwarded-For", "10.1.2.3")])
    assert status == 200, f"an address inside the private networks may not read /up: {status}"


def the_proxy_protocol_is_read(nginx, gateways, publishers):
    line = b"PROXY TCP4 198.51.100.7 127.0.0.1 4711 443\r\n"
    stream, name = upgrade(nginx.public, "/app/app-key", headers=["X-Forwarded-For: 6.6.6.6"], before=line)
    stream.close()
    received = next(node for node in gateways if node.name == name).requests.pop()
    assert received["headers"]["x-forwarded-for"] == "198.51.100.7", received
    try:
        connect(nginx.public).close()
    except (OSError, ssl.SSLError):
        return
    raise AssertionError("a connection without the PROXY header was served")


def run(deploy, checks, publishers=1, **settings):
    """Runs checks against one nginx in order. Later checks stop nodes."""
    gateways = [Node("gateway-1"), Node("gateway-2")]
    publishers = [Node(f"publisher-{number + 1}") for number in range(publishers)]
    nginx = Nginx(deploy, gateways, publishers, **settings)
    log, failed = "", 0
    try:
        for check in checks:
            try:
                check(nginx, gateways, publishers)
                print(f"  {check.__name__.replace('_', ' ')}")
            except Exception as error:
                failed += 1
                print(f"  {check.__name__.replace('_', ' ')}: {type(error).__name__}: {error}", file=sys.stderr)
    finally:
        log = nginx.stop()
    for line in log.splitlines():
        json.loads(line)
    if "auth_" in log:
        failed += 1
        print("  the access log contains the query of a signed request", file=sys.stderr)
    return failed


def main(deploy):
    deploy = Path(deploy).resolve()
    failed = run(deploy, [websockets_pass_through, signed_requests_arrive_byte_by_byte, large_requests_are_refused,
                          sessions_stay_on_their_node, internal_paths_are_closed, plain_requests_are_redirected_to_https,
                          a_flood_is_limited])
    failed += run(deploy, [nodes_can_be_replaced_one_after_the_other, a_publish_is_never_sent_twice,
                           a_stopped_node_is_skipped], publishers=2)
    trusted = ("carillon/real-ip.conf", "set_real_ip_from", f"set_real_ip_from {HERE};\nset_real_ip_from")
    failed += run(deploy, [the_balancer_sets_the_client_address], example="behind-balancer", changes=[trusted])
    failed += run(deploy, [the_proxy_protocol_is_read], example="proxy-protocol", changes=[trusted])
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
