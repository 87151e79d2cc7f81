#!/usr/bin/env bash
# Starts a server of its own on free ports, measures it next to the floor, and stops it.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked -p carillon -p bench
bench=target/release/bench
output=$(mktemp)
target/release/carillon up --port 0 --admin-port 0 >"$output" &
server=$!
trap 'kill "$server" 2>/dev/null || true; wait "$server" || true; rm -f "$output"' EXIT
port=""
for _ in $(seq 100); do
  port=$(sed -nE 's|^ *public +http://[^ ]*:([0-9]+).*|\1|p' "$output")
  [ -n "$port" ] && break
  sleep 0.1
done
[ -n "$port" ] || { echo "the server did not start" >&2; exit 1; }
target="--port $port --pid $server"
"$bench" idle $target --sockets 10000
"$bench" fanout $target --subscribers 1000 --rate 100 --events 1000 --runs 5
"$bench" fanout $target --subscribers 1000 --rate 0 --burst 10 --events 5000 --runs 5
