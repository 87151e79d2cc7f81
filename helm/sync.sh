#!/usr/bin/env bash
# Copies files that the chart shares with deploy/ into helm/carillon/files, because a chart cannot read files outside its folder.
#
#   helm/sync.sh             copies
#   helm/sync.sh --check     fails if the copies differ
#
# DEPLOY selects a folder other than deploy/.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
deploy="${DEPLOY:-$here/../deploy}"
copies="$here/carillon/files"
shared=(prometheus/rules grafana/dashboards nginx/nginx.conf nginx/conf.d nginx/carillon)

fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
for path in "${shared[@]}"; do
    if [ ! -e "$deploy/$path" ]; then
        echo "helm/sync.sh: $deploy/$path does not exist" >&2
        exit 1
    fi
    mkdir -p "$fresh/$(dirname "$path")"
    cp -R "$deploy/$path" "$fresh/$path"
done

case "${1:-}" in
    --check)
        if ! diff -r "$fresh" "$copies"; then
            echo "helm/carillon/files differs from deploy/: run helm/sync.sh" >&2
            exit 1
        fi
        ;;
    "")
        rm -rf "$copies"
        cp -R "$fresh" "$copies"
        ;;
    *)
        echo "usage: helm/sync.sh [--check]" >&2
        exit 2
        ;;
esac
