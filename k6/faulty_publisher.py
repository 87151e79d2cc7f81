#!/usr/bin/env python3
"""Stands before a publisher and does to its events what must never happen, so that the scenarios can be seen to notice.

Usage: faulty_publisher.py LISTEN_PORT PUBLISHER_PORT

Of each twenty events published one by one, the 5th is accepted and dropped, the 10th is published twice, and the 15th
is held back until the next has been published. Everything else is passed on as it is.
"""

import http.client
import http.server
import sys

PUBLISHER = int(sys.argv[2])


class Faulty(http.server.BaseHTTPRequestHandler):
    events = 0
    held = None

    def do_GET(self):
        self.answer(*self.forward(self.path, b""))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/events?" not in self.path:
            return self.answer(*self.forward(self.path, body))
        Faulty.events += 1
        place = Faulty.events % 20
        if place == 5:
            return self.answer(200, b"{}")
        if place == 15 and Faulty.held is None:
            Faulty.held = (self.path, body)
            return self.answer(200, b"{}")
        answer = self.forward(self.path, body)
        if place == 10:
            self.forward(self.path, body)
        if Faulty.held is not None:
            self.forward(*Faulty.held)
            Faulty.held = None
        return self.answer(*answer)

    def forward(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", PUBLISHER, timeout=10)
        try:
            connection.request(self.command, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# HTTP/1.0 and one request at a time: the faults are about an order, and a kept connection would keep all others out.
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Faulty).serve_forever()
