#!/usr/bin/env python3
"""A proxy in front of a publisher that injects faults into its events, to test whether the scenarios detect them.

Usage: faulty_publisher.py LISTEN_PORT PUBLISHER_PORT

Of each twenty single events, the 5th is accepted and dropped, and the 10th is published twice. The 15th is delayed until the next one
has been published. All other requests are forwarded unchanged.
"""

import http.client
import http.server
import sys

PUBLISHER = int(sys.argv[2])


class Faulty(http.server.BaseHTTPRequestHandler):
    events = 0
    delayed = None

    def do_GET(self):
        self.respond(*self.forward(self.path, b""))

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "/events?" not in self.path:
            return self.respond(*self.forward(self.path, body))
        Faulty.events += 1
        position = Faulty.events % 20
        if position == 5:
            return self.respond(200, b"{}")
        if position == 15 and Faulty.delayed is None:
            Faulty.delayed = (self.path, body)
            return self.respond(200, b"{}")
        response = self.forward(self.path, body)
        if position == 10:
            self.forward(self.path, body)
        if Faulty.delayed is not None:
            self.forward(*Faulty.delayed)
            Faulty.delayed = None
        return self.respond(*response)

    def forward(self, path, body):
        connection = http.client.HTTPConnection("127.0.0.1", PUBLISHER, timeout=10)
        try:
            connection.request(self.command, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def respond(self, status, body):
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


# Uses HTTP/1.0 and one request at a time. The faults depend on an order, and a keep-alive connection would block all others.
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Faulty).serve_forever()
