"""Checks the restricted pod security standard and more for every container. Source: kubernetes.io, Pod Security Standards."""

import json

from chart import VALUES_FILES, Manifest, Rendering, contents, render

RESTRICTED_VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}


def test_pods_satisfy_the_restricted_standard(chart: Rendering):
    for pod in chart.pods:
        spec, context = pod.spec, pod.spec["securityContext"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), pod
        assert context["runAsNonRoot"] is True, pod
        assert context.get("runAsUser") != 0, pod
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, pod
        assert not {"sysctls", "seLinuxOptions", "windowsOptions", "appArmorProfile"} & context.keys(), pod
        for volume in spec["volumes"]:
            assert volume.keys() - {"name"} <= RESTRICTED_VOLUMES, pod
        for container in pod.containers:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, pod
            assert not any("hostPort" in port for port in container.get("ports", [])), pod


def test_pods_have_no_permissions_and_no_variables_of_services(chart: Rendering):
    for pod in chart.pods:
        assert pod.spec["automountServiceAccountToken"] is False, pod
        assert pod.spec["enableServiceLinks"] is False, pod
    for account in chart.all("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert not chart.all("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")


def test_containers_have_requests_and_a_memory_limit(chart: Rendering):
    for pod in chart.pods:
        for container in pod.containers:
            resources = container["resources"]
            assert {"cpu", "memory"} <= resources["requests"].keys(), (pod, container["name"])
            assert resources["limits"]["memory"] == resources["requests"]["memory"], (pod, container["name"])
            assert "cpu" not in resources["limits"], (pod, container["name"])


def test_images_are_pinned_to_a_version(chart: Rendering):
    for pod in chart.pods:
        for container in pod.containers:
            image = container["image"].rsplit("/", 1)[-1]
            assert "@sha256:" in image or (":" in image and not image.endswith(":latest")), container["image"]


def test_only_third_party_containers_have_writable_volumes(chart: Rendering):
    for pod in chart.pods:
        empty = {volume["name"] for volume in pod.spec["volumes"] if "emptyDir" in volume}
        for container in pod.containers:
            for mount in container.get("volumeMounts", []):
                if mount["name"] in empty:
                    assert pod.component in ("redis", "nginx"), pod
                else:
                    assert mount["readOnly"] is True, (pod, mount["name"])


def test_secrets_are_only_in_secrets(chart: Rendering):
    """ConfigMaps, arguments, variables and annotations contain none."""
    secrets = {secret for secret in chart.secrets if len(secret) > 8}
    elsewhere = json.dumps([manifest for manifest in chart.manifests if manifest["kind"] != "Secret"])
    for secret in secrets:
        assert json.dumps(secret)[1:-1] not in elsewhere


def test_secrets_in_values_are_only_in_secrets():
    for name, secret in {
        "everything-values": ["given-in-values", "Bearer of-the-endpoint", "of-the-url", "of-the-query"],
        "tls-values": ["in%20values"],
    }.items():
        chart = render(next(file for file in VALUES_FILES if file.stem == name))
        for text in secret:
            assert any(text in content for manifest in chart.all("Secret") for content in contents(manifest).values())
            assert text not in json.dumps([manifest for manifest in chart.manifests if manifest["kind"] != "Secret"])


def test_the_configuration_has_file_names_instead_of_secrets(chart: Rendering):
    toml = chart.toml
    assert "url" not in toml["redis"]
    for app in toml["apps"]:
        # The test app has the secret of the first app.
        name = toml["apps"][0]["id"] if app["id"] == "carillon-helm-test" else app["id"]
        assert "secret" not in app and app["secret_file"] == f"/run/carillon/apps/{name}"


def test_a_configuration_with_credentials_of_webhooks_is_a_secret(chart: Rendering):
    webhooks = [webhook for app in chart.toml["apps"] for webhook in app.get("webhooks", [])]
    assert chart.configuration["kind"] == ("Secret" if webhooks else "ConfigMap")


def test_urls_of_webhooks_may_have_credentials():
    file = next(file for file in VALUES_FILES if file.stem == "default-values")
    webhook = "{url: 'https://teller:of-the-url@hooks.example/?token=of-the-query'}"
    chart = render(file, f"apps: [{{id: app, key: app-key, settings: {{webhooks: [{webhook}]}}}}]")
    assert "of-the-url" in chart.toml["apps"][0]["webhooks"][0]["url"]
    elsewhere = json.dumps([manifest for manifest in chart.manifests if manifest["kind"] != "Secret"])
    assert "of-the-url" not in elsewhere and "of-the-query" not in elsewhere


def test_variables_contain_no_credentials(chart: Rendering):
    for pod in chart.pods:
        for container in pod.containers:
            for variable in container.get("env", []):
                plain = variable.get("value", "")
                if any(word in variable["name"] for word in ("PASSWORD", "SECRET", "TOKEN", "AUTH")):
                    assert "secretKeyRef" in variable.get("valueFrom", {}), (pod, variable["name"])
                if "://" in plain and "@" in plain:
                    assert ":$(REDIS_PASSWORD)@" in plain, (pod, variable["name"])


def test_both_kinds_of_configuration_occur():
    kinds = {render(file).configuration["kind"] for file in VALUES_FILES}
    assert kinds == {"ConfigMap", "Secret"}


def test_no_value_weakens_a_pod():
    """The schema has no key for a security context."""
    from chart import values_schema

    def keys(schema: Manifest):
        for key, below in schema.get("properties", {}).items():
            yield key
            yield from keys(below)

    schema = values_schema()
    found = set(keys(schema)) | {key for definition in schema["definitions"].values() for key in keys(definition)}
    assert not {key for key in found if "security" in key.lower() or "privileged" in key.lower()}
