#!/usr/bin/env bash
# Checks everything in deploy/ with the tools that will read it. `make test` runs this script. It can also be run directly.
#
# Missing tools are installed with apt-get if this user may do that. The last lines list every skipped check and the reason.
# The exit code is 1 if a check fails, or if a required check cannot run.
#
#   BINARY_UNDER_TEST   the binary that the test cluster runs; default: target/release/carillon
#   CHECK_IMAGE         if set, the image is built too, provided that a container engine is running
set -uo pipefail
cd "$(dirname "$0")" || exit 1

root="$(cd .. && pwd)"
binary="${BINARY_UNDER_TEST:-$root/target/release/carillon}"
# promtool is extracted from its package (see find_promtool) and cached here.
tools="$root/target/deploy-tools"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
passed=0
failed=()
skipped=()

# check NAME COMMAND…
check() {
    local name="$1"
    shift
    echo "== $name"
    if "$@"; then
        passed=$((passed + 1))
    else
        echo "-- failed: $name" >&2
        failed+=("$name")
    fi
}

# skip NAME REASON
skip() {
    echo "== $1: skipped, $2"
    skipped+=("$1 ($2)")
}

# apt COMMAND…: runs apt-get as root. Fails for other users.
apt() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    echo "   apt-get $*"
    DEBIAN_FRONTEND=noninteractive apt-get -q -o=Dpkg::Use-Pty=0 "$@" >"$work/apt.log" 2>&1 || {
        tail -n 5 "$work/apt.log" >&2
        return 1
    }
}

# need COMMAND PACKAGE
need() {
    command -v "$1" >/dev/null && return
    echo "   $1 is missing"
    apt update && apt install -y --no-install-recommends "$2" && command -v "$1" >/dev/null && return
    echo "-- $1 is required; install Debian's package $2" >&2
    failed+=("$1 is missing")
    return 1
}

# unpack PACKAGE: extracts the package into $work/PACKAGE without installing it.
unpack() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    echo "   apt-get download $1"
    # Any user may download. If the package list is old or missing, only root can update it.
    (
        cd "$work" || return 1
        apt-get -q download "$1" >"$work/apt.log" 2>&1 || { apt update && apt download "$1"; }
    ) && dpkg-deb -x "$work/$1"_*.deb "$work/$1"
}

# Some builds of python3 do not see Debian's modules.
find_python() {
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import tomllib, yaml' 2>/dev/null && return
    done
    echo "   python3 has no yaml module"
    python=/usr/bin/python3
    apt update && apt install -y --no-install-recommends python3 python3-yaml && "$python" -c 'import tomllib, yaml'
}

# The installed package would start a server on the port of Carillon's admin listener.
find_promtool() {
    promtool="$(command -v promtool)" && return
    promtool="$tools/promtool"
    [ -x "$promtool" ] && return
    echo "   promtool is missing: extracting it from Debian's package prometheus"
    unpack prometheus && mkdir -p "$tools" && cp "$work/prometheus/usr/bin/promtool" "$promtool"
}

alerts_with_operator_labels() {
    "$python" checks/operator.py prometheus/tests/alerts.yml "$work/operator.yml" && "$promtool" test rules "$work/operator.yml"
}

dashboard() {
    "$python" checks/dashboard.py grafana/dashboards/carillon.json "$work/dashboard.yml" &&
        "$promtool" check rules "$work/dashboard.yml"
}

metric_names() {
    local names
    names="$(./metric-names.sh)" || return
    echo "$names" | wc -l | xargs echo "names:"
    # An empty list would pass every comparison with a running node.
    [ "$(echo "$names" | wc -l)" -ge 40 ] || return
    # Every name of Carillon's occurs in the source as a quoted string. Names of the process come from a library.
    # tests/it/cluster/metric_names.rs checks that a running node exposes all of them.
    local name missing=0
    for name in $(grep '^carillon_' <<<"$names"); do
        grep -rqF --include='*.rs' "\"$name\"" ../gateway ../publisher ../webhooks ../shared ../cli || {
            echo "the source has no metric $name" >&2
            missing=1
        }
    done
    return $missing
}

# nginx_accepts NAME: runs `nginx -t` on the files as they would be in /etc/nginx, with unprivileged ports.
nginx_accepts() {
    local name="$1" conf="$work/nginx-$1"
    mkdir -p "$conf" && cp -r nginx/. "$conf" && mkdir -p "$conf/tls" "$conf/log"
    case "$name" in
    plain) ;;
    distribution) use_distribution_config "$conf" ;;
    compose) cp nginx/compose/upstreams.conf "$conf/carillon/upstreams.conf" ;;
    stream) cp nginx/examples/stream/nginx.conf "$conf/nginx.conf" && load_stream "$conf" ;;
    *) cp "nginx/examples/$name/"*.conf "$conf/carillon/" ;;
    esac || return
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
        -keyout "$conf/tls/privkey.pem" -out "$conf/tls/fullchain.pem" 2>/dev/null || return
    # The host names of compose.yml do not resolve here.
    find "$conf" -name '*.conf' -exec sed -i -E \
        -e 's/^( *listen +)(127\.0\.0\.1:|\[::\]:)?(8000|8089)\b/\1\22\3/' \
        -e 's/^( *listen +)(\[::\]:)?443\b/\1\220443/; s/^( *listen +)(\[::\]:)?80\b/\1\220080/' \
        -e "s#/var/log/nginx/#$conf/log/#; s#/run/nginx.pid#$conf/pid#" \
        -e 's/^( *server +)(gateway-1|gateway-2|publisher):/\1127.0.0.1:/' {} +
    if [ ! -e /proc/net/if_inet6 ]; then
        echo "   this machine has no IPv6: IPv6 addresses are removed"
        find "$conf" -name '*.conf' -exec sed -i '/^ *listen \[::\]/d' {} +
    fi
    mkdir -p "$conf/conf.d"
    for kind in client_body proxy fastcgi uwsgi scgi; do
        echo "${kind}_temp_path $conf/$kind;"
    done >"$conf/conf.d/0-check.conf"
    nginx -t -q -p "$conf" -c "$conf/nginx.conf" -e "$conf/log/start.log" || return
    echo "nginx -t: $name is valid"
}

# Uses the distribution's nginx.conf instead of nginx/nginx.conf, with the changes that README.md makes to it.
use_distribution_config() {
    cp /etc/nginx/nginx.conf /etc/nginx/mime.types "$1" || return
    sed -i 's#/etc/nginx/#'"$1"'/#' "$1/nginx.conf"
    local changes
    changes="$(grep '^sed -i .* /etc/nginx/nginx.conf' README.md | sed "s#/etc/nginx/nginx.conf#$1/nginx.conf#")"
    [ -n "$changes" ] && bash -eu -c "$changes" || return
    local setting
    for setting in worker_connections worker_rlimit_nofile; do
        local ours theirs
        ours="$(number_of "$setting" nginx/nginx.conf)"
        theirs="$(number_of "$setting" "$1/nginx.conf")"
        [ -n "$theirs" ] && [ "$theirs" = "$ours" ] || {
            echo "with the distribution's nginx.conf $setting is ${theirs:-not set}, expected $ours" >&2
            return 1
        }
    done
}

# number_of DIRECTIVE FILE
number_of() {
    sed -nE "s/^[[:space:]]*$1[[:space:]]+([0-9]+);.*/\\1/p" "$2"
}

# On Debian the stream module is a separate package. Installing it would load the module into every nginx of this machine.
load_stream() {
    local modules="$1/modules-enabled"
    mkdir -p "$modules"
    nginx -V 2>&1 | grep -q -- '--with-stream=dynamic' || return 0
    local module=/usr/lib/nginx/modules/ngx_stream_module.so
    if [ ! -e "$module" ]; then
        [ -d "$work/libnginx-mod-stream" ] || unpack libnginx-mod-stream || return
        module="$work/libnginx-mod-stream$module"
    fi
    echo "load_module $module;" >"$modules/stream.conf"
}

units() {
    local folder="$work/units" out
    mkdir -p "$folder" && cp systemd/*.service systemd/*.socket "$folder"
    # The instance name of this socket is its port.
    mv "$folder/carillon-gateway@.socket" "$folder/carillon-gateway@8080.socket"
    if [ ! -x /usr/local/bin/carillon ]; then
        echo "/usr/local/bin/carillon does not exist: using /bin/true in its place"
        sed -i 's#/usr/local/bin/carillon#/bin/true#' "$folder"/*.service
    fi
    # A warning, for example about an unknown key, is also a failure. It does not change the exit code.
    if ! out="$(systemd-analyze verify --man=no --recursive-errors=no "$folder"/*.service "$folder"/*.socket 2>&1)" || [ -n "$out" ]; then
        echo "$out" >&2
        return 1
    fi
    # The threshold is out of 100. Comments in the units explain the remaining exposure.
    local unit
    for unit in "$folder"/*.service; do
        systemd-analyze security --offline=true --threshold=15 --no-pager "$unit" >"$work/security" || {
            cat "$work/security" >&2
            return 1
        }
        echo "${unit##*/}:$(tail -n 1 "$work/security" | sed 's/.*service: */ /')"
    done
}

users() {
    local made="$work/sysusers"
    mkdir -p "$made/etc"
    systemd-sysusers --root="$made" "$PWD/systemd/carillon.sysusers.conf" 2>/dev/null && grep '^carillon:' "$made/etc/passwd"
}

alerts() {
    "$python" checks/alerts.py prometheus/rules/alerts.yml prometheus/tests/alerts.yml "$root/docs/OPERATIONS.md"
    local outcome=$?
    if [ "$outcome" = 3 ]; then
        skip "sections of the operator's page" "docs/OPERATIONS.md does not exist"
        return 0
    fi
    return "$outcome"
}

compose() {
    local made="$work/deploy"
    # The file refers to secrets by name. The real secrets of this folder are not used.
    cp -r . "$made" && rm -rf "$made/secrets" && "$made/secrets.sh" >/dev/null || return
    "$@" -f "$made/compose.yml" config --quiet && echo "docker compose config: compose.yml is valid"
}

image() {
    docker build -q -f Dockerfile -t carillon:check "$root" && docker run --rm --read-only carillon:check --version
}

if find_python; then
    check "relations between files" "$python" checks/relations.py . "$root"
    check "alerts have texts and tests" alerts
else
    failed+=("python3 has no yaml module")
fi

check "metric names" metric_names

if find_promtool; then
    check "promtool: configuration" "$promtool" check config prometheus/prometheus.yml
    check "promtool: rules" "$promtool" check rules prometheus/rules/recording.yml prometheus/rules/alerts.yml
    check "promtool: tests of alerts" "$promtool" test rules prometheus/tests/alerts.yml
    check "promtool: tests of alerts with the labels of the Prometheus operator" alerts_with_operator_labels
    check "dashboard" dashboard
else
    failed+=("promtool is missing")
fi

if need nginx nginx && need openssl openssl; then
    for name in plain distribution compose behind-balancer proxy-protocol; do
        check "nginx: $name" nginx_accepts "$name"
    done
    if load_stream "$work/stream"; then
        check "nginx: stream" nginx_accepts stream
    else
        skip "nginx: stream" "cannot get its module, Debian's libnginx-mod-stream"
    fi
    check "nginx: requests through a running nginx" "$python" checks/nginx.py .
fi

if need systemd-analyze systemd; then
    check "systemd: units" units
    if [ "$(id -u)" = 0 ]; then
        check "systemd: user" users
    else
        skip "systemd: user" "systemd-sysusers needs root"
    fi
fi

if [ ! -x "$binary" ]; then
    skip "a cluster of these files" "$binary does not exist: run make build"
elif need redis-server redis-server && need redis-cli redis-tools && need nginx nginx; then
    check "a cluster of these files" "$python" checks/cluster.py . "$binary"
fi

if docker compose version >/dev/null 2>&1; then
    check "docker compose" compose docker compose
elif command -v docker-compose >/dev/null && docker-compose version --short 2>/dev/null | grep -q '^v\?[2-9]'; then
    check "docker compose" compose docker-compose
else
    skip "docker compose config" "docker compose is not installed"
fi
if ! docker info >/dev/null 2>&1; then
    skip "image" "no container engine is running"
elif [ -z "${CHECK_IMAGE:-}" ]; then
    skip "image" "the build takes minutes: set CHECK_IMAGE=1 to run it"
else
    check "image" image
fi

echo
for entry in "${skipped[@]+"${skipped[@]}"}"; do
    echo "skipped: $entry"
done
for entry in "${failed[@]+"${failed[@]}"}"; do
    echo "failed: $entry"
done
echo "deploy: $passed passed, ${#failed[@]} failed, ${#skipped[@]} skipped"
[ "${#failed[@]}" = 0 ]
