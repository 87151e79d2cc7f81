# Sourced by Sockudo's start programs: where it is, and the app that all servers are measured with.
# `cargo install sockudo --features redis --root target/sockudo`, which needs protobuf-compiler, puts it there; SOCKUDO
# names another place.
sockudo=${SOCKUDO:-target/sockudo/bin/sockudo}
export HOST=127.0.0.1
export SOCKUDO_DEFAULT_APP_ID=app-id SOCKUDO_DEFAULT_APP_KEY=app-key SOCKUDO_DEFAULT_APP_SECRET=app-secret
export SOCKUDO_DEFAULT_APP_ENABLE_CLIENT_MESSAGES=true
# It would allow 100 connections and 100 events a second.
export SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS=1000000 SOCKUDO_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SECOND=1000000
export RATE_LIMITER_ENABLED=false
