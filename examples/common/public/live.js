// The connection to Carillon: how pusher-js is told to make it, and the indicator that says in words how it is.
// pusher-js connects again by itself, and falls back to HTTP by itself. This module only watches, with two exceptions. While nothing
// answers it asks the server's `/up` now and then, and has pusher-js try at once when that answers again, where pusher-js alone
// would wait 15 to 60 seconds after its second attempt. And when a page that had a WebSocket before such an outage came back over
// HTTP, because the turn of that came first, it has pusher-js begin again with a WebSocket, where pusher-js alone would stay with
// HTTP until Carillon offers a reconnect. Who had HTTP before is left alone: there WebSockets may well be blocked.

import { $, el, toast } from './page.js';

/** How often an unreachable server is looked for. Each page adds up to half of it, so that not all come back in the same instant. */
const LOOK_EVERY_MS = 2_000;

/** How long after a signature that did not come another one is asked for. */
const SIGN_AGAIN_MS = 3_000;

/** How long a connection over HTTP that came after an outage stays before a WebSocket is tried: its subscriptions should be settled. */
const UPGRADE_AFTER_MS = 3_000;

const TRANSPORTS = {
  ws: ['ws', 'WebSocket'],
  wss: ['ws', 'WebSocket'],
  xhr_streaming: ['http', 'HTTP fallback', 'streaming'],
  xhr_polling: ['http', 'HTTP fallback', 'polling'],
};

/**
 * Options of pusher-js, and of Laravel Echo, for the Carillon that `config` names.
 *
 * `httpHost` and the ports beside it matter: without them the fallback would go to a host of Pusher. With `?transport=http` in the
 * page's address WebSockets are left out, to see the fallback without a network that blocks them.
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

/** What people call a transport: `WebSocket`, `HTTP streaming`, `HTTP polling`. */
export function transportName(pusher) {
  const [kind, name, how] = TRANSPORTS[transportOf(pusher)] ?? [null, 'none'];
  return kind === 'http' ? `HTTP ${how}` : name;
}

/** The transport that carries a client's connection, as pusher-js calls it, or null. */
export function transportOf(pusher) {
  const { state, connection } = pusher.connection;
  return state === 'connected' ? (connection?.transport?.name ?? null) : null;
}

/** Watches a client and shows how it is connected in `#live` (a few words) and `#offline` (what is wrong, and a button). */
export class Live {
  #pusher;
  #config;
  #reason = '';
  #refused = false;
  #restarting = false;
  #lost = false;
  #looking = null;
  #answered = true;
  /** Whether nothing answered at some time since the last connection: then WebSockets failed for that reason, and not for another. */
  #silent = false;
  /** `ws` or `http`: what the latest connection was. */
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
    // Not before the constructor is done: `changed` may want to use what it makes.
    queueMicrotask(() => this.#moved(connection.state));
  }

  /** Where the page connects to, for people. */
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
      // That there was a WebSocket also says that they are enabled here.
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

  /** Tries a WebSocket after a while, unless this connection is gone by then. */
  #upgradeLater() {
    const { connection } = this.#pusher;
    const socketId = connection.socket_id;
    setTimeout(() => this.state === 'http' && connection.socket_id === socketId && this.tryNow(), UPGRADE_AFTER_MS);
  }

  /** An error of the connection. Codes from 4000 to 4099 are the server's refusal, after which pusher-js does not try again. */
  #failed({ code, message } = {}) {
    if (code >= 4000 && code < 4100) this.#reason = `The server refuses: ${message} (${code}).`;
    this.#show();
  }

  /** Asks whether anything answers, as long as there is no connection. */
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
    // The answer itself cannot be read from another origin; that there is one is enough.
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
      ? 'Something answers there, but no connection opens so far.'
      : 'Nothing answers there: is `carillon up` running?';
    if (this.#answered && !before) this.tryNow();
    this.#look();
    this.#show();
  }

  /** Has pusher-js begin anew, instead of waiting for its next attempt. */
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
        ? `${this.#reason || `This browser cannot connect to ${this.address}.`} Not trying again.`
        : state === 'offline'
          ? `Offline: cannot reach ${this.address}, trying again … ${reason}`
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
 * Calls `fetchState` whenever a channel has been subscribed: for the first time, and after every reconnection, since events were
 * missed meanwhile. Subscribing comes first and fetching second, so nothing falls between the two. Also on `resync`, which the
 * example's server sends when it could not publish for a while.
 *
 * pusher-js does not ask again for a signature that it did not get, for example because the example's server was being restarted;
 * this does, as long as the refusal is not for good and the page has not left the channel.
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
      trouble = toast(`Nothing is live here: you may not hear ${channel.name}.`, 'problem');
      return;
    }
    const reason = status ? `it answered ${status}` : 'it does not answer';
    trouble = toast(
      `Nothing is live here: the server of this example should sign for ${channel.name}, but ${reason}. Trying again.`,
      'problem',
    );
    setTimeout(() => {
      const { pusher, name } = channel;
      if (pusher.channel(name) !== channel || channel.subscriptionCancelled) trouble?.remove();
      else if (!channel.subscribed) pusher.subscribe(name);
    }, SIGN_AGAIN_MS);
  });
}
