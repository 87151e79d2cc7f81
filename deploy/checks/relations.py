"""What must fit together across the files of deploy/, and no tool of any of them looks at.

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

# What any role may take after drain.accept and, where it has clients, drain.window.
AFTER_DRAIN_S = 10
# server.activity_timeout + server.pong_timeout by default: so long may nothing go by on a connection that lives.
SILENCE_S = 120 + 30
# Databases, caches, queues, search, PHP and metrics, which run beside Carillon: a Laravel server has several of them.
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
    """What compose makes of `${NAME:-default}` without the variable."""
    if isinstance(value, str):
        return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value).replace("$$", "$")
    if isinstance(value, list):
        return [interpolated(item) for item in value]
    if isinstance(value, dict):
        return {key: interpolated(item) for key, item in value.items()}
    return value


def directive(text, name):
    """All values of a directive of nginx."""
    return re.findall(rf"^\s*{name}\s+([^;]+);", text, re.MULTILINE)


def the_number(checks, deploy, root):
    """Wherever it is said how long leaving takes, it is said alike."""
    pages = [root / "docs/OPERATIONS.md", deploy / "compose.yml", deploy / "carillon.toml", deploy / "Dockerfile",
             deploy / "supervisor/carillon.conf", *(deploy / "systemd").glob("*.service")]
    for page in pages:
        said = re.findall(r"(?:accept|window)`? \+ ([0-9]+) s", page.read_text())
        checks.expect(said and {int(number) for number in said} == {AFTER_DRAIN_S}, f"{page.name}: leaving takes {said} s more")


def compose(checks, deploy, leaving_s):
    expect = checks.expect
    file = interpolated(yaml.safe_load((deploy / "compose.yml").read_text()))
    services = file["services"]
    nodes = {"gateway-1": "gateway", "gateway-2": "gateway", "publisher": "publisher"}
    expect(set(services) == {*nodes, "redis", "nginx", "prometheus", "grafana"}, f"services are {sorted(services)}")
    for name, service in services.items():
        expect("healthcheck" in service, f"{name} has no health check")
        expect(service.get("restart") == "unless-stopped", f"{name} stays down after a crash")
        expect(service.get("cap_drop") == ["ALL"], f"{name} keeps rights that it does not need")
        expect("no-new-privileges:true" in service.get("security_opt", []), f"{name} may gain rights")
        for port in service.get("ports", []):
            expect(name in ("nginx", "grafana"), f"{name} publishes {port}")
            expect(name != "grafana" or port.startswith("127.0.0.1:"), f"grafana is published beyond this machine: {port}")
        for value in service.get("environment", {}).values():
            expect(not re.search(r"(?i)(password|secret)\s*=|:[^/@\s]+@", str(value)), f"{name} has a secret in {value!r}")
        for secret in service.get("secrets", []):
            source = secret["source"] if isinstance(secret, dict) else secret
            expect(source in file["secrets"], f"{name} uses a secret that is not declared: {source}")
        for volume in service.get("volumes", []):
            source, *_ = volume.split(":")
            if source.startswith("."):
                expect((deploy / source).exists(), f"{name} mounts {source}, which is not there")
                expect(volume.endswith(":ro"), f"{name} may write to {source}")
            else:
                expect(source in file["volumes"], f"{name} uses a volume that is not declared: {source}")
        for network in service["networks"]:
            expect(network in file["networks"], f"{name} is in no such network: {network}")
    for secret, where in file["secrets"].items():
        script = (deploy / "secrets.sh").read_text()
        expect(re.search(rf"\b{secret}\b", script), f"secrets.sh does not make {where['file']}")
    for name, role in nodes.items():
        service = services[name]
        expect(service["command"][0] == role, f"{name} runs {service['command'][0]}")
        flags = service["command"][1:]
        expect(service["healthcheck"]["test"][-len(flags):] == flags, f"the health check of {name} reads another configuration")
        expect("--live" in service["healthcheck"]["test"], f"{name} is unhealthy while Redis is away, and whatever restarts it cuts its clients")
        expect(service["ulimits"]["nofile"]["hard"] >= 65536, f"{name} may open few descriptors")
        grace_s, least_s = seconds(service["stop_grace_period"]), leaving_s(role, service["ulimits"]["nofile"]["hard"])
        expect(grace_s > least_s, f"{name} is killed after {grace_s} s and needs {least_s} s to leave")
        expect(service["read_only"] is True, f"{name} may write to its own image")
    for network in ("store", "watch"):
        expect(file["networks"][network].get("internal") is True, f"the network {network} leads outside")
    expect(services["redis"]["networks"] == ["store"], "redis is in a network of others")

    hosts = services["nginx"]["extra_hosts"]
    for name, address in hosts.items():
        expect(services[name]["networks"]["edge"]["ipv4_address"] == address, f"nginx looks for {name} at {address}")
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
    expect(sorted(scraped) == sorted(nodes), f"prometheus asks {scraped}")
    for name in scraped:
        expect("watch" in services[name]["networks"], f"prometheus does not reach {name}")


def recipes(checks, root):
    """A page that shows how to put nginx in front also says how many WebSockets the distribution's settings hold."""
    pages = [root / "README.md", *root.glob("docs/**/*.md"), *root.glob("*/README.md")]
    shown = [page for page in pages if "```nginx" in page.read_text() or "/etc/nginx/nginx.conf" in page.read_text()]
    checks.expect(len(shown) >= 2, f"recipes for nginx are in {shown}")
    for page in shown:
        checks.expect("worker_connections" in page.read_text(), f"{page.name} does not mention worker_connections")


def nginx(checks, deploy):
    expect = checks.expect
    routes = (deploy / "nginx/carillon/routes.conf").read_text()
    for location in re.findall(r"^location \^~ (?:/pusher)?/app/ \{.*?^\}", routes, re.MULTILINE | re.DOTALL):
        read_s = seconds(directive(location, "proxy_read_timeout")[0])
        expect(read_s > SILENCE_S, f"nginx cuts connections off that were silent for {read_s} s")
    stream = (deploy / "nginx/examples/stream/nginx.conf").read_text()
    expect(seconds(directive(stream, "proxy_timeout")[0]) > SILENCE_S, "the stream example cuts silent connections off")
    names = [set(re.findall(r"^upstream (\w+)", (deploy / "nginx" / path).read_text(), re.MULTILINE))
             for path in ("carillon/upstreams.conf", "compose/upstreams.conf")]
    expect(names[0] == names[1], f"the two files of upstreams differ: {names}")
    expect(names[0] == set(directive(routes, "proxy_pass http://") or re.findall(r"proxy_pass http://(\w+);", routes)),
           "an upstream is not used, or used and not there")


def reload(checks, name, command):
    """Runs a unit's ExecReload as systemd does, without any program in the path: the main process gets SIGHUP."""
    # A shell that ignores SIGHUP, as under nohup, passes that on.
    heed = functools.partial(signal.signal, signal.SIGHUP, signal.SIG_DFL)
    main = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"], preexec_fn=heed)
    try:
        words = [word.replace("$MAINPID", str(main.pid)) for word in shlex.split(command)]
        done = subprocess.run(words, env={"MAINPID": str(main.pid), "PATH": ""}, capture_output=True, text=True)
        checks.expect(done.returncode == 0, f"{name}: ExecReload failed: {done.stderr}")
        checks.expect(words[0] == "/bin/sh", f"{name}: ExecReload needs {words[0]}, which some machines do not have")
        checks.expect(main.wait(timeout=10) == -signal.SIGHUP, f"{name}: ExecReload sends no SIGHUP")
    finally:
        main.kill()
        main.wait()


def services(checks, deploy, leaving_s):
    expect = checks.expect
    for path in sorted((deploy / "systemd").glob("*.service")):
        unit = path.read_text()
        value = lambda key: re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)
        role = "publisher" if "publisher" in path.name else "gateway"
        least_s = leaving_s(role, int(value("LimitNOFILE")[0]))
        expect(seconds(value("TimeoutStopSec")[0]) > least_s, f"{path.name} is killed before it has left")
        expect(int(value("LimitNOFILE")[0]) >= 65536, f"{path.name} may open few descriptors")
        expect(value("ProcSubset") == [], f"{path.name} hides /proc/stat, which process metrics read")
        reload(checks, path.name, value("ExecReload")[0])
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";",))
    parser.read(deploy / "supervisor/carillon.conf")
    program = parser["program:carillon"]
    expect(program["stopsignal"] == "TERM", "supervisor stops with another signal than SIGTERM")
    descriptors = int(re.search(r"minfds=([0-9]+)", (deploy / "supervisor/carillon.conf").read_text())[1])
    expect(int(program["stopwaitsecs"]) > leaving_s("gateway", descriptors), "supervisor kills before the drain is over")


def settings_of_the_kernel(deploy):
    lines = (deploy / "systemd/carillon.sysctl.conf").read_text().splitlines()
    pairs = (line.split("=") for line in lines if line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in pairs}


def kernel(checks, deploy):
    for key in settings_of_the_kernel(deploy):
        checks.expect(Path("/proc/sys", key.replace(".", "/")).exists(), f"the kernel has no {key}")


def local_ports(checks, deploy):
    """A connection, or a listener on any free port, never has the port of a service."""
    settings = settings_of_the_kernel(deploy)
    first, last = (int(port) for port in settings["net.ipv4.ip_local_port_range"].split())
    free = set(range(first, last + 1))
    for part in settings["net.ipv4.ip_local_reserved_ports"].split(","):
        low, _, high = part.partition("-")
        free -= set(range(int(low), int(high or low) + 1))
    units = "".join(path.read_text() for path in sorted((deploy / "systemd").glob("*.service")))
    named = {int(port) for port in re.findall(r"\b([1-6]?[0-9]{4})\b", "".join(re.findall(r"^#.*$", units, re.M)))}
    for port in sorted(SERVICE_PORTS | {port for port in named if port > 1024}):
        checks.expect(port not in free, f"a connection may take port {port} away from its service")
    checks.expect(len(free) > 45_000, f"only {len(free)} ports for connections of this machine")


def image(checks, deploy, root):
    expect = checks.expect
    ignored = (deploy / "Dockerfile.dockerignore").read_text().splitlines()
    workspace = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]
    for needed in ["Cargo.toml", "Cargo.lock", *workspace["members"]]:
        expect(f"!{needed}" in ignored, f"the image is built without {needed}")
    text = (deploy / "Dockerfile").read_text()
    wanted, built = workspace["package"]["rust-version"], re.search(r"^ARG RUST_VERSION=(.*)$", text, re.MULTILINE)[1]
    at_least = lambda version: [int(part) for part in version.split(".")]
    expect(at_least(built) >= at_least(wanted), f"the image is built with Rust {built}, and {wanted} is needed")
    version = re.search(r"^ARG VERSION=(.*)$", text, re.MULTILINE)[1]
    expect(version == workspace["package"]["version"], f"the image says that it is {version}")
    for word in ("HEALTHCHECK", '"healthcheck", "--live"]', "STOPSIGNAL SIGTERM", "EXPOSE 8080 8081 8082 9090", "USER 65532:65532", "ENTRYPOINT ["):
        expect(word in text, f"the Dockerfile has no {word}")


def main(deploy, root):
    deploy, root = Path(deploy), Path(root)
    checks = Checks()
    config = tomllib.loads((deploy / "carillon.toml").read_text())
    drain = config["drain"]
    accept_s, window_s = seconds(drain["accept"]), seconds(drain["window"])
    checks.expect(drain["rate"] <= config["server"]["accept_rate"], "a gateway closes more clients than another one accepts")

    def leaving_s(role, descriptors):
        """What a role takes to shut down. A gateway has no more clients than descriptors, and closes `drain.rate` a second."""
        closing_s = max(window_s, descriptors / drain["rate"]) if role == "gateway" else 0
        return accept_s + closing_s + AFTER_DRAIN_S

    the_number(checks, deploy, root)
    compose(checks, deploy, leaving_s)
    nginx(checks, deploy)
    recipes(checks, root)
    services(checks, deploy, leaving_s)
    image(checks, deploy, root)
    local_ports(checks, deploy)
    if os.path.isdir("/proc/sys/net/ipv4"):
        kernel(checks, deploy)
    for mistake in checks.mistakes:
        print(mistake, file=sys.stderr)
    print(f"{checks.count} relations, {len(checks.mistakes)} broken")
    return 1 if checks.mistakes else 0


sys.exit(main(*sys.argv[1:]))
