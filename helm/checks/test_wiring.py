"""Checks that names, labels and ports of an object match the references in other objects."""

import re
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from chart import DEPLOY, NAMESPACE, VALUES_FILES, Manifest, Pod, Rendering, contents, render

WORKLOADS = ("Deployment", "StatefulSet")
ROLES = {"gateway": 8080, "publisher": 8081}

# Secrets that the values files refer to and that the chart does not create.
FOREIGN_SECRETS = {
    "everything-values": {"elsewhere", "hooks", "hooks-authority"},
    "high-availability-values": {"shop-broadcast", "admin-broadcast", "redis"},
    "nginx-values": {"ws-tls"},
    "redis-tls-values": {"broadcast-redis", "internal-authority", "internal-client"},
    "tls-values": {"authority", "ws-tls"},
}


def test_objects_have_a_namespace_a_unique_name_and_labels(chart: Rendering):
    seen = set()
    for manifest in chart.manifests:
        metadata = manifest["metadata"]
        identity = (manifest["kind"], metadata["name"])
        assert identity not in seen
        seen.add(identity)
        assert metadata["namespace"] == NAMESPACE, identity
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", metadata["name"]), identity
        assert {
            f"app.kubernetes.io/{name}" for name in ("name", "instance", "component", "version", "managed-by")
        } <= metadata["labels"].keys(), identity
        for key, value in metadata["labels"].items():
            assert len(value) <= 63, (identity, key)


def test_selectors_select_their_own_pods_and_no_others(chart: Rendering):
    for manifest in chart.all(*WORKLOADS):
        selected = chart.selected(manifest["spec"]["selector"]["matchLabels"])
        assert [pod.owner for pod in selected] == [manifest]
        for spread in manifest["spec"]["template"]["spec"].get("topologySpreadConstraints", []):
            assert [pod.owner for pod in chart.selected(spread["labelSelector"]["matchLabels"])] == [manifest]


def test_each_disruption_budget_and_autoscaler_has_one_workload(chart: Rendering):
    budgeted = []
    for budget in chart.all("PodDisruptionBudget"):
        (pod,) = chart.selected(budget["spec"]["selector"]["matchLabels"])
        # While Redis is unavailable no gateway is ready, but all keep their clients.
        policy = "IfHealthyBudget" if pod.component == "gateway" else "AlwaysAllow"
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == policy
        assert budget["spec"]["maxUnavailable"] not in (0, "0%")
        budgeted.append(pod.component)
    assert sorted(budgeted) == sorted({*ROLES, *(["nginx"] if chart.all("ConfigMap") and has(chart, "nginx") else [])})
    scaled = {}
    for scaler in chart.all("HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        deployment = chart.one(target["kind"], target["name"])
        assert deployment["apiVersion"] == target["apiVersion"]
        scaled[target["name"]] = scaler
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "Resource":
                containers = deployment["spec"]["template"]["spec"]["containers"]
                assert all(metric["resource"]["name"] in container["resources"]["requests"] for container in containers)
            else:
                assert metric["pods"]["metric"]["name"] == "carillon_connections"
                goal, cap = int(metric["pods"]["target"]["averageValue"]), chart.toml["server"]["connections_max"]
                assert goal < cap
    for deployment in chart.all("Deployment"):
        # Without a number Kubernetes uses 1. test_install.py checks that an upgrade keeps the autoscaler's number.
        scaler = scaled.get(deployment["metadata"]["name"])
        assert deployment["spec"]["replicas"] >= (scaler["spec"]["minReplicas"] if scaler else 1)


def test_services_target_ports_that_pods_have(chart: Rendering):
    for service in chart.all("Service"):
        pods = chart.selected(service["spec"]["selector"])
        component = service["metadata"]["labels"]["app.kubernetes.io/component"]
        expected = set(ROLES) if component == "metrics" else {component}
        assert {pod.component for pod in pods} == expected, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            for pod in pods:
                number = pod.port(port["targetPort"])
                assert number, (service["metadata"]["name"], port)
                if service["spec"].get("clusterIP") == "None":
                    assert port["port"] == number, "a headless Service maps no ports"


def test_services_declare_the_protocol_of_their_pods(chart: Rendering):
    protocol = "https" if "tls" in chart.toml else "http"
    expected = {"gateway": protocol, "publisher": protocol}
    if chart.name == "everything-values":
        expected["gateway"] = "kubernetes.io/ws"
    found = {}
    for service in chart.all("Service"):
        name = service["metadata"]["name"].rsplit("-", 1)[-1]
        found[name] = {port["name"]: port.get("appProtocol") for port in service["spec"]["ports"]}
    assert {role: found[role]["http"] for role in ROLES} == expected
    # A mesh routes HTTP to a headless Service by the Host header, where gateways put an address.
    assert found["peers"] == {"tcp-peers": "tcp"}
    assert found.get("pods", {"http": "http"}) == {"http": "http"}
    assert found.get("metrics", {"admin": "http"}) == {"admin": "http"}


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("tls, given, expected", [("", "", "http"), ("pair", "", "https"), ("pair", "http", "http")])
def test_a_service_declares_https_if_pods_terminate_tls(role: str, tls: str, given: str, expected: str):
    base = next(file for file in VALUES_FILES if file.stem == "default-values")
    values = {"tls": {"existingSecret": tls}, "tests": {"enabled": False}, role: {"service": {"appProtocol": given}}}
    service = render(base, yaml.safe_dump(values)).one("Service", f"shop-carillon-{role}")
    assert [port["appProtocol"] for port in service["spec"]["ports"]] == [expected]


def test_the_peers_port_has_a_headless_service(chart: Rendering):
    """Without it a mesh with strict mutual TLS refuses requests that gateways forward to each other."""
    (service,) = [service for service in chart.all("Service") if service["metadata"]["name"].endswith("-peers")]
    assert service["spec"]["clusterIP"] == "None" and service["spec"]["publishNotReadyAddresses"] is True
    (port,) = service["spec"]["ports"]
    assert [pod.port(port["targetPort"]) for pod in chart.selected(service["spec"]["selector"])] == [8082]


def test_services_for_clients_expose_neither_the_admin_nor_the_peers_port(chart: Rendering):
    for service in chart.all("Service"):
        if service["metadata"]["name"].endswith("-gateway-peers"):
            continue
        leads_to = {
            pod.port(port["targetPort"])
            for port in service["spec"]["ports"]
            for pod in chart.selected(service["spec"]["selector"])
        }
        if service["metadata"]["labels"]["app.kubernetes.io/component"] == "metrics":
            assert leads_to == {9090}
        else:
            assert not {9090, 8082} & leads_to


def test_roles_listen_on_their_declared_ports(chart: Rendering):
    for role, port in ROLES.items():
        pod = chart.pod(role)
        arguments = pod.main["args"]
        assert arguments[0] == role
        assert arguments[arguments.index("--port") + 1] == str(port)
        peers = {"peers": chart.toml["peers"]["port"]} if role == "gateway" else {}
        assert pod.ports() == {"http": port, "admin": chart.toml["admin"]["port"], **peers}
        hosts = {chart.toml[section]["host"] for section in ("server", "admin", "peers")}
        assert hosts in ({"0.0.0.0"}, {"::"})
        assert "port" not in chart.toml["server"]


def test_the_chart_overrides_variables_of_the_image(chart: Rendering):
    """A variable takes precedence over the file, so the chart must override those of the image."""
    text = (DEPLOY / "Dockerfile").read_text()
    of_the_image = set(re.findall(r"^ENV .*?\b((?:CARILLON|REVERB|PUSHER)_\w+)=", text, re.M))
    assert of_the_image
    for role in ROLES:
        for container in chart.pod(role).containers:
            variables = {variable["name"]: variable.get("value") for variable in container["env"]}
            assert of_the_image <= variables.keys()
            assert variables["CARILLON_ADMIN__HOST"] == chart.toml["admin"]["host"]
    # The commands of containers must be in the image's path.
    assert re.search(r"^COPY .* /usr/local/bin/carillon$", text, re.M)


def test_probes_use_ports_of_their_container(chart: Rendering):
    for pod in chart.pods:
        for container in pod.containers:
            own = {port["name"] for port in container.get("ports", [])}
            for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
                probe = container.get(kind)
                if probe and "httpGet" in probe:
                    assert probe["httpGet"]["port"] in own, (pod, kind)
    for role in ROLES:
        main = chart.pod(role).main
        assert (
            main["livenessProbe"]["httpGet"] == main["startupProbe"]["httpGet"] == {"path": "/livez", "port": "admin"}
        )
        assert main["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "admin"}


def test_volumes_exist_and_are_mounted(chart: Rendering):
    for pod in chart.pods:
        volumes = [volume["name"] for volume in pod.spec["volumes"]]
        assert len(set(volumes)) == len(volumes)
        mounted = [{mount["name"] for mount in container.get("volumeMounts", [])} for container in pod.containers]
        assert set().union(*mounted) == set(volumes), pod
        for container in pod.containers:
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(set(paths)) == len(paths)
            # A mount inside another one needs a folder, which a read-only volume cannot provide.
            for one, other in combinations(paths, 2):
                assert not one.startswith(f"{other}/") and not other.startswith(f"{one}/"), pod


def test_referenced_configuration_and_secrets_exist(chart: Rendering):
    foreign = FOREIGN_SECRETS.get(chart.name, set())
    used = set()

    def check(kind: str, name: str, keys: list[str]):
        if kind == "Secret" and name in foreign:
            used.add(name)
            return
        assert set(keys) <= contents(chart.one(kind, name)).keys(), (kind, name, keys)

    for pod in chart.pods:
        for volume in pod.spec["volumes"]:
            for source in volume.get("projected", {}).get("sources", [volume]):
                if "configMap" in source:
                    check("ConfigMap", source["configMap"]["name"], keys_of(source["configMap"]))
                if "secret" in source:
                    secret = source["secret"]
                    check("Secret", secret.get("secretName") or secret["name"], keys_of(secret))
        for container in pod.containers:
            for variable in container.get("env", []):
                if reference := variable.get("valueFrom", {}).get("secretKeyRef"):
                    check("Secret", reference["name"], [reference["key"]])
    for ingress in chart.all("Ingress"):
        used |= {tls["secretName"] for tls in ingress["spec"].get("tls", []) if tls["secretName"] in foreign}
    assert used == foreign


def test_files_in_the_configuration_are_mounted(chart: Rendering):
    toml = chart.toml
    named = [app["secret_file"] for app in toml["apps"]]
    named += [toml["redis"][name] for name in ("ca_file", "cert_file", "key_file") if name in toml["redis"]]
    named += list(toml.get("tls", {}).values())
    named += [toml["webhooks"]["ca_file"]] if "ca_file" in toml.get("webhooks", {}) else []
    webhooks = [webhook for app in toml["apps"] for webhook in app.get("webhooks", [])]
    named += [path for webhook in webhooks for path in webhook.get("header_files", {}).values()]
    for role in ROLES:
        files = mounted_files(chart, chart.pod(role))
        assert set(named) <= files, set(named) - files
        arguments = chart.pod(role).main["args"]
        assert arguments[arguments.index("--config") + 1] in files


@pytest.mark.parametrize("base", ["", "https://code.example/carillon/blob/main/"])
def test_alerts_link_to_the_operations_page(base: str):
    file = next(file for file in VALUES_FILES if file.stem == "default-values")
    values = {"metrics": {"prometheusRule": {"enabled": True, "runbookBase": base}}}
    (rule,) = render(file, yaml.safe_dump(values)).all("PrometheusRule")
    alerts = [rule for group in rule["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    assert alerts
    for alert in alerts:
        section = f"docs/OPERATIONS.md#{alert['alert'].lower()}"
        # Alertmanager's templates turn `runbook_url` into a link, where a relative path does not work.
        runbooks = {name: text for name, text in alert["annotations"].items() if name.startswith("runbook")}
        assert runbooks == ({"runbook_url": base + section} if base else {"runbook": section})


def test_service_accounts_exist(chart: Rendering):
    accounts = {account["metadata"]["name"] for account in chart.all("ServiceAccount")}
    assert {pod.spec["serviceAccountName"] for pod in chart.pods} == accounts


def test_routes_lead_to_the_right_role(chart: Rendering):
    prefix = chart.toml["server"].get("path_prefix", "")
    expected = {
        f"{prefix}/app": "gateway",
        f"{prefix}/pusher/app": "gateway",
        f"{prefix}/apps": "publisher",
        f"{prefix}/users": "publisher",
        "/up": "publisher",
    }
    for ingress in chart.all("Ingress"):
        for rule in ingress["spec"]["rules"]:
            found = {}
            for path in rule["http"]["paths"]:
                assert path["pathType"] == "Prefix"
                backend = path["backend"]["service"]
                service = chart.one("Service", backend["name"])
                assert backend["port"]["name"] in [port["name"] for port in service["spec"]["ports"]]
                found[path["path"]] = service["metadata"]["labels"]["app.kubernetes.io/component"]
            assert found == expected
    for route in chart.all("HTTPRoute"):
        found = {}
        for rule in route["spec"]["rules"]:
            (match,), (backend,) = rule["matches"], rule["backendRefs"]
            assert match["path"]["type"] == "PathPrefix"
            service = chart.one("Service", backend["name"])
            assert backend["port"] in [port["port"] for port in service["spec"]["ports"]]
            found[match["path"]["value"]] = service["metadata"]["labels"]["app.kubernetes.io/component"]
            assert "timeouts" not in rule
        assert found == expected


def test_test_pods_use_services_of_the_chart(chart: Rendering):
    prefix = chart.toml["server"].get("path_prefix", "")
    found = []
    for pod in chart.pods:
        if pod.component != "test":
            continue
        assert pod.owner["metadata"]["annotations"]["helm.sh/hook"] == "test"
        assert pod.spec["restartPolicy"] == "Never"
        for container in pod.containers:
            commands = [container["command"] + container["args"]]
            commands += [container["readinessProbe"]["exec"]["command"]] if "readinessProbe" in container else []
            for command in commands:
                assert command[0] == "carillon", "the image has no shell"
                app = command[command.index("--app-id") + 1]
                (configured,) = [one for one in chart.toml["apps"] if one["id"] == app]
                assert "webhooks" not in configured, "a test would trigger webhooks of an application"
                url = command[command.index("--url") + 1]
                host, port, path = re.fullmatch(r"http://([^:/]+):(\d+)(.*)", url).groups()
                name, namespace, svc = host.split(".")
                service = chart.one("Service", name)
                assert (namespace, svc, path) == (NAMESPACE, "svc", prefix)
                assert int(port) in [port["port"] for port in service["spec"]["ports"]]
                component = service["metadata"]["labels"]["app.kubernetes.io/component"]
                assert component == {"listen": "gateway", "trigger": "publisher"}[command[1]]
                assert "$(" not in " ".join(command), "Kubernetes expands no variables in probes"
                assert command[command.index("--config") + 1] in mounted_files(chart, pod)
                found.append((pod.owner["metadata"]["name"].rsplit("-", 1)[-1], command[1]))
    expected = [("broadcast", "listen"), ("broadcast", "trigger"), ("presence", "listen"), ("presence", "listen")]
    assert sorted(found) == ([] if chart.name == "tls-values" else expected)


def test_scrapers_find_both_roles(chart: Rendering):
    for monitor in chart.all("ServiceMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        services = [
            service for service in chart.all("Service") if labels.items() <= service["metadata"]["labels"].items()
        ]
        assert len(services) == 1
        assert monitor["spec"]["namespaceSelector"]["matchNames"] == [NAMESPACE]
        (endpoint,) = monitor["spec"]["endpoints"]
        (port,) = services[0]["spec"]["ports"]
        assert endpoint["port"] == port["name"]
        labels = {rule["targetLabel"]: rule.get("replacement") for rule in endpoint["relabelings"]}
        # Alerts select by these labels.
        assert re.fullmatch(".*carillon.*", labels["job"]) and "role" in labels
        # Alerts and panels name a node by its instance. A pod's name is clearer than its address, and does not change when a
        # container restarts.
        (instance,) = [rule for rule in endpoint["relabelings"] if rule["targetLabel"] == "instance"]
        assert instance["sourceLabels"] == ["__meta_kubernetes_pod_name"]
        assert {pod.component for pod in chart.selected(services[0]["spec"]["selector"])} == set(ROLES)
        assert services[0]["spec"]["publishNotReadyAddresses"] is True


def test_maps_in_values_replace_those_of_the_chart():
    """Helm merges maps, so a default that is a map could not be removed."""
    base = next(file for file in VALUES_FILES if file.stem == "everything-values")
    timeouts = lambda chart: [rule.get("timeouts") for rule in chart.all("HTTPRoute")[0]["spec"]["rules"]]
    assert timeouts(render(base, "httpRoute: {timeouts: {}}")) == [None] * 5
    assert timeouts(render(base, "httpRoute: {timeouts: {backendRequest: 9s}}")) == [{"backendRequest": "9s"}] * 2 + [None] * 3

    labels = lambda chart: chart.one("ConfigMap", "broadcast-dashboard")["metadata"]["labels"]
    assert labels(render(base))["grafana_dashboard"] == "1"
    others = labels(render(base, "metrics: {dashboard: {labels: {dashboards: mine}}}"))
    assert others["dashboards"] == "mine" and "grafana_dashboard" not in others

    for role in ("gateway", "publisher", "nginx"):
        behavior = lambda chart: chart.one("HorizontalPodAutoscaler", f"broadcast-{role}")["spec"]["behavior"]
        assert behavior(render(base))["scaleDown"]["policies"][0]["value"] == 1
        own = {"scaleUp": {"stabilizationWindowSeconds": 30}}
        assert behavior(render(base, yaml.safe_dump({role: {"autoscaling": {"behavior": own}}}))) == own


def test_maps_that_users_fill_are_empty_by_default():
    """Requests and limits are the exception: as always in Helm, `null` removes one of them."""
    filled = {"labels", "annotations", "behavior", "timeouts", "podLabels", "podAnnotations", "commonLabels"}
    filled |= {"nodeSelector", "affinity", "settings"}

    def check(values: dict, path: str):
        for key, value in values.items():
            assert key not in filled or value == {}, f"{path}.{key}"
            if isinstance(value, dict):
                check(value, f"{path}.{key}")

    check(yaml.safe_load((VALUES_FILES[0].parent.parent / "values.yaml").read_text()), "")


def test_nginx_connects_to_the_pods_of_both_roles(chart: Rendering):
    if not has(chart, "nginx"):
        return
    files = nginx_files(chart)
    upstreams = files["carillon/upstreams.conf"]
    found = {}
    for upstream, body in re.findall(r"upstream (\w+) \{(.*?)\n\}", upstreams, re.S):
        (server,) = re.findall(r"server (\S+) resolve ", body)
        host, port = server.split(":")
        name, rest = host.split(".", 1)
        assert rest == f"{NAMESPACE}.svc.cluster.local"
        service = chart.one("Service", name)
        assert service["spec"]["clusterIP"] == "None"
        assert int(port) in [port["port"] for port in service["spec"]["ports"]]
        found[upstream] = service["metadata"]["labels"]["app.kubernetes.io/component"]
    assert found == {
        "carillon_gateways": "gateway",
        "carillon_gateways_by_session": "gateway",
        "carillon_publishers": "publisher",
    }
    used = set(re.findall(r"proxy_pass http://(\w+);", files["carillon/routes.conf"]))
    assert used == set(found)
    workers, connections = (
        int(re.search(rf"^ *{name} (\d+);", files["nginx.conf"], re.M)[1])
        for name in ("worker_processes", "worker_connections")
    )
    # A WebSocket uses two connections.
    assert workers * connections // 2 >= chart.toml["server"]["connections_max"] and workers >= 4
    listened = {int(port) for text in files.values() for port in re.findall(r"listen (?:\[::\]:)?(\d+)\b(?![.])", text)}
    assert listened == set(chart.pod("nginx").ports().values())
    assert "unix:" not in "".join(files.values()), (
        "a socket file remains after a container is killed, and prevents the next start"
    )


KEPT = "externalTrafficPolicy: Local"
LIMITS_OF_NGINX = {
    "{enabled: true}": False,
    "{enabled: true, service: {type: LoadBalancer}}": False,
    f"{{enabled: true, service: {{type: LoadBalancer, {KEPT}}}}}": True,
    f"{{enabled: true, service: {{type: NodePort, {KEPT}}}}}": True,
    # The balancer sends the client address in the PROXY protocol, but no proxy is trusted.
    f"{{enabled: true, proxyProtocol: true, service: {{type: LoadBalancer, {KEPT}}}}}": False,
    "{enabled: true, trustedProxies: [10.0.0.0/8]}": True,
}


@pytest.mark.parametrize("values", LIMITS_OF_NGINX)
def test_nginx_limits_addresses_only_if_it_sees_those_of_clients(values: str):
    base = next(file for file in VALUES_FILES if file.stem == "default-values")
    routes = nginx_files(render(base, f"nginx: {values}"))["carillon/routes.conf"]
    locations = dict(re.findall(r"^location (?:\S+ )?(\S+) \{\n(.*?)^\}", routes, re.S | re.M))
    limits = {path: re.findall(r"^ *(limit_conn|limit_req) ", body, re.M) for path, body in locations.items()}
    limited = {path: kinds for path, kinds in limits.items() if kinds}
    sockets = ["limit_conn", "limit_req"]
    expected = {"/app/": sockets, "/pusher/app/": sockets, "/apps/": ["limit_req"], "/users/": ["limit_req"]}
    assert limited == (expected if LIMITS_OF_NGINX[values] else {})


@pytest.mark.parametrize("name", ["everything-values", "redis-tls-values"])
def test_policies_allow_only_required_traffic(name: str):
    chart = render(next(file for file in VALUES_FILES if file.stem == name))
    policies = chart.all("NetworkPolicy")
    for pod in chart.pods:
        (policy,) = [
            policy for policy in policies if policy["spec"]["podSelector"]["matchLabels"].items() <= pod.labels.items()
        ]
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        for rule in policy["spec"].get("ingress", []):
            for port in rule["ports"]:
                assert pod.port(port["port"]), (pod, port)

    expected = {("test", "gateway", 8080), ("test", "publisher", 8081), ("gateway", "gateway", 8082)}
    if has(chart, "nginx"):
        expected |= {("nginx", "gateway", 8080), ("nginx", "publisher", 8081)}
    if has(chart, "redis"):
        expected |= {("gateway", "redis", 6379), ("publisher", "redis", 6379)}
    found = set()
    for source in chart.pods:
        for target in chart.pods:
            for port in target.ports().values():
                if leaves(policies, source, target, port) and enters(policies, source, target, port):
                    found.add((source.component, target.component, port))
    # The roles only connect to Redis, and gateways to each other. If all sources may connect to a port, only egress rules limit
    # the traffic.
    assert found == expected
    for role in ROLES:
        policy = next(policy for policy in policies if policy["metadata"]["name"].endswith(f"-{role}"))
        out = {port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]}
        webhooks = {443, 8000} if name == "everything-values" and role == "publisher" else set()
        peers = {8082} if role == "gateway" else set()
        assert out == {53, 5353, 6379 if has(chart, "redis") else 6380} | webhooks | peers
        # The peers' port is closed even to pods without an egress policy.
        if role == "gateway":
            (rule,) = [rule for rule in policy["spec"]["ingress"] if rule["ports"] == [{"protocol": "TCP", "port": "peers"}]]
            assert [is_peer(peer, chart.pod("gateway")) for peer in rule["from"]] == [True]


def test_policies_allow_what_services_expose_except_around_nginx(values_file: Path):
    chart = render(values_file, "networkPolicy: {enabled: true, clients: [], applications: [], monitoring: []}")
    behind_nginx = has(chart, "nginx") and not chart.all("Ingress", "HTTPRoute")
    external = Pod({}, {}, {}, {})
    for service in chart.all("Service"):
        if service["metadata"]["labels"]["app.kubernetes.io/component"] == "redis":
            continue
        for port in service["spec"]["ports"]:
            for pod in chart.selected(service["spec"]["selector"]):
                number = pod.port(port["targetPort"])
                hidden = behind_nginx and number == ROLES.get(pod.component) or port["name"] == "tcp-peers"
                assert enters(chart.all("NetworkPolicy"), external, pod, number) != hidden, (pod, port)


AROUND_NGINX = {
    "{}": set(),
    "networkPolicy: {applications: [{podSelector: {matchLabels: {app: shop}}}]}": {("shop", "publisher")},
    # The list of publishing applications is empty, so all may publish.
    "ingress: {enabled: true}": {("client", "gateway"), ("client", "publisher"), ("shop", "publisher")},
    "gateway: {service: {type: LoadBalancer}}": {("client", "gateway")},
    "publisher: {service: {type: NodePort}}": {("client", "publisher"), ("shop", "publisher")},
}


@pytest.mark.parametrize("values", AROUND_NGINX)
def test_only_configured_sources_bypass_nginx(values: str):
    base = next(file for file in VALUES_FILES if file.stem == "nginx-values")
    given = yaml.safe_load(values)
    policy = {"enabled": True, "clients": [{"podSelector": {"matchLabels": {"app": "client"}}}]}
    chart = render(base, yaml.safe_dump(given | {"networkPolicy": policy | given.get("networkPolicy", {})}))
    policies = chart.all("NetworkPolicy")
    found = {
        (name, role)
        for name in ("client", "shop")
        for role, port in ROLES.items()
        if enters(policies, Pod({}, {"app": name}, {}, {}), chart.pod(role), port)
    }
    assert found == AROUND_NGINX[values]
    assert enters(policies, Pod({}, {"app": "client"}, {}, {}), chart.pod("nginx"), 8443)
    assert not enters(policies, Pod({}, {"app": "shop"}, {}, {}), chart.pod("nginx"), 8443)
    for pod in chart.pods:
        for role, port in ROLES.items():
            assert pod.component in ROLES or enters(policies, pod, chart.pod(role), port)


def enters(policies: list[Manifest], source: Pod, target: Pod, port: int) -> bool:
    return allows(policies, target, "ingress", "from", source, lambda named: target.port(named) == port)


def leaves(policies: list[Manifest], source: Pod, target: Pod, port: int) -> bool:
    return allows(policies, source, "egress", "to", target, lambda named: target.port(named) == port)


def allows(policies, of: Pod, direction: str, peers: str, other: Pod, fits) -> bool:
    for policy in policies:
        if policy["spec"]["podSelector"]["matchLabels"].items() <= of.labels.items():
            for rule in policy["spec"].get(direction, []):
                if any(fits(port["port"]) for port in rule["ports"]) and (
                    peers not in rule or any(is_peer(peer, other) for peer in rule[peers])
                ):
                    return True
    return False


def is_peer(peer: Manifest, pod: Pod) -> bool:
    """Whether a peer selects a pod. Peers by namespace or address select no pod of the chart."""
    if set(peer) != {"podSelector"}:
        return False
    return peer["podSelector"]["matchLabels"].items() <= pod.labels.items()


def has(chart: Rendering, component: str) -> bool:
    return any(pod.component == component for pod in chart.pods)


def keys_of(source: Manifest) -> list[str]:
    return [item["key"] for item in source.get("items", [])]


def mounted_files(chart: Rendering, pod: Pod) -> set[str]:
    """Returns the paths of files of the chart or of foreign Secrets in the first container."""
    found = set()
    for mount in pod.main["volumeMounts"]:
        volume = next(volume for volume in pod.spec["volumes"] if volume["name"] == mount["name"])
        for source in volume.get("projected", {}).get("sources", [volume]):
            for kind, reference in (("ConfigMap", source.get("configMap")), ("Secret", source.get("secret"))):
                if reference is None:
                    continue
                name = reference.get("secretName") or reference["name"]
                if "items" in reference:
                    names = [item["path"] for item in reference["items"]]
                elif name in FOREIGN_SECRETS.get(chart.name, set()):
                    names = ["tls.crt", "tls.key"]
                else:
                    names = contents(chart.one(kind, name)).keys()
                found |= {f"{mount['mountPath']}/{name}" for name in names}
    return found


def nginx_files(chart: Rendering) -> dict[str, str]:
    (config,) = [config for config in chart.all("ConfigMap") if config["metadata"]["name"].endswith("-nginx")]
    items = next(volume for volume in chart.pod("nginx").spec["volumes"] if volume["name"] == "config")["projected"][
        "sources"
    ][0]["configMap"]["items"]
    texts = contents(config)
    assert {item["key"] for item in items} == texts.keys()
    return {item["path"]: texts[item["key"]] for item in items}
