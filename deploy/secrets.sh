#!/bin/sh
# Creates the secret files that compose.yml reads: passwords, the app's secret, and a self-signed certificate for tests.
# Existing files are kept.
#
#   deploy/secrets.sh [HOST]      the name in the certificate; default: localhost
set -eu
cd "$(dirname "$0")"
host="${1:-localhost}"

# Containers with other user ids read these files, and compose mounts them with the permissions of this machine. The files are
# therefore readable, and the folder is not.
mkdir -p secrets
chmod 700 secrets
umask 022

random() {
    openssl rand -hex 32
}

make() {
    # make NAME: writes standard input to the file atomically.
    cat > "secrets/$1.new"
    mv "secrets/$1.new" "secrets/$1"
    echo "created deploy/secrets/$1"
}

[ -e secrets/app_secret ] || random | make app_secret
[ -e secrets/grafana_password ] || random | make grafana_password

# The password in three forms: as a hash for Redis, inside the URL for nodes, and in plain text for redis-cli.
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
        echo "created deploy/secrets/$name"
    done
    echo "the certificate is self-signed: for real clients, replace tls_cert and tls_key with a real one"
fi
