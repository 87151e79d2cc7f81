# Sourced by Sockudo's start scripts: sets the path of the program and the app of all measured servers.
# `cargo install sockudo --features redis --root target/sockudo` installs it and needs protobuf-compiler. SOCKUDO sets
# another path.
sockudo=${SOCKUDO:-target/sockudo/bin/sockudo}
export HOST=127.0.0.1
export SOCKUDO_DEFAULT_APP_ID=app-id SOCKUDO_DEFAULT_APP_KEY=app-key SOCKUDO_DEFAULT_APP_SECRET=app-secret
export SOCKUDO_DEFAULT_APP_ENABLE_CLIENT_MESSAGES=true
# The defaults are 100 connections and 100 events per second.
export SOCKUDO_DEFAULT_APP_MAX_CONNECTIONS=1000000 SOCKUDO_DEFAULT_APP_MAX_BACKEND_EVENTS_PER_SECOND=1000000
export RATE_LIMITER_ENABLED=false
