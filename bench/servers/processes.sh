# Sourced by start scripts with several processes. They stop all processes when one exits or on a signal.
pids=()
trap 'stop_all 0' TERM INT HUP

# Starts a program in the background.
start() {
  "$@" &
  pids+=($!)
}

# Waits until a process exits, then stops the others.
wait_and_stop() {
  wait -n || true
  stop_all 1
}

# Stops all processes and exits with status $1.
stop_all() {
  trap - TERM INT HUP
  # The first process is Redis. It stops last, because servers without Redis may not shut down.
  local pid
  for pid in "${pids[@]:1}"; do
    kill "$pid" 2>/dev/null || true
  done
  for pid in "${pids[@]:1}"; do
    timeout 5 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
  done
  [ "${#pids[@]}" -eq 0 ] || kill "${pids[0]}" 2>/dev/null || true
  wait || true
  exit "$1"
}
