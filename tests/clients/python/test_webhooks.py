"""Webhooks: the official library must accept every request."""

import os
import queue
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pusher
import pytest
from conftest import DEADLINE_S, PROCESS_DEADLINE_S, Server, Socket, binary, environment, read_port
from websockets.sync.client import connect

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

[[apps.webhooks]]
url = "http://127.0.0.1:%d/hooks"
"""


@pytest.fixture
def endpoint():
    """Starts an endpoint that accepts every webhook. Returns its port and a queue of headers and bodies."""
    received = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()
            received.put((self.headers, body))

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port, received
        server.shutdown()


@pytest.mark.skipif("SERVER_HOST" in os.environ, reason="needs a server that the tests start")
def test_the_library_accepts_webhooks(endpoint, tmp_path):
    port, received = endpoint
    config = tmp_path / "carillon.toml"
    config.write_text(CONFIG % port)
    command = [binary(), "up", "--config", config, "--port", "0", "--admin-port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            server = Server("127.0.0.1", read_port(process), "1001", "app-key", "app-secret")
            url = f"ws://127.0.0.1:{server.port}/app/{server.key}?protocol=7&client=python&version=1.0.0"
            with connect(url, open_timeout=DEADLINE_S, proxy=None) as connection:
                Socket(server, connection).subscribe("presence-room", {"user_id": "ana", "user_info": {"name": "\u00c4na"}})
                library = pusher.Pusher("1001", "app-key", "app-secret")
                events = []
                for _ in range(2):
                    headers, body = received.get(timeout=DEADLINE_S)
                    assert headers["Content-Type"] == "application/json"
                    key, signature = headers["X-Pusher-Key"], headers["X-Pusher-Signature"]
                    webhook = library.validate_webhook(key, signature, body.decode())
                    assert webhook is not None, body
                    assert library.validate_webhook(key, signature, body.decode() + " ") is None
                    events += webhook["events"]
            assert [event.pop("id") != "" for event in events] == [True, True]
            assert events == [
                {"name": "member_added", "channel": "presence-room", "user_id": "ana"},
                {"name": "channel_occupied", "channel": "presence-room"},
            ]
            process.terminate()
            assert process.wait(PROCESS_DEADLINE_S) == 0, "carillon exits cleanly"
        finally:
            process.kill()
