#!/usr/bin/env bash
# Starts Redis, a publisher, and one gateway per port in GATEWAY_PORTS.
set -euo pipefail
cd "$(dirname "$0")/../.."
. bench/servers/processes.sh
carillon=${CARILLON:-target/release/carillon}
start redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --save "" --appendonly no
common=(--config bench/servers/carillon.toml --redis "redis://127.0.0.1:$REDIS_PORT" --host 127.0.0.1)
read -ra metrics <<<"$METRICS_PORTS"
for port in $GATEWAY_PORTS; do
  start "$carillon" gateway --port "$port" --admin-port "${metrics[0]}" "${common[@]}"
  metrics=("${metrics[@]:1}")
done
start "$carillon" publisher "${common[@]}" --port "$API_PORT" --admin-port 0
wait_and_stop
