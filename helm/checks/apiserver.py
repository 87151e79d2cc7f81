"""A minimal Kubernetes API server for Helm 3 and 4: it lists kinds and stores objects, for install, upgrade and uninstall.

It validates no objects and runs no pods. It applies a single default of Kubernetes: a Deployment without `replicas` gets 1."""

import base64
import json
import threading
from copy import deepcopy
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import yaml

# Kinds and their names in paths, by group and version.
KINDS = {
    "v1": {
        "ConfigMap": "configmaps",
        "Pod": "pods",
        "Secret": "secrets",
        "Service": "services",
        "ServiceAccount": "serviceaccounts",
    },
    "apps/v1": {"Deployment": "deployments", "StatefulSet": "statefulsets"},
    "autoscaling/v2": {"HorizontalPodAutoscaler": "horizontalpodautoscalers"},
    "gateway.networking.k8s.io/v1": {"HTTPRoute": "httproutes"},
    "monitoring.coreos.com/v1": {"PrometheusRule": "prometheusrules", "ServiceMonitor": "servicemonitors"},
    "networking.k8s.io/v1": {"Ingress": "ingresses", "NetworkPolicy": "networkpolicies"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
}
VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}


class ApiServer:
    """Serves on a free port of 127.0.0.1 within a `with` block. `objects`: the stored objects, by path."""

    def __init__(self):
        self.objects: dict[str, dict[str, Any]] = {}
        # The objects that Helm 4 applied last, by path. Fields that the next apply omits are removed.
        self.applied: dict[str, dict[str, Any]] = {}
        # Replicas that an autoscaler has set, by path.
        self.scaled: dict[str, int] = {}
        objects, applied, scaled = self.objects, self.applied, self.scaled

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path, _, query = self.path.partition("?")
                if path in DISCOVERY:
                    return self.answer(200, DISCOVERY[path])
                if path in objects:
                    return self.answer(200, objects[path])
                if (plural := path.rpartition("/")[2]) in COLLECTIONS:
                    selector = parse_qs(query).get("labelSelector", [""])[0]
                    labels = dict(pair.split("=") for pair in selector.split(",") if pair)
                    found = [
                        item
                        for name, item in objects.items()
                        if name.rpartition("/")[0] == path
                        and labels.items() <= item["metadata"].get("labels", {}).items()
                    ]
                    return self.answer(
                        200, {"kind": f"{COLLECTIONS[plural]}List", "apiVersion": "v1", "metadata": {}, "items": found}
                    )
                self.answer(404, failure("NotFound", 404))

            def do_POST(self):
                path = self.path.partition("?")[0]
                body = self.body()
                name = f"{path}/{body['metadata']['name']}"
                if name in objects:
                    return self.answer(409, failure("AlreadyExists", 409))
                objects[name] = defaulted(body)
                self.answer(201, body)

            def do_PUT(self):
                path = self.path.partition("?")[0]
                objects[path] = defaulted(self.body())
                self.answer(200, objects[path])

            def do_PATCH(self):
                path, _, query = self.path.partition("?")
                if self.headers["Content-Type"].startswith("application/apply-patch"):
                    return self.apply(path, parse_qs(query).get("force") == ["true"])
                merge(objects[path], self.body())
                self.answer(200, defaulted(objects[path]))

            def apply(self, path: str, force: bool):
                """Performs a server-side apply. Helm and an autoscaler are the only field managers."""
                applying = yaml.safe_load(self.data())
                replicas = applying.get("spec", {}).get("replicas")
                if replicas != scaled.get(path, replicas) and not force:
                    return self.answer(409, failure("Conflict", 409))
                live = objects.setdefault(path, {})
                remove(live, applied.get(path, {}), applying)
                merge(live, deepcopy(applying))
                applied[path] = applying
                self.answer(200, defaulted(live))

            def do_DELETE(self):
                self.data()
                deleted = objects.pop(self.path.partition("?")[0], None)
                self.answer(
                    200 if deleted else 404,
                    {"kind": "Status", "apiVersion": "v1", "status": "Success"} if deleted else failure("NotFound", 404),
                )

            def data(self) -> bytes:
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))

            def body(self) -> dict[str, Any]:
                data = self.data()
                return secret_of(data) if data.startswith(PROTOBUF) else json.loads(data or "{}")

            def answer(self, status: int, body: dict[str, Any]):
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> "ApiServer":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def kubeconfig(self, path: Path) -> Path:
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}],
            "users": [{"name": "anonymous", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "anonymous"}}],
            "current-context": "here",
        }
        path.write_text(json.dumps(config))
        return path

    def scale(self, name: str, replicas: int):
        """Sets the replicas of a Deployment like a HorizontalPodAutoscaler."""
        (path,) = [path for path, item in self.objects.items() if item is self.kept("Deployment")[name]]
        self.objects[path]["spec"]["replicas"] = self.scaled[path] = replicas

    def kept(self, kind: str) -> dict[str, dict[str, Any]]:
        """Returns the objects of a kind by name, without Helm's release records."""
        found = [
            item for item in self.objects.values() if item["kind"] == kind and item.get("type") != "helm.sh/release.v1"
        ]
        return {item["metadata"]["name"]: item for item in found}


def failure(reason: str, code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code}


# The prefix of an object in protobuf.
PROTOBUF = b"k8s\0"


def secret_of(data: bytes) -> dict[str, Any]:
    """Returns a Secret from the protobuf of Helm's release records. Source: kubernetes/api, core/v1/generated.proto."""
    secret = fields(fields(data[len(PROTOBUF) :])[2][0])
    metadata = fields(secret[1][0])

    def entries(items: list[bytes]) -> dict[str, bytes]:
        return {entry[1][0].decode(): entry[2][0] for entry in map(fields, items)}

    return {
        "kind": "Secret",
        "apiVersion": "v1",
        "metadata": {
            "name": metadata[1][0].decode(),
            "namespace": metadata[3][0].decode(),
            "labels": {key: value.decode() for key, value in entries(metadata.get(11, [])).items()},
        },
        "type": secret[3][0].decode(),
        "data": {key: base64.b64encode(value).decode() for key, value in entries(secret.get(2, [])).items()},
    }


def fields(message: bytes) -> dict[int, list[bytes]]:
    """Returns the strings and messages in a protobuf message, by field. Numbers are skipped."""
    found: dict[int, list[bytes]] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(message):
        field, kind = divmod(number(), 8)
        if kind == 0:
            number()
        elif kind == 2:
            length = number()
            found.setdefault(field, []).append(message[at : at + length])
            at += length
        else:
            raise ValueError(f"kind {kind} of field {field}")
    return found


def defaulted(item: dict[str, Any]) -> dict[str, Any]:
    if item["kind"] == "Deployment":
        item["spec"].setdefault("replicas", 1)
    return item


def remove(live: dict[str, Any], before: dict[str, Any], now: dict[str, Any]):
    """Removes fields that were applied before and are not applied now."""
    for key, value in before.items():
        if key not in now:
            live.pop(key, None)
        elif isinstance(value, dict) and isinstance(now[key], dict) and isinstance(live.get(key), dict):
            remove(live[key], value, now[key])


def merge(into: dict[str, Any], patch: dict[str, Any]):
    """Applies a JSON merge patch."""
    for key, value in patch.items():
        if value is None:
            into.pop(key, None)
        elif isinstance(value, dict) and isinstance(into.get(key), dict):
            merge(into[key], value)
        else:
            into[key] = value


def discovery() -> dict[str, dict[str, Any]]:
    """Returns the discovery documents, by path."""
    answers: dict[str, dict[str, Any]] = {"/version": VERSION, "/api": {"kind": "APIVersions", "versions": ["v1"]}}
    groups = []
    for group_version, kinds in KINDS.items():
        resources = [
            {
                "name": plural,
                "singularName": kind.lower(),
                "namespaced": True,
                "kind": kind,
                "verbs": ["create", "delete", "get", "list", "patch", "update"],
            }
            for kind, plural in kinds.items()
        ]
        path = "/api/v1" if group_version == "v1" else f"/apis/{group_version}"
        answers[path] = {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": group_version,
            "resources": resources,
        }
        if group_version != "v1":
            group, version = group_version.split("/")
            preferred = {"groupVersion": group_version, "version": version}
            groups.append({"name": group, "versions": [preferred], "preferredVersion": preferred})
    answers["/apis"] = {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
    return answers


DISCOVERY = discovery()
COLLECTIONS = {plural: kind for kinds in KINDS.values() for kind, plural in kinds.items()}
