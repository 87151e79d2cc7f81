#!/bin/sh
# Makes what compose.yml reads from files, once: passwords, the app's secret, a certificate for trying things out.
# What is there already stays.
#
#   deploy/secrets.sh [HOST]      the name in the certificate; default: localhost
set -eu
cd "$(dirname "$0")"
host="${1:-localhost}"

# Containers of other users read these files, and compose hands them in as they are on this machine. So they are readable,
# and the folder is not.
mkdir -p secrets
chmod 700 secrets
umask 022

random() {
    openssl rand -hex 32
}

make() {
    # make NAME: writes standard input to the file, whole or not at all.
    cat > "secrets/$1.new"
    mv "secrets/$1.new" "secrets/$1"
    echo "made deploy/secrets/$1"
}

[ -e secrets/app_secret ] || random | make app_secret
[ -e secrets/grafana_password ] || random | make grafana_password

# The password in three forms: for Redis as a hash, for nodes inside the URL, for redis-cli as it is.
if [ ! -e secrets/redis_users ] || [ ! -e secrets/redis_env ] || [ ! -e secrets/redis_password ]; then
    password="$(random)"
    hash="$(printf %s "$password" | sha256sum | cut -d' ' -f1)"
    sed "s/PASSWORD_SHA256/$hash/" redis/users.acl | make redis_users
    printf 'CARILLON_REDIS__URL=redis://carillon:%s@redis:6379/0\n' "$password" | make redis_env
    printf %s "$password" | make redis_password
fi

if [ ! -e secrets/tls_cert ] || [ ! -e secrets/tls_key ]; then
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
        -subj "/CN=$host" -addext "subjectAltName=DNS:$host,IP:127.0.0.1" \
        -keyout secrets/tls_key.new -out secrets/tls_cert.new 2>/dev/null
    chmod 644 secrets/tls_key.new
    for name in tls_key tls_cert; do
        mv "secrets/$name.new" "secrets/$name"
        echo "made deploy/secrets/$name"
    done
    echo "the certificate is signed by nobody: for real clients put a real one into tls_cert and tls_key"
fi
