#!/usr/bin/env bash
# Starts one Carillon process with state in memory.
set -euo pipefail
cd "$(dirname "$0")/../.."
carillon=${CARILLON:-target/release/carillon}
[ "${1:-}" != --version ] || exec "$carillon" --version
exec "$carillon" up --config bench/servers/carillon.toml --host 127.0.0.1 \
  --port "$GATEWAY_PORTS" --admin-port "$METRICS_PORTS"
