"""Runs the cluster of compose.yml without containers.

Redis has the users and settings of deploy/redis. Nodes have deploy/carillon.toml and the secrets that secrets.sh creates. nginx
is in front. The checks: clients of all transports receive published events, presence channels work, Redis refuses no command of
a node, a gateway drains on SIGTERM, and nodes are replaced one after the other without a failed connection.

    cluster.py DEPLOY BINARY
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import fallback
from nginx import HERE, PATIENCE_S, Nginx, connect, free_port

# nginx counts whole seconds, and skips a node that refused a connection for more than fail_timeout of them.
PASSED_OVER_S = 2.1

# Commands that must be refused even with the password of a node.
FORBIDDEN = (["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["SHUTDOWN"], ["GET", "other:key"], ["PSUBSCRIBE", "*"],
             ["PUBLISH", "other", "x"], ["ACL", "LIST"], ["SCRIPT", "FLUSH"], ["EVAL", "return 1", "0"], ["SCAN", "0"],
             ["MGET", "carillon:x"], ["RENAME", "carillon:x", "carillon:y"], ["CLIENT", "LIST"], ["WATCH", "carillon:x"],
             ["XGROUP", "SETID", "carillon:x", "g", "0"], ["XINFO", "STREAM", "carillon:x"], ["PUBSUB", "CHANNELS"])


def eventually(condition, holds):
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"not within {PATIENCE_S} s: {condition}"
        time.sleep(0.02)


def status(url):
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


class Cluster:
    def __init__(self, deploy, binary, folder):
        self.binary, self.folder, self.started = binary, folder, []
        for name in ("secrets.sh", "redis", "carillon.toml"):
            (shutil.copytree if (deploy / name).is_dir() else shutil.copy)(deploy / name, folder / name)
        subprocess.run([folder / "secrets.sh", "ws.example"], check=True, capture_output=True)
        before = {path.name: path.read_bytes() for path in (folder / "secrets").iterdir()}
        subprocess.run([folder / "secrets.sh"], check=True, capture_output=True)
        assert before == {path.name: path.read_bytes() for path in (folder / "secrets").iterdir()}, "a second run changed secrets"
        assert all(before.values()), f"a secret is empty: {[name for name, text in before.items() if not text]}"
        certificate = ["openssl", "x509", "-in", folder / "secrets/tls_cert", "-noout", "-checkhost", "ws.example", "-pubkey"]
        output = subprocess.run(certificate, check=True, capture_output=True, text=True).stdout
        key = ["openssl", "pkey", "-in", folder / "secrets/tls_key", "-pubout"]
        assert "does match" in output, output
        assert subprocess.run(key, check=True, capture_output=True, text=True).stdout in output, "certificate and key differ"
        self.password = before["redis_password"].decode()
        self.redis_port = free_port()
        settings = (folder / "redis/redis.conf").read_text().replace("/run/secrets", str(folder / "secrets"))
        (folder / "redis.conf").write_text(settings.replace("dir /data", f"dir {folder}"))
        self.start(["redis-server", folder / "redis.conf", "--port", str(self.redis_port), "--bind", HERE])
        eventually("redis answers", lambda: self.redis("PING") == "PONG")
        toml = (folder / "carillon.toml").read_text().replace("/run/secrets", str(folder / "secrets"))
        # A short drain keeps the check short.
        toml = toml.replace('window = "30s"', 'window = "1s"')
        (folder / "carillon.toml").write_text(toml)
        url = (folder / "secrets/redis_env").read_text().replace("@redis:6379", f"@{HERE}:{self.redis_port}")
        (folder / "redis.env").write_text(url)
        self.flags = ["--config", folder / "carillon.toml", "--env-file", folder / "redis.env"]

    def start(self, command, **more):
        log = open(self.folder / f"{len(self.started)}.log", "w")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)
        self.started.append(process)
        return process

    def redis(self, *command):
        arguments = ["redis-cli", "-p", str(self.redis_port), "--user", "carillon", *command]
        environment = {**os.environ, "REDISCLI_AUTH": self.password}
        return subprocess.run(arguments, env=environment, capture_output=True, text=True).stdout.strip()

    def node(self, role):
        return self.start_node(role, free_port(), free_port())

    def replace(self, node):
        """Drains a node with SIGTERM, waits until it exits, and starts it again."""
        node.process.send_signal(signal.SIGTERM)
        assert node.process.wait(PATIENCE_S) == 0, f"a {node.role} did not exit with 0 after SIGTERM"
        self.restart(node)

    def restart(self, node):
        node.process = self.start_node(node.role, int(node.address.split(":")[1]), node.admin_port).process
        eventually("a restarted node is ready", lambda: status(f"{node.admin}/readyz") == 200)

    def start_node(self, role, port, admin):
        environment = {**os.environ, "CARILLON_SERVER__TRUSTED_PROXIES": f'["{HERE}"]', "CARILLON_ADMIN__ALLOW": '["127.0.0.0/8"]'}
        process = self.start([self.binary, role, *self.flags, "--host", HERE, "--port", str(port), "--admin-port", str(admin)],
                             env=environment)
        return SimpleNamespace(role=role, address=f"{HERE}:{port}", admin=f"http://{HERE}:{admin}", admin_port=admin, process=process)

    def run(self, *arguments):
        return subprocess.run([self.binary, *arguments], capture_output=True, text=True, timeout=60)

    def stop(self):
        for process in reversed(self.started):
            if process.poll() is None:
                process.terminate()
        for process in self.started:
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()


class Repeated:
    """Repeats an action while the block runs. Counts successes and collects errors."""

    def __init__(self, once):
        self.once, self.succeeded, self.errors, self.over = once, 0, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.wait(0.05):
            try:
                self.once()
                self.succeeded += 1
            except Exception as error:
                self.errors.append(str(error))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def nodes_are_replaced(cluster, nginx, nodes, publish):
    """Replaces nodes one after the other, by the steps of docs/OPERATIONS.md."""
    with Repeated(lambda: greeted(nginx)) as clients, Repeated(publish) as publishes:
        for node in nodes:
            before = clients.succeeded, publishes.succeeded
            eventually("clients connect and publishes succeed",
                       lambda: clients.succeeded > before[0] and publishes.succeeded > before[1])
            cluster.replace(node)
            time.sleep(PASSED_OVER_S)
    assert not clients.errors, f"{clients.succeeded} clients connected, others failed: {clients.errors}"
    # A request on a keep-alive connection that the node is closing fails, because nginx never sends a publish twice.
    assert len(publishes.errors) <= 2, f"{publishes.succeeded} publishes succeeded, others failed: {publishes.errors}"


def greeted(nginx):
    """Connects and reads pusher:connection_established."""
    stream = connect(nginx.public, tls=False)
    try:
        stream.sendall(b"GET /app/app-key?protocol=7 HTTP/1.1\r\nHost: ws.example\r\nUpgrade: websocket\r\n"
                       b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                       b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        received = b""
        while b"connection_established" not in received:
            data = stream.recv(4096)
            assert data, f"the connection ended before connection_established, after {received!r}"
            received += data
    finally:
        stream.close()


def check(deploy, binary, folder):
    cluster = Cluster(deploy, binary, folder)
    nginx = unsteady = whole = None
    try:
        gateways, publisher = [cluster.node("gateway"), cluster.node("gateway")], cluster.node("publisher")
        for node in (*gateways, publisher):
            eventually("a node is ready", lambda: status(f"{node.admin}/readyz") == 200)
        print("  nodes are ready with the configuration and the Redis user of compose.yml")

        nginx = Nginx(deploy, gateways, [publisher], example="behind-balancer")
        server = ["--config", str(folder / "carillon.toml"), "--url", f"http://{HERE}:{nginx.public}"]
        listeners = [cluster.start([binary, "listen", *server, "--user-id", user, "--timeout", "30s", "--count", "8", "private-news",
                                    "presence-room", "cache-last"]) for user in ("ana", "bo")]
        count = lambda: sum(int(float(line.split()[-1])) for gateway in gateways
                            for line in urllib.request.urlopen(f"{gateway.admin}/metrics").read().decode().splitlines()
                            if line.startswith("carillon_subscriptions{"))
        eventually("both clients are subscribed", lambda: count() == 6)
        for channel in ("private-news", "presence-room", "cache-last"):
            sent = cluster.run("trigger", *server, channel, "hello", '{"through":"nginx"}')
            assert sent.returncode == 0, sent.stderr
        logs = [folder / f"{cluster.started.index(listener)}.log" for listener in listeners]
        for log in logs:
            eventually("events arrive", lambda: log.read_text().count("through") == 3)
        print("  events published through nginx reach clients of both gateways, which are connected through nginx")

        def publish(channel, data):
            sent = cluster.run("trigger", *server, channel, "hello", data)
            assert sent.returncode == 0, sent.stderr

        first = fallback.serve(nginx, gateways, publish)
        fallback.bodies_are_bounded(first[0])
        assert fallback.forwarded(gateways) == 0, "nginx sends requests of a session to a gateway that does not have it"
        print("  streams and polls pass through nginx without buffering, and all requests of a session reach one gateway")

        # A balancer without session affinity.
        turns = ("carillon/upstreams.conf", "    hash $carillon_session consistent;\n", "")
        unsteady = Nginx(deploy, gateways, [publisher], example="behind-balancer", changes=[turns])
        fallback.serve(unsteady, gateways, publish)
        assert fallback.forwarded(gateways, "answered") > 0, "gateways forwarded no request"
        assert fallback.forwarded(gateways, "(failed|unknown)") == 0, "gateways could not forward requests"
        print("  they also pass through a round-robin balancer: gateways forward requests to each other")

        draining, staying = gateways
        for command in (["healthcheck", "--admin-port", str(draining.admin_port)], ["doctor", "--role", "gateway"]):
            outcome = cluster.run(*command, *map(str, cluster.flags))
            assert outcome.returncode == 0, f"{command[0]}: {outcome.stdout}{outcome.stderr}"
        print("  carillon healthcheck and carillon doctor succeed")

        last = cluster.start([binary, "listen", *server[:2], "--url", f"http://{draining.address}", "--timeout", "30s",
                              "private-news"])
        log = folder / f"{cluster.started.index(last)}.log"
        eventually("a client listens", lambda: "listening" in log.read_text())
        draining.process.send_signal(signal.SIGTERM)
        assert draining.process.wait(PATIENCE_S) == 0, "a gateway did not exit with 0 after SIGTERM"
        eventually("its client receives 4200", lambda: "4200" in log.read_text())
        publish("private-news", "{}")
        print("  a gateway drains, closes its clients with 4200, and exits with 0; publishing still works")

        for session in (session for session in first if session.kind == "xhr_streaming" and session.home is draining):
            while (line := session.line()).startswith("a["):
                pass
            assert line.startswith("c[4200,"), f"a stream of a draining gateway receives {line!r}"
        for _ in range(8):
            fallback.Session(nginx, "xhr_streaming")
        print("  streams of that gateway receive 4200, and new sessions reach the other gateway")

        # The nodes have now run every command that they need, and Redis must have refused none of them.
        anonymous = subprocess.run(["redis-cli", "-p", str(cluster.redis_port), "ping"], capture_output=True, text=True).stdout
        assert "NOAUTH" in anonymous, f"redis serves clients without a password: {anonymous}"
        logs = "".join((folder / f"{number}.log").read_text() for number in range(len(cluster.started)))
        assert "NOPERM" not in logs and "no permissions" not in logs.lower(), "redis refused a command of a node"
        refused = sum(float(line.split()[-1]) for node in (staying, publisher)
                      for line in urllib.request.urlopen(f"{node.admin}/metrics").read().decode().splitlines()
                      if line.startswith('carillon_redis_command_errors_total{kind="refused"}'))
        assert refused == 0, f"redis refused {refused} commands"
        for command in FORBIDDEN:
            reply = cluster.redis(*command)
            assert "NOPERM" in reply, f"{' '.join(command)} is allowed: {reply}"
        print("  Redis refused no command of a node, and refuses commands that nodes do not need")

        cluster.restart(draining)
        second = cluster.node("publisher")
        eventually("a second publisher is ready", lambda: status(f"{second.admin}/readyz") == 200)
        whole = Nginx(deploy, gateways, [publisher, second], example="behind-balancer")
        server[-1] = f"http://{HERE}:{whole.public}"
        nodes_are_replaced(cluster, whole, [*gateways, publisher], lambda: publish("news", "{}"))
        print("  gateways and a publisher are replaced one after the other, and no client is refused meanwhile")
    except Exception:
        for path in sorted(folder.glob("*.log")):
            print(f"--- {path.name}\n{path.read_text()[-2000:]}", file=sys.stderr)
        raise
    finally:
        for balancer in (nginx, unsteady, whole):
            if balancer:
                balancer.stop()
        cluster.stop()


def main(deploy, binary):
    folder = Path(tempfile.mkdtemp(prefix="carillon-cluster-"))
    try:
        check(Path(deploy).resolve(), Path(binary).resolve(), folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
