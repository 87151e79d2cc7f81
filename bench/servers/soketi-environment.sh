# Sourced by soketi's start scripts: installs the program and sets the app of all measured servers.
soketi=bench/servers/soketi
if [ ! -d "$soketi/node_modules" ]; then
  (cd "$soketi" && npm install --no-audit --no-fund --no-save) >&2
fi
export SOKETI_HOST=127.0.0.1
export SOKETI_DEFAULT_APP_ID=app-id SOKETI_DEFAULT_APP_KEY=app-key SOKETI_DEFAULT_APP_SECRET=app-secret
export SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES=true

# Replaces the shell with soketi on port $1.
soketi() {
  SOKETI_PORT=$1 exec node "$soketi/node_modules/@soketi/soketi/bin/server.js" start
}
