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
  [ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  wait || true
  exit "$1"
}
