#!/usr/bin/env bash
# Starts one soketi process with state in memory.
set -euo pipefail
cd "$(dirname "$0")/../.."
. bench/servers/soketi-environment.sh
if [ "${1:-}" = --version ]; then
  version() { node -p "require('./$soketi/node_modules/$1/package.json').version"; }
  echo "soketi $(version @soketi/soketi), uWebSockets.js $(version uWebSockets.js), Node $(node --version)"
  exit
fi
soketi "$GATEWAY_PORTS"
