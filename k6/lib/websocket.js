// k6's WebSocket. Its module is `k6/websockets` since version 1.6, and experimental before.
// This file is CommonJS, because only `require` can be tried.

function load() {
  try {
    return require('k6/websockets');
  } catch (_) {
    return require('k6/experimental/websockets');
  }
}

module.exports = { WebSocket: load().WebSocket };
