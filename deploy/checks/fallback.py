"""Clients of pusher-js' HTTP transports behind nginx. Checks received messages and the gateway that each request reached."""

import http.client
import json
import random
import re
import string
import urllib.request
from itertools import count

from nginx import HERE, PATIENCE_S, request

KEY = "app-key"
# nginx has the same body limit as a gateway: four times message_bytes, which is 64 KiB by default.
BODY_BYTES_MAX = 4 * 64 * 1024
SESSIONS_MAX = 64
REQUESTS = count(1)


class Session:
    """One fallback session of pusher-js; `kind`: xhr_streaming or xhr."""

    def __init__(self, nginx, kind):
        self.nginx, self.kind = nginx, kind
        self.name = f"{random.randrange(1000)}/{''.join(random.choices(string.digits + 'abcdefghijklmnopqrstuv', k=8))}"
        self.response, self.lines = None, []
        assert self.line() == "o", "the first line is not `o`"
        (established,) = self.messages()
        assert established["event"] == "pusher:connection_established", established

    def target(self, verb):
        return f"/pusher/app/{KEY}/{self.name}/{verb}?protocol=7&client=js&version=8.6.0&t=1&n={next(REQUESTS)}"

    def receive(self):
        """Sends a request for lines and returns the response."""
        connection = http.client.HTTPConnection(HERE, self.nginx.public, timeout=PATIENCE_S)
        connection.request("POST", self.target(self.kind), headers={"Host": "ws.example", "Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200, f"{self.kind} gets {response.status}"
        assert response.headers["Access-Control-Allow-Origin"] == "*", response.headers.as_string()
        return response

    def line(self):
        """Returns the next line that is not a heartbeat, as soon as it arrives."""
        while (line := self.any_line()) == "h":
            pass
        return line

    def any_line(self):
        if self.kind == "xhr":
            while not self.lines:
                self.lines = self.receive().read().decode().splitlines()
            return self.lines.pop(0)
        self.response = self.response or self.receive()
        line = self.response.readline().decode()
        assert line.endswith("\n"), f"the stream ended with {line!r}"
        return line[:-1]

    def messages(self):
        line = self.line()
        assert line.startswith("a["), f"expected messages, received {line!r}"
        return [json.loads(message) for message in json.loads(line[1:])]

    def send(self, body):
        status, _, text = request(self.nginx.public, "POST", self.target("xhr_send"), tls=False, body=body,
                                  headers=[("Content-Type", "application/json")])
        return status, text

    def subscribe(self, channel):
        message = json.dumps({"event": "pusher:subscribe", "data": {"auth": "", "channel": channel}})
        assert self.send(json.dumps([message]).encode()) == (204, b"")
        (reply,) = self.messages()
        assert (reply["event"], reply["channel"]) == ("pusher_internal:subscription_succeeded", channel), reply


def metric(gateway, pattern):
    """Returns the sum of all series that match."""
    text = urllib.request.urlopen(f"{gateway.admin}/metrics").read().decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if re.match(pattern, line))


def forwarded(gateways, result=".*"):
    return sum(metric(gateway, rf'carillon_fallback_forwarded_total\{{result="{result}"\}}') for gateway in gateways)


def sessions(gateways):
    """Returns the number of sessions that each gateway has opened."""
    return [metric(gateway, r'carillon_connections_opened_total\{.*transport="xhr_') for gateway in gateways]


def open_everywhere(nginx, gateways):
    """Opens sessions of both transports until each gateway has one of each. Sets `home` to the session's gateway."""
    opened = []
    for kind in ("xhr_streaming", "xhr"):
        homes = set()
        while len(homes) < len(gateways):
            assert len(opened) < SESSIONS_MAX, f"{len(opened)} sessions, and all of {kind} on one gateway"
            before = sessions(gateways)
            session = Session(nginx, kind)
            (session.home,) = [gateway for gateway, was, now in zip(gateways, before, sessions(gateways)) if now > was]
            homes.add(session.home.address)
            opened.append(session)
    return opened


def serve(nginx, gateways, publish):
    """Checks that sessions on all gateways subscribe and receive events. Returns the open sessions."""
    opened = open_everywhere(nginx, gateways)
    for session in opened:
        session.subscribe("news")
    publish("news", '{"over":"http"}')
    for session in opened:
        # The stream is still open: no proxy waits for its end.
        (event,) = session.messages()
        assert json.loads(event["data"]) == {"over": "http"}, event
    return opened


def bodies_are_bounded(session):
    status, _ = session.send(b"[" + b" " * (BODY_BYTES_MAX - 2) + b"]")
    assert status == 204, f"{BODY_BYTES_MAX} bytes get {status}"
    status, _ = session.send(b"[" + b" " * (BODY_BYTES_MAX - 1) + b"]")
    assert status == 413, f"{BODY_BYTES_MAX + 1} bytes get {status}"
    # The accepted body was an empty array, to which the gateway replies with an empty array.
    assert session.line() == "a[]"
