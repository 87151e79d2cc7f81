"""Checks that values.yaml agrees with its schema and with the rest of the repository."""

import tomllib

import yaml

from chart import CHART, REPOSITORY, helm, values_schema

# Keys that are not in values.yaml: Helm passes them to subcharts.
OF_HELM = {"global"}

# Mappings that users fill.
FILLED = {"labels", "resources", "behavior", "timeouts"}


def test_every_default_is_in_the_schema_and_every_mapping_of_the_schema_in_the_defaults():
    schema = values_schema()

    def compare(values: dict, node: dict, path: str):
        node = resolve(schema, node)
        if "properties" not in node:
            return
        assert node["additionalProperties"] is False, path
        assert values.keys() <= node["properties"].keys(), path
        for key, below in node["properties"].items():
            if key in OF_HELM or is_of_carillon(path) or key in FILLED:
                continue
            assert key in values, f"{path}.{key} has no default in values.yaml"
            if isinstance(values[key], dict):
                compare(values[key], below, f"{path}.{key}")

    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "")


def test_unknown_keys_are_refused_everywhere():
    schema = values_schema()

    def check(node: dict, path: str):
        if "properties" in node:
            assert node.get("additionalProperties") is False, path
        for key, below in node.get("properties", {}).items():
            check(below, f"{path}.{key}")
        if isinstance(node.get("items"), dict):
            check(node["items"], f"{path}[]")

    check(schema, "")
    for name, definition in schema["definitions"].items():
        check(definition, name)


def test_versions_are_those_of_the_repository():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    workspace = tomllib.loads((REPOSITORY / "Cargo.toml").read_text())["workspace"]["package"]["version"]
    assert chart["appVersion"] == workspace


def test_the_package_contains_only_required_files(tmp_path):
    import tarfile

    packed = helm("package", str(CHART), "--destination", str(tmp_path))
    assert packed.returncode == 0, packed.stderr
    (file,) = tmp_path.glob("*.tgz")
    names = {name.removeprefix("carillon/") for name in tarfile.open(file).getnames()}
    assert {"Chart.yaml", "values.yaml", "values.schema.json", "README.md", "files/nginx/nginx.conf"} <= names
    assert not {name for name in names if name.startswith("ci/")}


def is_of_carillon(path: str) -> bool:
    """Whether a path is one of Carillon's own settings, which have their defaults in Carillon."""
    return path.startswith(".config.")


def resolve(schema: dict, node: dict) -> dict:
    while "$ref" in node:
        node = schema["definitions"][node["$ref"].rsplit("/", 1)[1]]
    return node
