"""Runs the containers of rendered pods on this machine, with the files, variables and arguments that Kubernetes would provide.

Addresses of Services become ports of 127.0.0.1, and paths become folders. Nothing else is changed."""

import os
import random
import re
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

from chart import NAMESPACE, REPOSITORY, Pod, Rendering, contents

BINARY = Path(os.environ.get("BINARY_UNDER_TEST", REPOSITORY / "target/release/carillon"))

# The time limit for expected events. Only a failing check takes this long.
DEADLINE_S = 20

# Ports that are used or reserved by these checks.
HANDED_OUT: set[int] = set()


class Machine:
    """Runs the pods of one rendering within a `with` block."""

    def __init__(self, chart: Rendering, folder: Path, foreign: dict[str, dict[str, str]] | None = None):
        """`foreign`: Secrets that the chart does not create, by name."""
        self.chart = chart
        self.foreign = foreign or {}
        self.folder = folder
        self.processes: list[subprocess.Popen] = []
        # The local ports of each component, by container port.
        self.ports = {
            pod.component: {port: free_port() for port in pod.ports().values()}
            for pod in chart.pods
            if pod.component != "test"
        }

    def __enter__(self) -> "Machine":
        assert BINARY.exists(), f"{BINARY} does not exist: run make build, or set BINARY_UNDER_TEST"
        return self

    def __exit__(self, *_):
        for process in self.processes:
            if process.poll() is None and "nginx" in process.args[0]:
                # Its workers keep running when it is killed.
                process.terminate()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=DEADLINE_S)
            if process.poll() is None:
                process.kill()
            process.wait()

    def files(self, pod: Pod, container: dict[str, Any]) -> Path:
        """Writes the mounted files of a container and returns their root folder."""
        root = self.folder / f"{pod.owner['metadata']['name']}-{container['name']}"
        for mount in container.get("volumeMounts", []):
            volume = next(volume for volume in pod.spec["volumes"] if volume["name"] == mount["name"])
            place = root / mount["mountPath"].lstrip("/")
            place.mkdir(parents=True, exist_ok=True)
            for source in volume.get("projected", {}).get("sources", [volume]):
                for name, text in self.source(source).items():
                    (place / name).parent.mkdir(parents=True, exist_ok=True)
                    (place / name).write_text(self.here(text, root, container))
        return root

    def source(self, source: dict[str, Any]) -> dict[str, str]:
        """Returns the texts of a ConfigMap or Secret by file name. Returns none for other sources."""
        for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
            if key in source:
                reference = source[key]
                texts = self.texts(kind, reference.get("secretName") or reference["name"])
                items = reference.get("items", [{"key": key, "path": key} for key in texts])
                return {item["path"]: texts[item["key"]] for item in items}
        return {}

    def texts(self, kind: str, name: str) -> dict[str, str]:
        own = [manifest for manifest in self.chart.all(kind) if manifest["metadata"]["name"] == name]
        return contents(own[0]) if own else self.foreign[name]

    def here(self, text: str, root: Path, container: dict[str, Any]) -> str:
        """Replaces paths and addresses of the cluster in a text by those of this machine."""
        for mount in container.get("volumeMounts", []):
            text = re.sub(
                rf"(?<![\w/]){re.escape(mount['mountPath'])}(?![\w-])", str(root / mount["mountPath"].lstrip("/")), text
            )
        for service in self.chart.all("Service"):
            name = service["metadata"]["name"]
            component = service["metadata"]["labels"]["app.kubernetes.io/component"]
            for port in service["spec"]["ports"]:
                for pod in [
                    pod for pod in self.chart.selected(service["spec"]["selector"]) if pod.component == component
                ]:
                    target = self.ports[component][pod.port(port["targetPort"])]
                    host = rf"(?<![\w-]){name}(\.{NAMESPACE}\.svc(\.cluster\.local)?)?"
                    text = re.sub(rf"{host}:{port['port']}(?!\d)", f"127.0.0.1:{target}", text)
        return text

    def environment(self, pod: Pod, container: dict[str, Any]) -> dict[str, str]:
        """Returns the environment variables of a container, with references resolved and `$(NAME)` replaced."""
        variables: dict[str, str] = {}
        for variable in container.get("env", []):
            reference = variable.get("valueFrom", {})
            if "secretKeyRef" in reference:
                text = self.texts("Secret", reference["secretKeyRef"]["name"])[reference["secretKeyRef"]["key"]]
            elif "fieldRef" in reference:
                text = reference["fieldRef"]["fieldPath"]
            else:
                text = expand(variable["value"], variables)
            variables[variable["name"]] = self.here(text, Path("/"), {})
        return variables

    def start(
        self, pod: Pod, container: dict[str, Any] | None = None, command: list[str] | None = None, **extra: str
    ) -> subprocess.Popen:
        """Starts a container, or another command in it. `extra`: variables that only this machine needs."""
        container = container or pod.main
        root = self.files(pod, container)
        variables = self.environment(pod, container)
        if command is None:
            command = container["command"] + [expand(argument, variables) for argument in container.get("args", [])]
        command = [self.here(argument, root, container) for argument in command]
        for index, argument in enumerate(command):
            if argument == "--port":
                command[index + 1] = str(self.ports[pod.component][int(command[index + 1])])
        if command[0] == "carillon":
            command[0] = str(BINARY)
        log = (self.folder / f"{pod.owner['metadata']['name']}-{container['name']}.log").open("a")
        # Inherits no variable except PATH: a container only has the variables of its pod.
        environment = {"PATH": os.environ["PATH"], **variables, **extra}
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=self.folder)
        self.processes.append(process)
        return process

    def run_command(self, role: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a command of the binary, with the configuration and the variables of a role."""
        pod = self.chart.pod(role)
        config = self.files(pod, pod.main) / "etc/carillon/carillon.toml"
        command = [str(BINARY), *words, "--config", str(config)]
        return subprocess.run(
            command, env=self.environment(pod, pod.main), capture_output=True, text=True, timeout=DEADLINE_S
        )

    def start_role(self, role: str) -> subprocess.Popen:
        pod = self.chart.pod(role)
        here = {"CARILLON_ADMIN__PORT": str(self.ports[role][9090]), "CARILLON_ADMIN__HOST": "127.0.0.1"}
        if peers := pod.ports().get("peers"):
            here |= {"CARILLON_PEERS__PORT": str(self.ports[role][peers]), "CARILLON_PEERS__HOST": "127.0.0.1"}
        return self.start(pod, CARILLON_SERVER__HOST="127.0.0.1", **here)

    def start_redis(self) -> subprocess.Popen:
        pod = self.chart.pod("redis")
        (self.folder / "data").mkdir(exist_ok=True)
        root = self.files(pod, pod.main)
        command = [self.here(argument, root, pod.main) for argument in pod.main["command"]]
        process = self.start(pod, command=command + ["--bind", "127.0.0.1", "--port", "6379"])
        client, *words = pod.main["readinessProbe"]["exec"]["command"]
        probe = [client, "-p", str(self.ports["redis"][6379]), *words]
        environment = {"PATH": os.environ["PATH"], **self.environment(pod, pod.main)}
        wait(
            lambda: subprocess.run(probe, env=environment, capture_output=True).returncode == 0,
            "redis answers its probe",
        )
        return process

    def probe(self, role: str, kind: str) -> int:
        """Returns the HTTP status of a role's probe."""
        pod = self.chart.pod(role)
        request = pod.main[kind]["httpGet"]
        return status(f"http://127.0.0.1:{self.ports[role][pod.port(request['port'])]}{request['path']}")

    def log(self, name: str) -> str:
        return "\n".join(f"== {file.name}\n{file.read_text()}" for file in sorted(self.folder.glob(f"*{name}*.log")))

    def end(self, process: subprocess.Popen) -> float:
        """Stops a process like a kubelet, and returns the seconds that it took."""
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)
        return time.monotonic() - start


def status(url: str, authority: Path | None = None, method: str = "GET") -> int:
    """Returns the HTTP status of a request, or 0 without a response. `authority`: the CA certificate of the server."""
    context = ssl.create_default_context(cafile=authority) if authority else None
    request = urllib.request.Request(url, method=method)
    try:
        with urllib.request.urlopen(request, timeout=2, context=context) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, HTTPException):
        return 0


def expand(text: str, variables: dict[str, str]) -> str:
    return re.sub(r"\$\((\w+)\)", lambda found: variables.get(found[1], found[0]), text)


def free_port() -> int:
    """Returns a free port below the range of outgoing connections, which could occupy it before it is used."""
    while True:
        port = random.randrange(15_000, 32_000)
        if port not in HANDED_OUT:
            with socket.socket() as listener, suppress(OSError):
                listener.bind(("127.0.0.1", port))
                HANDED_OUT.add(port)
                return port


def wait(condition, description: str):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE_S} s: {description}"
        time.sleep(0.05)


def make_certificates(folder: Path) -> dict[str, str]:
    """Creates a CA and a certificate of this machine. Returns their files by the names of their keys in Secrets."""

    def openssl(*arguments: str):
        made = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True)
        assert made.returncode == 0, made.stderr

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-subj", "/CN=authority", "-out", "ca.crt")
    openssl("req", *key, "-keyout", "tls.key", "-subj", "/CN=localhost", "-out", "tls.csr")
    (folder / "names").write_text("subjectAltName = DNS:localhost, IP:127.0.0.1\n")
    signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl("x509", "-req", "-in", "tls.csr", *signed, "-out", "tls.crt")
    return {name: (folder / name).read_text() for name in ("ca.crt", "tls.crt", "tls.key")}
