#!/usr/bin/env bash
# Checks the chart without a cluster: lint, schemas of Kubernetes, assertions of our own, values that must be refused, and the
# rendered pods as processes of this machine. Tools that are missing are installed into target/, once.
#
# Needs Go (unless there is a helm of version 3), Node, Python, Redis, nginx and openssl, and the binary:
# target/release/carillon, or BINARY_UNDER_TEST. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."

# The version that the chart was written with. Building it takes minutes, so it is kept.
HELM_VERSION=v3.22.0

export DEPLOY="${DEPLOY:-$PWD/deploy}"
export BINARY_UNDER_TEST="${BINARY_UNDER_TEST:-$PWD/target/release/carillon}"
tools="$PWD/target/tools"
venv="$PWD/target/helm-venv"

# A file that is newer than what it led to says that something must be made again.
is_older() { [ ! -e "$1" ] || [ "$2" -nt "$1" ]; }

if [ -z "${HELM:-}" ]; then
    if command -v helm > /dev/null && [[ "$(helm version --template '{{.Version}}')" == v3.* ]]; then
        HELM="$(command -v helm)"
    else
        HELM="$tools/helm-$HELM_VERSION/helm"
        if [ ! -x "$HELM" ]; then
            echo "building helm $HELM_VERSION into target/tools, which takes some minutes"
            GOBIN="$(dirname "$HELM")" GOFLAGS=-trimpath go install "helm.sh/helm/v3/cmd/helm@$HELM_VERSION"
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

helm/sync.sh --check
"$venv/bin/python" helm/readme.py --check
cd helm/checks
exec "$venv/bin/python" -m pytest -q -p no:cacheprovider "$@"
