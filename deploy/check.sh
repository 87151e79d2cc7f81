#!/usr/bin/env bash
# Checks everything in deploy/ with the tools that will read it. `make test` calls it; so may anyone.
#
# A tool that is missing is installed with apt-get where this user may do that. Nothing is left out without a word: the last
# lines say what was skipped, and why. Fails when a check fails, and when a check that must run cannot.
#
#   BINARY_UNDER_TEST   the binary that the cluster is made of; default: target/release/carillon
#   CHECK_IMAGE         when set, the image is built too, where a container engine answers
set -uo pipefail
cd "$(dirname "$0")" || exit 1

root="$(cd .. && pwd)"
binary="${BINARY_UNDER_TEST:-$root/target/release/carillon}"
# promtool comes without its package, see below, and is kept here for the next time.
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

# skip NAME WHY
skip() {
    echo "== $1: skipped, $2"
    skipped+=("$1 ($2)")
}

# apt COMMAND…: as it is for root, and not at all for others.
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
    echo "-- $1 is needed, from Debian's package $2" >&2
    failed+=("$1 is missing")
    return 1
}

# unpack PACKAGE: into $work/PACKAGE, without installing it.
unpack() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || return 1
    echo "   apt-get download $1"
    # Anyone may. The list of packages may be old, or not there yet, which only root can mend.
    (
        cd "$work" || return 1
        apt-get -q download "$1" >"$work/apt.log" 2>&1 || { apt update && apt download "$1"; }
    ) && dpkg-deb -x "$work/$1"_*.deb "$work/$1"
}

# Some python3 are built without Debian's modules.
find_python() {
    for python in python3 /usr/bin/python3; do
        "$python" -c 'import tomllib, yaml' 2>/dev/null && return
    done
    echo "   python3 has no yaml"
    python=/usr/bin/python3
    apt update && apt install -y --no-install-recommends python3 python3-yaml && "$python" -c 'import tomllib, yaml'
}

# Installed as a package it would start a server, on a port that Carillon's admin listener has.
find_promtool() {
    promtool="$(command -v promtool)" && return
    promtool="$tools/promtool"
    [ -x "$promtool" ] && return
    echo "   promtool is missing: taking it out of Debian's package prometheus"
    unpack prometheus && mkdir -p "$tools" && cp "$work/prometheus/usr/bin/promtool" "$promtool"
}

alerts_under_the_operator() {
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
    # No list at all would satisfy whoever compares it with a running node.
    [ "$(echo "$names" | wc -l)" -ge 40 ] || return
    # Every name stands in the source as it is, within quotes; those of the process in that of a library. That a running node
    # has all of them is tested in tests/it/cluster/metric_names.rs.
    local name missing=0
    for name in $(grep '^carillon_' <<<"$names"); do
        grep -rqF --include='*.rs' "\"$name\"" ../gateway ../publisher ../shared ../cli || {
            echo "the source has no metric $name" >&2
            missing=1
        }
    done
    return $missing
}

# nginx_reads NAME [EXAMPLE]: `nginx -t` on what would be /etc/nginx, with ports that need no rights.
nginx_reads() {
    local name="$1" conf="$work/nginx-$1"
    mkdir -p "$conf" && cp -r nginx/. "$conf" && mkdir -p "$conf/tls" "$conf/log"
    case "$name" in
    plain) ;;
    distribution) beside_distribution "$conf" ;;
    compose) cp nginx/compose/upstreams.conf "$conf/carillon/upstreams.conf" ;;
    stream) cp nginx/examples/stream/nginx.conf "$conf/nginx.conf" && load_stream "$conf" ;;
    *) cp "nginx/examples/$name/"*.conf "$conf/carillon/" ;;
    esac || return
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost \
        -keyout "$conf/tls/privkey.pem" -out "$conf/tls/fullchain.pem" 2>/dev/null || return
    # Names of compose.yml mean nothing here.
    find "$conf" -name '*.conf' -exec sed -i -E \
        -e 's/^( *listen +)(127\.0\.0\.1:|\[::\]:)?(8000|8089)\b/\1\22\3/' \
        -e 's/^( *listen +)(\[::\]:)?443\b/\1\220443/; s/^( *listen +)(\[::\]:)?80\b/\1\220080/' \
        -e "s#/var/log/nginx/#$conf/log/#; s#/run/nginx.pid#$conf/pid#" \
        -e 's/^( *server +)(gateway-1|gateway-2|publisher):/\1127.0.0.1:/' {} +
    if [ ! -e /proc/net/if_inet6 ]; then
        echo "   this machine has no IPv6: its addresses are left out"
        find "$conf" -name '*.conf' -exec sed -i '/^ *listen \[::\]/d' {} +
    fi
    mkdir -p "$conf/conf.d"
    for kind in client_body proxy fastcgi uwsgi scgi; do
        echo "${kind}_temp_path $conf/$kind;"
    done >"$conf/conf.d/0-check.conf"
    nginx -t -q -p "$conf" -c "$conf/nginx.conf" -e "$conf/log/start.log" || return
    echo "nginx -t: $name is right"
}

# The distribution's nginx.conf in the place of ours, with the changes that README.md makes to it.
beside_distribution() {
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
            echo "beside the distribution's nginx.conf $setting is ${theirs:-not set}, and not $ours" >&2
            return 1
        }
    done
}

# number_of DIRECTIVE FILE
number_of() {
    sed -nE "s/^[[:space:]]*$1[[:space:]]+([0-9]+);.*/\\1/p" "$2"
}

# The stream module is a package of its own on Debian, which would be loaded into every nginx of this machine.
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
    # The port of this socket is the name of its instance.
    mv "$folder/carillon-gateway@.socket" "$folder/carillon-gateway@8080.socket"
    if [ ! -x /usr/local/bin/carillon ]; then
        echo "/usr/local/bin/carillon is not there: /bin/true stands in for it"
        sed -i 's#/usr/local/bin/carillon#/bin/true#' "$folder"/*.service
    fi
    # A warning, as about a key that is not known, is a mistake too; it does not show in the exit code.
    if ! out="$(systemd-analyze verify --man=no --recursive-errors=no "$folder"/*.service "$folder"/*.socket 2>&1)" || [ -n "$out" ]; then
        echo "$out" >&2
        return 1
    fi
    # Of 100; what is open is said in the units.
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
        skip "sections of the operator's page" "docs/OPERATIONS.md is not there"
        return 0
    fi
    return "$outcome"
}

compose() {
    local made="$work/deploy"
    # Secrets are asked for by name; those of this folder are nobody's business.
    cp -r . "$made" && rm -rf "$made/secrets" && "$made/secrets.sh" >/dev/null || return
    "$@" -f "$made/compose.yml" config --quiet && echo "docker compose config: compose.yml is right"
}

image() {
    docker build -q -f Dockerfile -t carillon:check "$root" && docker run --rm --read-only carillon:check --version
}

if find_python; then
    check "what must fit together" "$python" checks/relations.py . "$root"
    check "alerts have texts and tests" alerts
else
    failed+=("python3 with yaml is missing")
fi

check "metric names" metric_names

if find_promtool; then
    check "promtool: configuration" "$promtool" check config prometheus/prometheus.yml
    check "promtool: rules" "$promtool" check rules prometheus/rules/recording.yml prometheus/rules/alerts.yml
    check "promtool: tests of alerts" "$promtool" test rules prometheus/tests/alerts.yml
    check "promtool: tests of alerts, scraped with the Prometheus operator" alerts_under_the_operator
    check "dashboard" dashboard
else
    failed+=("promtool is missing")
fi

if need nginx nginx && need openssl openssl; then
    for name in plain distribution compose behind-balancer proxy-protocol; do
        check "nginx: $name" nginx_reads "$name"
    done
    if load_stream "$work/stream"; then
        check "nginx: stream" nginx_reads stream
    else
        skip "nginx: stream" "its module, Debian's libnginx-mod-stream, cannot be had"
    fi
    check "nginx: at work" "$python" checks/nginx.py .
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
    skip "a cluster of these files" "$binary is not there: make build"
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
    skip "image" "no container engine answers"
elif [ -z "${CHECK_IMAGE:-}" ]; then
    skip "image" "it takes minutes to build: CHECK_IMAGE=1 does it"
else
    check "image" image
fi

echo
for what in "${skipped[@]+"${skipped[@]}"}"; do
    echo "skipped: $what"
done
for what in "${failed[@]+"${failed[@]}"}"; do
    echo "failed: $what"
done
echo "deploy: $passed passed, ${#failed[@]} failed, ${#skipped[@]} skipped"
[ "${#failed[@]}" = 0 ]
