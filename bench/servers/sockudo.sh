#!/usr/bin/env bash
# Starts one Sockudo process with state in memory.
set -euo pipefail
cd "$(dirname "$0")/../.."
. bench/servers/sockudo-environment.sh
[ "${1:-}" != --version ] || exec "$sockudo" --version
PORT=$GATEWAY_PORTS METRICS_PORT=$METRICS_PORTS exec "$sockudo"
