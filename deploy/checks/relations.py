"""Checks settings that must agree across the files of deploy/, which no single tool checks.

    relations.py DEPLOY ROOT
"""

import configparser
import functools
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml

# Shutdown time that each role needs after drain.accept and, on gateways, drain.window.
AFTER_DRAIN_S = 10
# The longest time without traffic on a live connection: server.activity_timeout + server.pong_timeout by default.
SILENCE_S = 120 + 30
# Ports of databases, caches, queues, search, PHP and metrics that run on the same servers as Carillon.
SERVICE_PORTS = {1433, 3000, 3306, 4369, 5432, 5672, 6001, 6379, 7700, 8080, 8108, 8123, 8983, 9000, 9090, 9092, 9093, 9100, 9200,
                 9300, 9999, 11211, 11300, 15672, 25672, 26379, 16379, 27017, 27018, 27019, 33060}
UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Checks:
    def __init__(self):
        self.mistakes, self.count = [], 0

    def expect(self, holds, complaint):
        self.count += 1
        if not holds:
            self.mistakes.append(complaint)


def seconds(text):
    number, unit = re.fullmatch(r"([0-9.]+)\s*([a-z]*)", str(text).strip()).groups()
    return float(number) * UNITS[unit or "s"]


def interpolated(value):
    """Returns the values with `${NAME:-default}` replaced by the default, like compose without the variable."""
    if isinstance(value, str):
        return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value).replace("$$", "$")
    if isinstance(value, list):
        return [interpolated(item) for item in value]
    if isinstance(value, dict):
        return {key: interpolated(item) for key, item in value.items()}
    return value


def directive(text, name):
    """Returns all values of an nginx directive."""
    return re.findall(rf"^\s*{name}\s+([^;]+);", text, re.MULTILINE)


def shutdown_times_agree(checks, deploy, root):
    """Every page that states the shutdown time states the same one."""
    pages = [root / "docs/OPERATIONS.md", deploy / "compose.yml", deploy / "carillon.toml", deploy / "Dockerfile",
             deploy / "supervisor/carillon.conf", *(deploy / "systemd").glob("*.service")]
    for page in pages:
        stated = re.findall(r"(?:accept|window)`? \+ ([0-9]+) s", page.read_text())
        checks.expect(stated and {int(number) for number in stated} == {AFTER_DRAIN_S},
                      f"{page.name}: states {stated} s instead of {AFTER_DRAIN_S} s after the drain")


def compose(checks, deploy, shutdown_s):
    expect = checks.expect
    file = interpolated(yaml.safe_load((deploy / "compose.yml").read_text()))
    services = file["services"]
    nodes = {"gateway-1": "gateway", "gateway-2": "gateway", "publisher": "publisher"}
    expect(set(services) == {*nodes, "redis", "nginx", "prometheus", "grafana"}, f"services are {sorted(services)}")
    for name, service in services.items():
        expect("healthcheck" in service, f"{name} has no health check")
        expect(service.get("restart") == "unless-stopped", f"{name} is not restarted after a crash")
        expect(service.get("cap_drop") == ["ALL"], f"{name} keeps capabilities that it does not need")
        expect("no-new-privileges:true" in service.get("security_opt", []), f"{name} may gain privileges")
        for port in service.get("ports", []):
            expect(name in ("nginx", "grafana"), f"{name} publishes {port}")
            expect(name != "grafana" or port.startswith("127.0.0.1:"), f"grafana is published beyond this machine: {port}")
        for value in service.get("environment", {}).values():
            expect(not re.search(r"(?i)(password|secret)\s*=|:[^/@\s]+@", str(value)), f"{name} has a secret in {value!r}")
        for secret in service.get("secrets", []):
            source = secret["source"] if isinstance(secret, dict) else secret
            expect(source in file["secrets"], f"{name} uses an undeclared secret: {source}")
        for volume in service.get("volumes", []):
            source, *_ = volume.split(":")
            if source.startswith("."):
                expect((deploy / source).exists(), f"{name} mounts {source}, which does not exist")
                expect(volume.endswith(":ro"), f"{name} may write to {source}")
            else:
                expect(source in file["volumes"], f"{name} uses an undeclared volume: {source}")
        for network in service["networks"]:
            expect(network in file["networks"], f"{name} uses an undeclared network: {network}")
    for secret, where in file["secrets"].items():
        script = (deploy / "secrets.sh").read_text()
        expect(re.search(rf"\b{secret}\b", script), f"secrets.sh does not create {where['file']}")
    for name, role in nodes.items():
        service = services[name]
        expect(service["command"][0] == role, f"{name} runs {service['command'][0]}")
        flags = service["command"][1:]
        expect(service["healthcheck"]["test"][-len(flags):] == flags, f"the health check of {name} reads another configuration")
        expect("--live" in service["healthcheck"]["test"],
               f"{name} becomes unhealthy while Redis is unavailable; a restart would disconnect its clients")
        expect(service["ulimits"]["nofile"]["hard"] >= 65536, f"the descriptor limit of {name} is low")
        grace_s, least_s = seconds(service["stop_grace_period"]), shutdown_s(role, service["ulimits"]["nofile"]["hard"])
        expect(grace_s > least_s, f"{name} is killed after {grace_s} s but needs {least_s} s to shut down")
        expect(service["read_only"] is True, f"{name} may write to its image")
    for network in ("store", "watch"):
        expect(file["networks"][network].get("internal") is True, f"the network {network} is not internal")
    expect(services["redis"]["networks"] == ["store"], "redis is in a network other than store")

    hosts = services["nginx"]["extra_hosts"]
    for name, address in hosts.items():
        expect(services[name]["networks"]["edge"]["ipv4_address"] == address, f"nginx has {address} for {name}")
    for name, environment in ((name, services[name]["environment"]) for name in nodes):
        proxies = tomllib.loads(f"value = {environment['CARILLON_SERVER__TRUSTED_PROXIES']}")["value"]
        expect(proxies == [services["nginx"]["networks"]["edge"]["ipv4_address"]], f"{name} trusts {proxies}")
        allowed = tomllib.loads(f"value = {environment['CARILLON_ADMIN__ALLOW']}")["value"]
        watch = file["networks"]["watch"]["ipam"]["config"][0]["subnet"]
        expect(allowed == ["127.0.0.0/8", watch], f"the admin listener of {name} is open to {allowed}")
    upstreams = (deploy / "nginx/compose/upstreams.conf").read_text()
    for server in directive(upstreams, "server"):
        name = server.split(":")[0]
        expect(name in hosts, f"nginx has no address for {name}")
    targets = yaml.safe_load((deploy / "prometheus/targets/carillon.yml").read_text())
    scraped = [target.split(":")[0] for group in targets for target in group["targets"]]
    expect(sorted(scraped) == sorted(nodes), f"prometheus scrapes {scraped}")
    for name in scraped:
        expect("watch" in services[name]["networks"], f"prometheus cannot reach {name}")


def recipes(checks, root):
    """Every page with an nginx configuration also states how many WebSockets the distribution's settings allow."""
    pages = [root / "README.md", *root.glob("docs/**/*.md"), *root.glob("*/README.md")]
    shown = [page for page in pages if "```nginx" in page.read_text() or "/etc/nginx/nginx.conf" in page.read_text()]
    checks.expect(shown, "no page has an nginx configuration")
    for page in shown:
        checks.expect("worker_connections" in page.read_text(), f"{page.name} does not mention worker_connections")


def nginx(checks, deploy):
    expect = checks.expect
    routes = (deploy / "nginx/carillon/routes.conf").read_text()
    for location in re.findall(r"^location \^~ (?:/pusher)?/app/ \{.*?^\}", routes, re.MULTILINE | re.DOTALL):
        read_s = seconds(directive(location, "proxy_read_timeout")[0])
        expect(read_s > SILENCE_S, f"nginx closes connections that were silent for {read_s} s")
    stream = (deploy / "nginx/examples/stream/nginx.conf").read_text()
    expect(seconds(directive(stream, "proxy_timeout")[0]) > SILENCE_S, "the stream example closes live but silent connections")
    names = [set(re.findall(r"^upstream (\w+)", (deploy / "nginx" / path).read_text(), re.MULTILINE))
             for path in ("carillon/upstreams.conf", "compose/upstreams.conf")]
    expect(names[0] == names[1], f"the two files of upstreams differ: {names}")
    expect(names[0] == set(directive(routes, "proxy_pass http://") or re.findall(r"proxy_pass http://(\w+);", routes)),
           "an upstream is unused or undefined")


def reload(checks, name, command):
    """Runs a unit's ExecReload with an empty path. The main process must receive SIGHUP."""
    # Resets SIGHUP, because a child of a shell that ignores it, for example under nohup, ignores it too.
    heed = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    main = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], preexec_fn=heed)
    try:
        words = [word.replace("$MAINPID", str(main.pid)) for word in shlex.split(command)]
        done = subprocess.run(words, env={"MAINPID": str(main.pid), "PATH": ""}, capture_output=True, text=True)
        checks.expect(done.returncode == 0, f"{name}: ExecReload failed: {done.stderr}")
        checks.expect(words[0] == "/bin/sh", f"{name}: ExecReload needs {words[0]}, which does not exist on all machines")
        checks.expect(main.wait(timeout=10) == -signal.SIGHUP, f"{name}: ExecReload sends no SIGHUP")
    finally:
        main.kill()
        main.wait()


def services(checks, deploy, shutdown_s):
    expect = checks.expect
    for path in sorted((deploy / "systemd").glob("*.service")):
        unit = path.read_text()
        value = lambda key: re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)
        role = "publisher" if "publisher" in path.name else "gateway"
        least_s = shutdown_s(role, int(value("LimitNOFILE")[0]))
        expect(seconds(value("TimeoutStopSec")[0]) > least_s, f"{path.name} is killed before its shutdown completes")
        expect(int(value("LimitNOFILE")[0]) >= 65536, f"the descriptor limit of {path.name} is low")
        expect(value("ProcSubset") == [], f"{path.name} hides /proc/stat, which process metrics read")
        reload(checks, path.name, value("ExecReload")[0])
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    parser.read(deploy / "supervisor/carillon.conf")
    program = parser["program:carillon"]
    expect(program["stopsignal"] == "TERM", "supervisor stops with a signal other than SIGTERM")
    descriptors = int(re.search(r"minfds=([0-9]+)", (deploy / "supervisor/carillon.conf").read_text())[1])
    expect(int(program["stopwaitsecs"]) > shutdown_s("gateway", descriptors), "supervisor kills the process before the drain ends")


def settings_of_the_kernel(deploy):
    lines = (deploy / "systemd/carillon.sysctl.conf").read_text().splitlines()
    pairs = (line.split("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def kernel(checks, deploy):
    for key in settings_of_the_kernel(deploy):
        checks.expect(Path("/proc/sys", key.replace(".", "/")).exists(), f"the kernel has no {key}")


def local_ports(checks, deploy):
    """No outgoing connection, and no listener on a free port, uses the port of a service."""
    settings = settings_of_the_kernel(deploy)
    first, last = (int(port) for port in settings["net.ipv4.ip_local_port_range"].split())
    free = set(range(first, last + 1))
    for part in settings["net.ipv4.ip_local_reserved_ports"].split(","):
        low, _, high = part.partition("-")
        free -= set(range(int(low), int(high or low) + 1))
    units = "".join(path.read_text() for path in sorted((deploy / "systemd").glob("*.service")))
    named = {int(port) for port in re.findall(r"\b([1-6]?[0-9]{4})\b", "".join(re.findall(r"^#.*$", units, re.M)))}
    for port in sorted(SERVICE_PORTS | {port for port in named if port > 1024}):
        checks.expect(port not in free, f"an outgoing connection could use port {port} of a service")
    checks.expect(len(free) > 45_000, f"only {len(free)} ports for outgoing connections")


def image(checks, deploy, root):
    expect = checks.expect
    ignored = (deploy / "Dockerfile.dockerignore").read_text().splitlines()
    workspace = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]
    for needed in ["Cargo.toml", "Cargo.lock", *workspace["members"]]:
        expect(f"!{needed}" in ignored, f"the image is built without {needed}")
    text = (deploy / "Dockerfile").read_text()
    required, built = workspace["package"]["rust-version"], re.search(r"^ARG RUST_VERSION=(.*)$", text, re.MULTILINE)[1]
    at_least = lambda version: [int(part) for part in version.split(".")]
    expect(at_least(built) >= at_least(required), f"the image is built with Rust {built}, but {required} is required")
    version = re.search(r"^ARG VERSION=(.*)$", text, re.MULTILINE)[1]
    expect(version == workspace["package"]["version"], f"the image has version {version}")
    for word in ("HEALTHCHECK", '"healthcheck", "--live"]', "STOPSIGNAL SIGTERM", "EXPOSE 8080 8081 8082 9090", "USER 65532:65532", "ENTRYPOINT ["):
        expect(word in text, f"the Dockerfile has no {word}")


def main(deploy, root):
    deploy, root = Path(deploy), Path(root)
    checks = Checks()
    config = tomllib.loads((deploy / "carillon.toml").read_text())
    drain = config["drain"]
    accept_s, window_s = seconds(drain["accept"]), seconds(drain["window"])
    checks.expect(drain["rate"] <= config["server"]["accept_rate"], "a gateway closes more clients per second than another accepts")

    def shutdown_s(role, descriptors):
        """Returns the shutdown time of a role. A gateway has at most `descriptors` clients and closes `drain.rate` a second."""
        closing_s = max(window_s, descriptors / drain["rate"]) if role == "gateway" else 0
        return accept_s + closing_s + AFTER_DRAIN_S

    shutdown_times_agree(checks, deploy, root)
    compose(checks, deploy, shutdown_s)
    nginx(checks, deploy)
    recipes(checks, root)
    services(checks, deploy, shutdown_s)
    image(checks, deploy, root)
    local_ports(checks, deploy)
    if os.path.isdir("/proc/sys/net/ipv4"):
        kernel(checks, deploy)
    for mistake in checks.mistakes:
        print(mistake, file=sys.stderr)
    print(f"{checks.count} relations, {len(checks.mistakes)} broken")
    return 1 if checks.mistakes else 0


sys.exit(main(*sys.argv[1:]))
