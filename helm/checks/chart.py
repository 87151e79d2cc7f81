"""Renders the chart with `helm template`, and gives access to the rendered objects."""

import base64
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm/carillon"
DEPLOY = Path(os.environ.get("DEPLOY", REPOSITORY / "deploy"))
VALUES_FILES = sorted((CHART / "ci").glob("*-values.yaml"))
REFUSED_FILES = sorted((CHART / "ci/bad").glob("*.yaml"))

RELEASE = "shop"
NAMESPACE = "broadcast"

# Without a version, a helm that was built from source assumes an outdated Kubernetes.
KUBERNETES = "1.34"

Manifest = dict[str, Any]


def helm(*arguments: str, values: str | None = None) -> subprocess.CompletedProcess[str]:
    """Runs helm. `values` is a file on its standard input (`-f -`)."""
    return subprocess.run([os.environ["HELM"], *arguments], capture_output=True, text=True, input=values, timeout=60)


def template(*arguments: str, values: str | None = None) -> subprocess.CompletedProcess[str]:
    return helm(
        "template",
        RELEASE,
        str(CHART),
        "--namespace",
        NAMESPACE,
        "--kube-version",
        KUBERNETES,
        *arguments,
        values=values,
    )


@cache
def render(file: Path, values: str = "{}") -> "Rendering":
    """Renders a values file, with further values as YAML. The result is cached."""
    return fresh(file, values)


def fresh(file: Path, values: str = "{}", *arguments: str) -> "Rendering":
    """Renders like `render` without the cache. Generated secrets differ each time."""
    rendered = template("-f", str(file), "-f", "-", *arguments, values=values)
    assert rendered.returncode == 0, rendered.stderr
    return Rendering(file.stem, [manifest for manifest in yaml.safe_load_all(rendered.stdout) if manifest])


@dataclass(frozen=True)
class Pod:
    """The pod template of a workload, or a pod."""

    owner: Manifest
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: dict[str, Any]

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def containers(self) -> list[dict[str, Any]]:
        """Returns all containers, including init containers."""
        return self.spec.get("initContainers", []) + self.spec["containers"]

    @property
    def main(self) -> dict[str, Any]:
        return self.spec["containers"][0]

    def ports(self) -> dict[str, int]:
        return {
            port["name"]: port["containerPort"] for container in self.containers for port in container.get("ports", [])
        }

    def port(self, name_or_number: str | int) -> int | None:
        """Returns the number of a container port, or `None` if no container has it."""
        ports = self.ports()
        if isinstance(name_or_number, str):
            return ports.get(name_or_number)
        return name_or_number if name_or_number in ports.values() else None

    def __str__(self) -> str:
        return f"{self.owner['kind']} {self.owner['metadata']['name']}"


@dataclass(frozen=True)
class Rendering:
    name: str
    manifests: list[Manifest]

    def all(self, *kinds: str) -> list[Manifest]:
        return [manifest for manifest in self.manifests if manifest["kind"] in kinds]

    def one(self, kind: str, name: str) -> Manifest:
        found = [manifest for manifest in self.all(kind) if manifest["metadata"]["name"] == name]
        assert len(found) == 1, f"{len(found)} {kind} named {name}"
        return found[0]

    @cached_property
    def pods(self) -> list[Pod]:
        out = []
        for manifest in self.manifests:
            if manifest["kind"] == "Pod":
                out.append(_pod(manifest, manifest["metadata"], manifest["spec"]))
            elif "template" in manifest.get("spec", {}):
                template = manifest["spec"]["template"]
                out.append(_pod(manifest, template["metadata"], template["spec"]))
        return out

    def pod(self, component: str) -> Pod:
        found = [pod for pod in self.pods if pod.component == component]
        assert len(found) == 1, f"{len(found)} pods of {component}"
        return found[0]

    def selected(self, labels: dict[str, str]) -> list[Pod]:
        return [pod for pod in self.pods if labels.items() <= pod.labels.items()]

    @property
    def configuration(self) -> Manifest:
        """Returns the ConfigMap or Secret that contains carillon.toml."""
        found = [manifest for manifest in self.all("ConfigMap", "Secret") if "carillon.toml" in contents(manifest)]
        assert len(found) == 1
        return found[0]

    @property
    def toml(self) -> dict[str, Any]:
        return tomllib.loads(contents(self.configuration)["carillon.toml"])

    @property
    def secrets(self) -> set[str]:
        """Returns all texts in Secrets except the configuration, which is only partly secret."""
        found = set()
        for manifest in self.all("Secret"):
            for key, text in contents(manifest).items():
                if key != "carillon.toml":
                    found.add(text.strip())
        return found


def _pod(owner: Manifest, metadata: dict[str, Any], spec: dict[str, Any]) -> Pod:
    return Pod(owner, metadata["labels"], metadata.get("annotations", {}), spec)


def contents(manifest: Manifest) -> dict[str, str]:
    """Returns the decoded texts of a ConfigMap or Secret."""
    data = manifest.get("data", {})
    if manifest["kind"] == "Secret":
        data = {key: base64.b64decode(text).decode() for key, text in data.items()}
    return data | manifest.get("stringData", {})


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every scalar value with its path."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from leaves(below, f"{path}.{key}")
    elif isinstance(value, list):
        for index, below in enumerate(value):
            yield from leaves(below, f"{path}.{index}")
    else:
        yield path, value


def seconds(duration: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit]


def values_schema() -> dict[str, Any]:
    return json.loads((CHART / "values.schema.json").read_text())
