#!/usr/bin/env bash
# Redis, and as many soketi as there are ports; each serves clients and the HTTP API.
set -euo pipefail
cd "$(dirname "$0")/../.."
. bench/servers/together.sh
. bench/servers/soketi-environment.sh
start redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --save "" --appendonly no
export SOKETI_ADAPTER_DRIVER=redis SOKETI_DB_REDIS_HOST=127.0.0.1 SOKETI_DB_REDIS_PORT=$REDIS_PORT
for port in $GATEWAY_PORTS; do
  start soketi "$port"
done
together
