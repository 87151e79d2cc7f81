// The WebSocket of k6, whatever this version calls its module: `k6/websockets` since 1.6, experimental before.
// CommonJS, since only `require` can be tried.

function load() {
  try {
    return require('k6/websockets');
  } catch (_) {
    return require('k6/experimental/websockets');
  }
}

module.exports = { WebSocket: load().WebSocket };
