#!/usr/bin/env bash
# Checks the chart without a cluster: lint, the schemas of Kubernetes, assertions, values that must be refused, and the rendered
# pods as processes on this machine. Missing tools are installed into target/ once.
#
# Requires Go (unless helm 3 or 4 is installed), Node, Python, Redis, nginx and openssl, and the binary target/release/carillon
# or BINARY_UNDER_TEST. Arguments are passed to pytest.
#
#   HELM                the helm to use; default: the installed one, or one that is built
#   HELM_VERSION        the version to build, for example v4.3.2; an installed helm is then ignored
set -euo pipefail
cd "$(dirname "$0")/.."

# The built helm is cached, because a build takes minutes.
version="${HELM_VERSION:-v3.22.0}"

export DEPLOY="${DEPLOY:-$PWD/deploy}"
export BINARY_UNDER_TEST="${BINARY_UNDER_TEST:-$PWD/target/release/carillon}"
tools="$PWD/target/tools"
venv="$PWD/target/helm-venv"

# is_older FILE SOURCE: whether FILE is missing or older than SOURCE and must be rebuilt.
is_older() { [ ! -e "$1" ] || [ "$2" -nt "$1" ]; }

if [ -z "${HELM:-}" ]; then
    installed="$(helm version --template '{{.Version}}' 2> /dev/null || true)"
    if [ -z "${HELM_VERSION:-}" ] && [[ "$installed" =~ ^v[34]\. ]]; then
        HELM="$(command -v helm)"
    else
        HELM="$tools/helm-$version/helm"
        if [ ! -x "$HELM" ]; then
            echo "building helm $version into target/tools; this takes some minutes"
            GOBIN="$(dirname "$HELM")" GOFLAGS=-trimpath go install "helm.sh/helm/${version%%.*}/cmd/helm@$version"
        fi
    fi
fi
export HELM

if is_older "$venv/made" helm/checks/requirements.txt; then
    python3 -m venv "$venv"
    "$venv/bin/pip" install -q -r helm/checks/requirements.txt
    touch "$venv/made"
fi
if is_older helm/checks/crds/node_modules/made helm/checks/crds/package-lock.json; then
    (cd helm/checks/crds && npm ci --no-audit --no-fund --loglevel=error)
    touch helm/checks/crds/node_modules/made
fi

echo "helm $("$HELM" version --template '{{.Version}}')"
helm/sync.sh --check
"$venv/bin/python" helm/readme.py --check
cd helm/checks
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"
