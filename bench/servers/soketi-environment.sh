# Sourced by soketi's start programs: where it is, and the app that all servers are measured with.
soketi=bench/servers/soketi
if [ ! -d "$soketi/node_modules" ]; then
  (cd "$soketi" && npm install --no-audit --no-fund --no-save) >&2
fi
export SOKETI_HOST=127.0.0.1
export SOKETI_DEFAULT_APP_ID=app-id SOKETI_DEFAULT_APP_KEY=app-key SOKETI_DEFAULT_APP_SECRET=app-secret
export SOKETI_DEFAULT_APP_ENABLE_CLIENT_MESSAGES=true

# One soketi on this port.
soketi() {
  SOKETI_PORT=$1 exec node "$soketi/node_modules/@soketi/soketi/bin/server.js" start
}
