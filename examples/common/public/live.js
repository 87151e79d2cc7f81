// The connection to Carillon: the options of pusher-js, and an indicator of its state. pusher-js reconnects and falls back to HTTP by
// itself. This module only observes it, with two exceptions.
//
// While the server is unreachable, the module polls `/up` and makes pusher-js connect at once when the server responds again. pusher-js
// alone would wait 15 to 60 seconds after its second attempt.
//
// If a page had a WebSocket before such an outage and reconnected over HTTP, the module makes pusher-js start again with a WebSocket.
// pusher-js alone would keep HTTP until Carillon requests a reconnect. A page that had HTTP before is not changed, because WebSockets
// may be blocked there.

import { $, el, toast } from './page.js';

/** Polling interval of an unreachable server. Each page varies it by up to half, so that not all pages reconnect at the same time. */
const LOOK_EVERY_MS = 2_000;

/** Delay before a failed signature is requested again. */
const SIGN_AGAIN_MS = 3_000;

/** Delay before a page that reconnected over HTTP tries a WebSocket, so that its subscriptions are confirmed first. */
const UPGRADE_AFTER_MS = 3_000;

const TRANSPORTS = {
  ws: ['ws', 'WebSocket'],
  wss: ['ws', 'WebSocket'],
  xhr_streaming: ['http', 'HTTP fallback', 'streaming'],
  xhr_polling: ['http', 'HTTP fallback', 'polling'],
};

/**
 * Returns the options of pusher-js and Laravel Echo for the Carillon in `config`.
 *
 * `httpHost` and the ports next to it are required. Otherwise the fallback would connect to a host of Pusher. With `?transport=http` in
 * the page's address WebSockets are disabled, to test the fallback without a network that blocks them.
 */
export function connectionOptions({ host, port, tls }) {
  const http = ['xhr_streaming', 'xhr_polling'];
  const onlyHttp = new URLSearchParams(location.search).get('transport') === 'http';
  return {
    cluster: '', // required by pusher-js 8, not used
    wsHost: host,
    wsPort: port,
    wssPort: port,
    httpHost: host,
    httpPort: port,
    httpsPort: port,
    forceTLS: tls,
    enabledTransports: onlyHttp ? http : ['ws', 'wss', ...http],
  };
}

/** Returns the display name of the transport: `WebSocket`, `HTTP streaming`, `HTTP polling`. */
export function transportName(pusher) {
  const [kind, name, how] = TRANSPORTS[transportOf(pusher)] ?? [null, 'none'];
  return kind === 'http' ? `HTTP ${how}` : name;
}

/** Returns pusher-js' name of the transport of a connected client, or null. */
export function transportOf(pusher) {
  const { state, connection } = pusher.connection;
  return state === 'connected' ? (connection?.transport?.name ?? null) : null;
}

/** Observes a client and shows its connection in `#live` (a few words) and `#offline` (the problem, and a button). */
export class Live {
  #pusher;
  #config;
  #reason = '';
  #refused = false;
  #restarting = false;
  #lost = false;
  #looking = null;
  #answered = true;
  /** Whether the server was unreachable since the last connection. If so, WebSockets failed for that reason. */
  #silent = false;
  /** Kind of the latest connection: `ws` or `http`. */
  #latest = null;
  #changed;

  /** `changed()` is called whenever the state may have changed. */
  constructor(pusher, config, changed = () => {}) {
    this.#changed = changed;
    this.#pusher = pusher;
    this.#config = config;
    const { connection } = pusher;
    connection.bind('state_change', ({ current }) => this.#moved(current));
    connection.bind('connecting_in', () => this.#moved('lost'));
    connection.bind('error', (error) => this.#failed(error?.error?.data ?? error?.data));
    addEventListener('offline', () => this.#show());
    addEventListener('online', () => this.#show());
    // Runs after the constructor, because `changed` may use the new object.
    queueMicrotask(() => this.#moved(connection.state));
  }

  /** The address that the page connects to, for display. */
  get address() {
    return `${this.#config.tls ? 'wss' : 'ws'}://${this.#config.host}:${this.#config.port}`;
  }

  /** `ws` or `http` while connected, `connecting`, `offline` or `refused`. */
  get state() {
    const transport = transportOf(this.#pusher);
    if (transport) return TRANSPORTS[transport]?.[0] ?? 'ws';
    if (this.#refused) return 'refused';
    return this.#lost ? 'offline' : 'connecting';
  }

  #moved(state) {
    if (this.#restarting) return;
    if (state === 'connected') {
      const kind = this.state;
      // An earlier WebSocket also means that WebSockets are enabled on this page.
      if (this.#silent && this.#latest === 'ws' && kind === 'http') this.#upgradeLater();
      this.#latest = kind;
      this.#refused = this.#lost = this.#silent = false;
      this.#answered = true;
      this.#reason = '';
    } else if (state === 'disconnected' || state === 'failed') {
      this.#refused = true;
    } else if (state !== 'initialized' && state !== 'connecting') {
      this.#lost = true;
    }
    this.#look();
    this.#show();
  }

  /** Tries a WebSocket after a delay, unless this connection has ended. */
  #upgradeLater() {
    const { connection } = this.#pusher;
    const socketId = connection.socket_id;
    setTimeout(() => this.state === 'http' && connection.socket_id === socketId && this.tryNow(), UPGRADE_AFTER_MS);
  }

  /** Handles an error of the connection. Codes from 4000 to 4099 are refusals, after which pusher-js does not retry. */
  #failed({ code, message } = {}) {
    if (code >= 4000 && code < 4100) this.#reason = `The server refused the connection: ${message} (${code}).`;
    this.#show();
  }

  /** Polls the server while there is no connection. */
  #look() {
    const idle = transportOf(this.#pusher) || this.#refused;
    if (idle) {
      clearTimeout(this.#looking);
      this.#looking = null;
    } else {
      this.#looking ??= setTimeout(() => this.#lookNow(), LOOK_EVERY_MS * (0.5 + Math.random() / 2));
    }
  }

  async #lookNow() {
    const { host, port, tls } = this.#config;
    const before = this.#answered;
    // The response of another origin cannot be read. It is enough that there is one.
    this.#answered = await fetch(`${tls ? 'https' : 'http'}://${host}:${port}/up`, {
      mode: 'no-cors',
      cache: 'no-store',
      signal: AbortSignal.timeout(5_000),
    }).then(
      () => true,
      () => false,
    );
    this.#looking = null;
    if (transportOf(this.#pusher)) return;
    this.#lost = true;
    this.#silent ||= !this.#answered;
    this.#reason = this.#answered
      ? 'The server responds, but no connection has been established yet.'
      : 'The server does not respond. Is `carillon up` running?';
    if (this.#answered && !before) this.tryNow();
    this.#look();
    this.#show();
  }

  /** Restarts pusher-js instead of waiting for its next attempt. */
  tryNow() {
    this.#restarting = true;
    this.#pusher.disconnect();
    this.#restarting = false;
    this.#refused = false;
    this.#pusher.connect();
  }

  #show() {
    this.#changed();
    const { state } = this;
    const [, name, how] = TRANSPORTS[transportOf(this.#pusher)] ?? [];
    const words = { connecting: 'Connecting …', offline: 'Offline', refused: 'Refused' }[state] ?? `Live over ${name}`;
    const badge = $('#live');
    if (badge.textContent !== words || badge.dataset.state !== state) {
      badge.dataset.state = state;
      badge.replaceChildren(el('span', { class: 'dot', 'aria-hidden': 'true' }), words);
    }
    badge.title = how ? `${this.address}, by HTTP ${how}` : this.address;

    const reason = navigator.onLine ? this.#reason : 'This device has no network.';
    const sentence =
      state === 'refused'
        ? `${this.#reason || `This browser cannot connect to ${this.address}.`} There are no more retries.`
        : state === 'offline'
          ? `Offline: cannot reach ${this.address}, retrying … ${reason}`
          : '';
    const banner = $('#offline');
    banner.hidden = sentence === '';
    if (banner.children.length === 0) {
      banner.append(el('p'), el('button', { type: 'button', class: 'small', onclick: () => this.tryNow() }, 'Try now'));
    }
    if ($('p', banner).textContent !== sentence) $('p', banner).textContent = sentence;
  }
}

/**
 * Calls `fetchState` after every subscription to a channel: the first one and every later one, because events were missed in between.
 * The fetch follows the subscription, so no change is missed. Also calls it on `resync`, which the example's server sends after failed
 * publishes.
 *
 * pusher-js does not retry a failed signature request, for example while the example's server restarts. This function retries it unless
 * the refusal is permanent or the page has unsubscribed.
 */
export function keepFresh(channel, fetchState) {
  let trouble = null;
  channel.bind('pusher:subscription_succeeded', () => {
    trouble?.remove();
    fetchState();
  });
  channel.bind('resync', fetchState);
  channel.bind('pusher:subscription_error', ({ status }) => {
    trouble?.remove();
    if (status === 403) {
      trouble = toast(`No live updates: you may not subscribe to ${channel.name}.`, 'problem');
      return;
    }
    const reason = status ? `it responded with ${status}` : 'it does not respond';
    trouble = toast(
      `No live updates: the server of this example must sign for ${channel.name}, but ${reason}. Retrying.`,
      'problem',
    );
    setTimeout(() => {
      const { pusher, name } = channel;
      if (pusher.channel(name) !== channel || channel.subscriptionCancelled) trouble?.remove();
      else if (!channel.subscribed) pusher.subscribe(name);
    }, SIGN_AGAIN_MS);
  });
}
