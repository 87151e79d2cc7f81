# Sourced by start programs of several processes: they live and end together.
pids=()
trap 'end 0' TERM INT HUP

# Starts a program beside the others.
start() {
  "$@" &
  pids+=($!)
}

# Stays until it is told to end, or one of them ends, and then ends all.
together() {
  wait -n || true
  end 1
}

end() {
  trap - TERM INT HUP
  # The first is Redis, and goes last: servers that miss it may not find their end.
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
