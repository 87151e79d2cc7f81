"""The environment of the tests: a running Carillon, the official Python library, and a small WebSocket client.

There are two modes, as in `../node/harness.mjs`. By default the tests start one `carillon up` on free ports for the whole run and stop it
with SIGTERM; the exit code must be 0. With SERVER_HOST, SERVER_PORT and APP_ID, APP_KEY, APP_SECRET set, they use a running server.
Tests do not sleep. They wait for a frame with a deadline, and publish a marker to prove that no frame is missing.
"""

import json
import os
import queue
import re
import secrets
import subprocess
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pusher
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

REPOSITORY = Path(__file__).resolve().parents[3]

# The deadline for an expected frame. It allows for loaded machines; only failing tests reach it.
DEADLINE_S = 10

# The deadline for the process to print its banner, and to exit after SIGTERM.
PROCESS_DEADLINE_S = 20

# The key of all encrypted channels in these tests (protocol reference 10).
ENCRYPTION_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

# The library rejects an app id that does not consist of digits.
CONFIG = """
[server]
host = "127.0.0.1"

[drain]
accept = "0s"
window = "200ms"

[[apps]]
id = "1001"
key = "app-key"
secret = "app-secret"
allowed_origins = ["*"]
client_events = true
subscription_count = false
watchlist = true
"""


@dataclass(frozen=True)
class Server:
    """The address of a Carillon and one of its apps."""

    host: str
    port: int
    app_id: str
    key: str
    secret: str

    def sender(self, **options):
        """Returns an instance of the official library for the app; `options` replace its arguments."""
        arguments = {
            "app_id": self.app_id,
            "key": self.key,
            "secret": self.secret,
            "host": self.host,
            "port": self.port,
            "ssl": False,
            "timeout": DEADLINE_S,
            "encryption_master_key_base64": ENCRYPTION_KEY,
        }
        return pusher.Pusher(**(arguments | options))


class Socket:
    """A connection to the server whose frames are read one by one."""

    def __init__(self, server, websocket):
        self._websocket = websocket
        self._sender = server.sender()
        established = self.next()
        assert established["event"] == "pusher:connection_established"
        self.id = json.loads(established["data"])["socket_id"]

    def next(self):
        """Waits for the next frame and parses it. Its `data` is not decoded."""
        return json.loads(self._websocket.recv(timeout=DEADLINE_S))

    def send(self, event, data):
        self._websocket.send(json.dumps({"event": event, "data": data}))

    def subscribe(self, channel, member=None):
        """Subscribes, with a signature where the channel needs it, and returns the data of the confirmation."""
        data = {"channel": channel}
        if channel.startswith(("private-", "presence-")):
            data |= {key: value for key, value in self._sender.authenticate(channel, self.id, member).items() if key != "shared_secret"}
        self.send("pusher:subscribe", data)
        reply = self.next()
        assert (reply["event"], reply["channel"]) == ("pusher_internal:subscription_succeeded", channel), reply
        return json.loads(reply["data"])

    def sign_in(self, user):
        """Signs in with the library's signature and returns the confirmed user data."""
        self.send("pusher:signin", self._sender.authenticate_user(self.id, user))
        reply = self.next()
        assert reply["event"] == "pusher:signin_success", reply
        return reply["data"]["user_data"]

    def closed(self):
        """Reads until the server closes the connection, and returns the close code."""
        while True:
            try:
                self.next()
            except ConnectionClosed as end:
                return end.rcvd.code if end.rcvd else 1006


def binary():
    path = Path(os.environ.get("BINARY_UNDER_TEST", REPOSITORY / "target/release/carillon"))
    if not os.access(path, os.X_OK):
        pytest.exit(f"no executable at {path}: build it with `cargo build --release`, or set BINARY_UNDER_TEST", returncode=1)
    return path


def environment():
    """Returns the environment without variables that the server reads as settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("CARILLON_", "REVERB_", "PUSHER_", "REDIS_"))}


def read_port(process):
    """Returns the public port from the start banner. A thread reads the rest of the output."""
    lines = queue.Queue()

    def pump():
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=pump, daemon=True).start()
    printed = ""
    while True:
        try:
            line = lines.get(timeout=PROCESS_DEADLINE_S)
        except queue.Empty:
            line = None
        if line is None:
            process.kill()
            pytest.exit(f"carillon did not print its start banner; its output is:\n{printed}", returncode=1)
        printed += line
        if found := re.search(r"^\s*public\s+http://([^:\s]+):(\d+)", printed, re.MULTILINE):
            return int(found[2])


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    if host := os.environ.get("SERVER_HOST"):
        names = ("SERVER_PORT", "APP_ID", "APP_KEY", "APP_SECRET")
        if missing := [name for name in names if not os.environ.get(name)]:
            pytest.exit(f"SERVER_HOST needs these variables too: {', '.join(missing)}", returncode=1)
        port, app_id, key, secret = (os.environ[name] for name in names)
        yield Server(host, int(port), app_id, key, secret)
        return

    folder = tmp_path_factory.mktemp("carillon")
    config = folder / "carillon.toml"
    config.write_text(CONFIG)
    command = [binary(), "up", "--config", config, "--port", "0", "--admin-port", "0"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield Server("127.0.0.1", read_port(process), "1001", "app-key", "app-secret")
            process.terminate()
            assert process.wait(PROCESS_DEADLINE_S) == 0, "carillon exits cleanly"
        finally:
            process.kill()


@pytest.fixture
def sender(server):
    return server.sender()


@pytest.fixture
def socket(server):
    """Returns a function that opens sockets. They are closed when the test ends."""
    url = f"ws://{server.host}:{server.port}/app/{server.key}?protocol=7&client=python&version=1.0.0"
    with ExitStack() as opened:
        yield lambda: Socket(server, opened.enter_context(connect(url, open_timeout=DEADLINE_S, proxy=None)))


@pytest.fixture
def unique():
    """Returns a function that creates unique names."""
    return lambda prefix: f"{prefix}-{secrets.token_hex(5)}"
