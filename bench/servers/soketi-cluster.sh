#!/usr/bin/env bash
# Starts Redis, and one soketi process per port in GATEWAY_PORTS. Each serves clients and the HTTP API.
set -euo pipefail
cd "$(dirname "$0")/../.."
. bench/servers/processes.sh
. bench/servers/soketi-environment.sh
start redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --save "" --appendonly no
export SOKETI_ADAPTER_DRIVER=redis SOKETI_DB_REDIS_HOST=127.0.0.1 SOKETI_DB_REDIS_PORT=$REDIS_PORT
for port in $GATEWAY_PORTS; do
  start soketi "$port"
done
wait_and_stop
