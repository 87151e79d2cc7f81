#!/usr/bin/env bash
# Starts Redis, and one Sockudo process per port in GATEWAY_PORTS. Each serves clients and the HTTP API.
set -euo pipefail
cd "$(dirname "$0")/../.."
. bench/servers/processes.sh
. bench/servers/sockudo-environment.sh
start redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --save "" --appendonly no
export ADAPTER_DRIVER=redis CACHE_DRIVER=redis REDIS_URL="redis://127.0.0.1:$REDIS_PORT"
read -ra metrics <<<"$METRICS_PORTS"
# The load generator finds a gateway's process by the port in its command line.
sockudo_on() {
  PORT=$1 METRICS_PORT=$2 exec -a "sockudo $1" "$sockudo"
}
for port in $GATEWAY_PORTS; do
  start sockudo_on "$port" "${metrics[0]}"
  metrics=("${metrics[@]:1}")
done
wait_and_stop
