// A client of the Pusher Channels protocol, version 7, that behaves as pusher-js does: it answers pings, probes a silent
// server, and after a close comes back at once, later, or never, as the code says.

import * as metrics from './metrics.js';
import { signChannel, signUser } from './sign.js';
import { APP, GATEWAYS } from './target.js';
import { after } from './time.js';
import { WebSocket } from './websocket.js';

/** Longest silence before the client asks whether the server is there; a shorter one that the server names wins. */
const ACTIVITY_MS = 120000;
/** How long it then waits for a message, any. */
const PONG_MS = 30000;
/** Before a client comes back that was not told to come at once. pusher-js does not let it grow. */
const BACK_OFF_MS = 1000;
/**
 * How long after the opening of a socket its `connection_established` may take. k6 (1.1 to 1.8) loses the first message of
 * one socket in ten thousand or so: it drops what it reads before it has noted that the socket is open. Such a socket is
 * dialled again, and `carillon_ungreeted` tells how many there were.
 */
const GREETING_MS = 2000;

/** `readyState` of a socket that can be written to. */
const OPEN = 1;

const RETRY = 'retry';
const BACK_OFF = 'back off';
const REFUSED = 'refused';

/** What a close code asks of the client. */
export function afterClose(code) {
  if (code >= 4200 && code < 4300) return RETRY;
  if ((code >= 4000 && code < 4100) || code >= 4300) return REFUSED;
  return BACK_OFF;
}

/** A connection's membership of a channel. */
export class Subscription {
  /** `member`: `{ id, info }` on presence channels. `forged`: what is sent in place of true credentials. */
  constructor(connection, channel, member, forged) {
    this.connection = connection;
    this.channel = channel;
    this.member = member;
    this.forged = forged;
    this.isConfirmed = false;
    /** On presence channels: user id to user info, as the server told it. */
    this.members = new Map();
    /** Stream id to how far this subscription is in it; kept by whoever listens to the connection. */
    this.tracks = new Map();
  }

  /** `auth` and `channel_data`, signed for the connection as it is now. */
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

/** One WebSocket after the other, with the subscriptions that outlive them. */
export class Connection {
  /**
   * `listener`: hears of what happens, by the methods `subscribed(subscription)`, `event(subscription, frame, at)`,
   * `ended(subscription)`. `comesBack`: whether it connects again when the server ends a connection.
   */
  constructor(index, listener, { comesBack = false } = {}) {
    this.index = index;
    this.listener = listener;
    this.comesBack = comesBack;
    this.gateway = index % GATEWAYS.length;
    this.socketId = null;
    /** By channel. */
    this.subscriptions = new Map();
    /** Errors that the server sends are expected. */
    this.provokes = false;
    this.socket = null;
    this.isWanted = false;
    this.left = new Set();
    this.waiting = new Map();
    /** The one thing that is due: a greeting, a probe, or the next attempt. */
    this.timer = { stop() {} };
  }

  get isConnected() {
    return this.socketId !== null;
  }

  /** Whether everything that it wants is confirmed. */
  get isWhole() {
    return this.isConnected && [...this.subscriptions.values()].every((subscription) => subscription.isConfirmed);
  }

  /** Connects, and subscribes again to what it was subscribed to. */
  open() {
    this.isWanted = true;
    const established = this.#answer('established');
    const confirmed = [...this.subscriptions.keys()].map((channel) => this.#answer(channel));
    this.#dial();
    return Promise.all([established, ...confirmed]);
  }

  /** Leaves for good, or until the next `open`. */
  close() {
    this.isWanted = false;
    if (this.socket === null) {
      this.timer.stop();
      return Promise.resolve();
    }
    const closed = this.#answer('closed');
    // A socket of k6 that is not open yet cannot be closed: it is when it has opened.
    if (this.socket.readyState === OPEN) this.socket.close();
    return closed;
  }

  /** Subscribes whenever it is connected. */
  want(channel, member, forged) {
    const subscription = new Subscription(this, channel, member, forged);
    this.subscriptions.set(channel, subscription);
    return subscription;
  }

  /** Subscribes now; comes to the subscription, or to an error when it is refused. */
  subscribe(channel, member, forged) {
    const subscription = this.want(channel, member, forged);
    const answer = this.#answer(channel);
    this.#subscribe(subscription);
    return answer;
  }

  unsubscribe(channel) {
    const subscription = this.subscriptions.get(channel);
    this.subscriptions.delete(channel);
    // What is on its way already comes to nobody, and is no fault.
    this.left.add(channel);
    if (subscription.isConfirmed) this.listener.ended(subscription);
    this.send('pusher:unsubscribe', { channel });
  }

  /** Signs in, and subscribes to the user's own channel as pusher-js does. */
  async signIn(id, auth) {
    const data = JSON.stringify({ id });
    const signedIn = this.#answer('signed in');
    this.send('pusher:signin', { auth: auth || signUser(APP, this.socketId, data), user_data: data });
    await signedIn;
    return this.subscribe(`#server-to-user-${id}`);
  }

  /** Sends an event of the client's own; returns whether the socket took it. */
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
    this.left.clear();
    socket.addEventListener('open', () => {
      if (!this.isWanted) socket.close();
      else this.timer = after(GREETING_MS, () => this.#dialAgain(socket));
    });
    socket.addEventListener('message', (message) => {
      if (socket !== this.socket) return;
      this.heardAt = message.timestamp;
      const frame = JSON.parse(message.data);
      if (!frame.event.startsWith('pusher')) this.#event(frame, message.timestamp);
      else if (frame.event === 'pusher:connection_established') this.#established(JSON.parse(frame.data), message.timestamp - began);
      else this.#control(frame, message.timestamp);
    });
    socket.addEventListener('error', (error) => {
      failure = `${error.error}`;
    });
    socket.addEventListener('close', (close) => {
      // Older versions of k6 put the code into the error's text only.
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
    if (!this.isWanted) return;
    const next = afterClose(code);
    if (!wasConnected) {
      metrics.connectFailures.add(1, { code: `${code}` });
      console.warn(`connection ${this.index} failed with ${code}: ${reason}`);
    } else if (next === RETRY) metrics.drained.add(1, { code: `${code}` });
    else metrics.closed.add(1, { code: `${code}` });
    if (!this.comesBack || next === REFUSED) {
      this.isWanted = false;
      this.#fail(new Error(`closed with ${code}: ${reason}`));
      return;
    }
    if (wasConnected) this.lostAt = Date.now();
    // A balancer would choose another gateway, too.
    this.gateway = (this.gateway + 1) % GATEWAYS.length;
    this.timer = after(next === RETRY ? 0 : BACK_OFF_MS, () => this.#dial());
  }

  /** When the connection was lost and is whole again, says how long that took. */
  #back() {
    if (this.lostAt === undefined || !this.isWhole) return;
    metrics.reconnectTime.add(Date.now() - this.lostAt);
    this.lostAt = undefined;
  }

  /** Probes a server that has been silent, and gives it up when it stays so. */
  #watch(delay) {
    this.timer = after(delay, () => {
      const isProbed = this.probedAt > this.heardAt;
      const left = (isProbed ? this.probedAt + PONG_MS : this.heardAt + this.activityMs) - Date.now();
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
    // A socket that is about to close takes no more; what becomes of the connection is told by its close.
    if (this.socket === null || this.socket.readyState !== OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  // --- Messages

  #event(frame, at) {
    const subscription = this.subscriptions.get(frame.channel);
    if (subscription !== undefined && subscription.isConfirmed) this.listener.event(subscription, frame, at);
    else if (!this.left.has(frame.channel)) metrics.misdirected.add(1, { why: 'not subscribed' });
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
    subscription.askedAt = Date.now();
    this.send('pusher:subscribe', { ...subscription.credentials(), channel: subscription.channel });
  }

  #confirmed(subscription, frame, at) {
    // It was left while the answer was on its way.
    if (subscription === undefined) return;
    metrics.subscribeTime.add(at - subscription.askedAt);
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
    // Those that may announce a close are counted with the close.
    if (!this.provokes && !(code >= 4100 && code < 4300)) {
      metrics.errors.add(1, { code: `${code}` });
      console.error(`pusher:error ${code}: ${message}`);
    }
    this.#settle('signed in', undefined, new Error(message));
  }

  // --- Those who wait for an answer

  #answer(what) {
    return new Promise((resolve, reject) => {
      this.waiting.set(what, { resolve, reject });
    });
  }

  #settle(what, value, error) {
    const waiting = this.waiting.get(what);
    if (waiting === undefined) return;
    this.waiting.delete(what);
    if (error === undefined) waiting.resolve(value);
    else waiting.reject(error);
  }

  #fail(error) {
    const all = [...this.waiting.values()];
    this.waiting.clear();
    for (const { reject } of all) reject(error);
  }
}
