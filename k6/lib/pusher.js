// A client of the Pusher Channels protocol, version 7, that behaves like pusher-js. It responds to pings and probes a silent server.
// After a close it reconnects at once, after a delay, or never, depending on the close code.

import * as metrics from './metrics.js';
import { signChannel, signUser } from './sign.js';
import { APP, GATEWAYS } from './target.js';
import { after } from './time.js';
import { WebSocket } from './websocket.js';

/** The longest silence before the client sends a ping. A shorter timeout from the server takes precedence. */
const ACTIVITY_MS = 120000;
/** How long it then waits for any message. */
const PONG_MS = 30000;
/** The delay of a reconnection unless the server requests an immediate one. As in pusher-js, it does not grow. */
const BACK_OFF_MS = 1000;
/**
 * How long `connection_established` may take after a socket opens. k6 (1.1 to 1.8) loses the first message of about one socket in
 * ten thousand: it drops data that it reads before it has marked the socket as open. Such a socket is opened again, and
 * `carillon_ungreeted` counts it.
 */
const GREETING_MS = 2000;

/** The `readyState` of an open socket. */
const OPEN = 1;

const RETRY = 'retry';
const BACK_OFF = 'back off';
const REFUSED = 'refused';

/** Returns the client's action after a close code. */
export function afterClose(code) {
  if (code >= 4200 && code < 4300) return RETRY;
  if ((code >= 4000 && code < 4100) || code >= 4300) return REFUSED;
  return BACK_OFF;
}

/** A connection's subscription to a channel. */
export class Subscription {
  /** `member`: `{ id, info }` on presence channels. `forged`: credentials to send instead of valid ones. */
  constructor(connection, channel, member, forged) {
    this.connection = connection;
    this.channel = channel;
    this.member = member;
    this.forged = forged;
    this.isConfirmed = false;
    /** On presence channels: user id to user info, as received from the server. */
    this.members = new Map();
    /** Stream id to this subscription's progress in it. Maintained by the listener of the connection. */
    this.tracks = new Map();
  }

  /** Returns `auth` and `channel_data`, signed for the current socket id. */
  credentials() {
    if (this.forged) return this.forged;
    const { socketId } = this.connection;
    if (this.member) {
      const data = JSON.stringify({ user_id: this.member.id, user_info: this.member.info });
      return { auth: signChannel(APP, socketId, this.channel, data), channel_data: data };
    }
    return { auth: this.channel.startsWith('private-') ? signChannel(APP, socketId, this.channel) : '' };
  }
}

/** A connection: a sequence of WebSockets, and subscriptions that are kept across them. */
export class Connection {
  /**
   * `listener`: receives calls of `subscribed(subscription)`, `event(subscription, frame, at)` and `ended(subscription)`.
   * `reconnects`: whether the client connects again when the server closes a connection.
   */
  constructor(index, listener, { reconnects = false } = {}) {
    this.index = index;
    this.listener = listener;
    this.reconnects = reconnects;
    this.gateway = index % GATEWAYS.length;
    this.socketId = null;
    /** Subscriptions by channel. */
    this.subscriptions = new Map();
    /** Whether errors from the server are expected. */
    this.provokes = false;
    this.socket = null;
    this.isEnabled = false;
    this.unsubscribed = new Set();
    this.waiting = new Map();
    /** The only pending timer: for `connection_established`, a ping, or the next attempt. */
    this.timer = { stop() {} };
  }

  get isConnected() {
    return this.socketId !== null;
  }

  /** Whether all of its subscriptions are confirmed. */
  get isWhole() {
    return this.isConnected && [...this.subscriptions.values()].every((subscription) => subscription.isConfirmed);
  }

  /** Connects, and restores all subscriptions. */
  open() {
    this.isEnabled = true;
    const established = this.#reply('established');
    const confirmed = [...this.subscriptions.keys()].map((channel) => this.#reply(channel));
    this.#dial();
    return Promise.all([established, ...confirmed]);
  }

  /** Closes the connection until the next `open`. */
  close() {
    this.isEnabled = false;
    if (this.socket === null) {
      this.timer.stop();
      return Promise.resolve();
    }
    const closed = this.#reply('closed');
    // k6 cannot close a socket that is not open yet. The handler of `open` closes it.
    if (this.socket.readyState === OPEN) this.socket.close();
    return closed;
  }

  /** Adds a subscription that is made at every connect. */
  add(channel, member, forged) {
    const subscription = new Subscription(this, channel, member, forged);
    this.subscriptions.set(channel, subscription);
    return subscription;
  }

  /** Subscribes now. Returns the subscription, or throws if it is refused. */
  subscribe(channel, member, forged) {
    const subscription = this.add(channel, member, forged);
    const reply = this.#reply(channel);
    this.#subscribe(subscription);
    return reply;
  }

  unsubscribe(channel) {
    const subscription = this.subscriptions.get(channel);
    this.subscriptions.delete(channel);
    // Events that are already in flight are ignored and do not count as a fault.
    this.unsubscribed.add(channel);
    if (subscription.isConfirmed) this.listener.ended(subscription);
    this.send('pusher:unsubscribe', { channel });
  }

  /** Signs in, and subscribes to the user's channel like pusher-js. */
  async signIn(id, auth) {
    const data = JSON.stringify({ id });
    const signedIn = this.#reply('signed in');
    this.send('pusher:signin', { auth: auth || signUser(APP, this.socketId, data), user_data: data });
    await signedIn;
    return this.subscribe(`#server-to-user-${id}`);
  }

  /** Sends a client event. Returns whether the socket was open. */
  trigger(channel, event, data) {
    return this.#write({ event, channel, data });
  }

  send(event, data) {
    return this.#write({ event, data });
  }

  // --- One socket

  #dial() {
    const began = Date.now();
    const url = `${GATEWAYS[this.gateway]}/app/${APP.key}?protocol=7&client=js&version=8.6.0&flash=false`;
    const socket = new WebSocket(url, null, { tags: { name: 'socket' } });
    let failure = '';
    this.socket = socket;
    this.unsubscribed.clear();
    socket.addEventListener('open', () => {
      if (!this.isEnabled) socket.close();
      else this.timer = after(GREETING_MS, () => this.#dialAgain(socket));
    });
    socket.addEventListener('message', (message) => {
      if (socket !== this.socket) return;
      this.receivedAt = message.timestamp;
      const frame = JSON.parse(message.data);
      if (!frame.event.startsWith('pusher')) this.#event(frame, message.timestamp);
      else if (frame.event === 'pusher:connection_established') this.#established(JSON.parse(frame.data), message.timestamp - began);
      else this.#control(frame, message.timestamp);
    });
    socket.addEventListener('error', (error) => {
      failure = `${error.error}`;
    });
    socket.addEventListener('close', (close) => {
      // Older versions of k6 only put the code into the error's text.
      const code = close.code || Number((/close (\d+)/.exec(failure) || [])[1]) || 1006;
      if (socket === this.socket) this.#closed(code, failure);
    });
  }

  #established({ socket_id: socketId, activity_timeout: activityTimeout }, took) {
    this.timer.stop();
    metrics.ungreeted.add(false);
    metrics.connectTime.add(took);
    this.socketId = socketId;
    this.activityMs = Math.min(ACTIVITY_MS, activityTimeout * 1000);
    this.#watch(this.activityMs);
    for (const subscription of this.subscriptions.values()) this.#subscribe(subscription);
    this.#settle('established', this);
    this.#back();
  }

  #dialAgain(socket) {
    metrics.ungreeted.add(true);
    socket.close();
    this.#dial();
  }

  #closed(code, reason) {
    const wasConnected = this.isConnected;
    this.socket = null;
    this.socketId = null;
    this.timer.stop();
    for (const subscription of this.subscriptions.values()) {
      if (subscription.isConfirmed) this.listener.ended(subscription);
      subscription.isConfirmed = false;
    }
    this.#settle('closed');
    if (!this.isEnabled) return;
    const next = afterClose(code);
    if (!wasConnected) {
      metrics.connectFailures.add(1, { code: `${code}` });
      console.warn(`connection ${this.index} failed with ${code}: ${reason}`);
    } else if (next === RETRY) metrics.drained.add(1, { code: `${code}` });
    else metrics.closed.add(1, { code: `${code}` });
    if (!this.reconnects || next === REFUSED) {
      this.isEnabled = false;
      this.#fail(new Error(`closed with ${code}: ${reason}`));
      return;
    }
    if (wasConnected) this.lostAt = Date.now();
    // A balancer would also select another gateway.
    this.gateway = (this.gateway + 1) % GATEWAYS.length;
    this.timer = after(next === RETRY ? 0 : BACK_OFF_MS, () => this.#dial());
  }

  /** Records the reconnect time when a lost connection has all of its subscriptions again. */
  #back() {
    if (this.lostAt === undefined || !this.isWhole) return;
    metrics.reconnectTime.add(Date.now() - this.lostAt);
    this.lostAt = undefined;
  }

  /** Sends a ping to a silent server, and closes the connection if it does not respond. */
  #watch(delay) {
    this.timer = after(delay, () => {
      const isProbed = this.probedAt > this.receivedAt;
      const left = (isProbed ? this.probedAt + PONG_MS : this.receivedAt + this.activityMs) - Date.now();
      if (left > 0) {
        this.#watch(Math.min(left, this.activityMs));
      } else if (isProbed) {
        const { socket } = this;
        this.#closed(1006, 'no pong');
        socket.close();
      } else {
        this.probedAt = Date.now();
        this.send('pusher:ping', {});
        this.#watch(this.activityMs);
      }
    });
  }

  #write(frame) {
    // The close event reports the result for a socket that is closing.
    if (this.socket === null || this.socket.readyState !== OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  // --- Messages

  #event(frame, at) {
    const subscription = this.subscriptions.get(frame.channel);
    if (subscription !== undefined && subscription.isConfirmed) this.listener.event(subscription, frame, at);
    else if (!this.unsubscribed.has(frame.channel)) metrics.misdirected.add(1, { why: 'not subscribed' });
  }

  #control(frame, at) {
    switch (frame.event) {
      case 'pusher:ping':
        this.send('pusher:pong', {});
        break;
      case 'pusher_internal:subscription_succeeded':
        this.#confirmed(this.subscriptions.get(frame.channel), frame, at);
        break;
      case 'pusher:subscription_error':
        if (!this.provokes) metrics.errors.add(1, { code: 'subscription' });
        this.subscriptions.delete(frame.channel);
        this.#settle(frame.channel, undefined, new Error(`${frame.channel}: ${frame.data}`));
        break;
      case 'pusher_internal:member_added':
        this.#memberAdded(this.subscriptions.get(frame.channel), JSON.parse(frame.data));
        break;
      case 'pusher_internal:member_removed':
        this.#memberRemoved(this.subscriptions.get(frame.channel), JSON.parse(frame.data));
        break;
      case 'pusher:signin_success':
        this.#settle('signed in', frame.data);
        break;
      case 'pusher:error':
        this.#error(frame.data);
        break;
      default:
    }
  }

  #subscribe(subscription) {
    subscription.requestedAt = Date.now();
    this.send('pusher:subscribe', { ...subscription.credentials(), channel: subscription.channel });
  }

  #confirmed(subscription, frame, at) {
    // The client unsubscribed while the confirmation was in flight.
    if (subscription === undefined) return;
    metrics.subscribeTime.add(at - subscription.requestedAt);
    subscription.isConfirmed = true;
    if (subscription.member) subscription.members = new Map(Object.entries(JSON.parse(frame.data).presence.hash));
    this.listener.subscribed(subscription);
    this.#settle(frame.channel, subscription);
    this.#back();
  }

  #memberAdded(subscription, { user_id: id, user_info: info }) {
    if (subscription === undefined || !subscription.isConfirmed) return;
    if (subscription.members.has(id)) metrics.wrongViews.add(1, { why: 'added twice' });
    subscription.members.set(id, info);
  }

  #memberRemoved(subscription, { user_id: id }) {
    if (subscription === undefined || !subscription.isConfirmed) return;
    if (!subscription.members.delete(id)) metrics.wrongViews.add(1, { why: 'removed twice' });
  }

  #error({ code, message }) {
    // Errors that precede a close are counted with the close.
    if (!this.provokes && !(code >= 4100 && code < 4300)) {
      metrics.errors.add(1, { code: `${code}` });
      console.error(`pusher:error ${code}: ${message}`);
    }
    this.#settle('signed in', undefined, new Error(message));
  }

  // --- Pending replies

  #reply(key) {
    return new Promise((resolve, reject) => {
      this.waiting.set(key, { resolve, reject });
    });
  }

  #settle(key, value, error) {
    const waiting = this.waiting.get(key);
    if (waiting === undefined) return;
    this.waiting.delete(key);
    if (error === undefined) waiting.resolve(value);
    else waiting.reject(error);
  }

  #fail(error) {
    const all = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject } of all) reject(error);
  }
}
