# Sourced by start programs of several processes: they live and end together.
pids=()

# Starts a program beside the others.
start() {
  "$@" &
  pids+=($!)
}

# Stays until it is told to end, or one of them ends, and then ends all.
together() {
  trap 'end 0' TERM INT
  wait -n || true
  end 1
}

end() {
  trap - TERM INT
  kill "${pids[@]}" 2>/dev/null || true
  wait || true
  exit "$1"
}
