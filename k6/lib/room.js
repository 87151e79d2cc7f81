// The connections of one virtual user, its published events, and the check of what arrived.
//
// Virtual users share nothing. A room therefore has its own channels, publishes to them itself, and knows which events each
// subscription must receive.

import exec from 'k6/execution';
import * as api from './api.js';
import * as metrics from './metrics.js';
import { Connection } from './pusher.js';
import { DOUBLED, FRESH, MISDIRECTED, REORDERED, Stream, Track } from './stream.js';
import { eventually, pause, within } from './time.js';

/** After this time without an arrival, no more events are expected. */
const PATIENCE_MS = 10000;
/** Waiting time for repeats after all events have arrived. */
const QUIET_MS = 300;
/** Time limit for a connection and all of its subscriptions. */
const CONNECT_MS = 30000;
/** Connections of one room that open at the same time, unless they open at a fixed rate. */
const DIALING = 50;

/** Names of a room's events. Any other event on its channels is misdirected. */
const EVENT = 'event';
const CLIENT_EVENT = 'client-event';

const FAULTS = { [DOUBLED]: metrics.doubled, [REORDERED]: metrics.reordered, [MISDIRECTED]: metrics.misdirected };

export class Room {
  /** `name`: set if several virtual users share a room; unique by default. */
  constructor(name = `${Date.now().toString(36)}-${exec.vu.idInTest}`) {
    this.name = name;
    this.connections = [];
    this.added = 0;
    /** Channel to the streams that are published on it. */
    this.streams = new Map();
    this.delivered = 0;
    this.published = 0;
    this.lastArrival = Date.now();
  }

  /** Returns the name of a channel that only this room uses. */
  channel(name) {
    return `${name}-${this.name}`;
  }

  /**
   * Creates a stream of events on these channels. Must be called before a connection subscribes to them. `sender`: the index of the
   * connection that sends them as client events.
   */
  stream(channels, sender) {
    const names = [].concat(channels);
    const stream = new Stream(`${names[0]}/${sender === undefined ? '' : sender}`, names, sender);
    for (const name of names) this.streams.set(name, [...(this.streams.get(name) || []), stream]);
    return stream;
  }

  /**
   * Connects and subscribes. Returns the new connections. `seat(index)`: the subscriptions of a connection, `{ channel, member }` each.
   * `overSeconds`: the duration over which connections open evenly; 0 opens them as fast as possible.
   */
  async connect(count, seat, { overSeconds = 0, reconnects = false } = {}) {
    const connections = [];
    const opening = [];
    const begin = Date.now();
    for (let i = 0; i < count; i += 1) {
      const early = begin + (i * overSeconds * 1000) / count - Date.now();
      if (early > 0) await pause(early);
      else if (i >= DIALING && overSeconds === 0) await opening[i - DIALING];
      const connection = this.add(seat, { reconnects });
      connections.push(connection);
      opening.push(within(CONNECT_MS, `connection ${connection.index}`, connection.open()));
    }
    await Promise.all(opening);
    return connections;
  }

  /** Adds a connection that is not open yet. */
  add(seat, options) {
    const connection = new Connection(this.added, this, options);
    this.added += 1;
    for (const { channel, member } of seat(connection.index)) connection.add(channel, member);
    this.connections.push(connection);
    return connection;
  }

  /** Removes a closed connection. */
  remove(connection) {
    this.connections = this.connections.filter((other) => other !== connection);
  }

  /** Publishes one event of the stream. `except`: a connection to exclude. */
  async publish(stream, { bytes = 100, except, info } = {}) {
    const { sequence, data } = this.#event(stream, bytes, { except });
    const extra = { ...(except && { socket_id: except.socketId }), ...(info && { info }) };
    const response = await api.trigger(stream.channels, EVENT, data, extra);
    this.#responded([[stream, sequence]], response);
    return response;
  }

  /** Publishes the next event of each of these streams in one batch. A stream may occur more than once. */
  async publishBatch(streams, { bytes = 100 } = {}) {
    const events = streams.map((stream) => ({ stream, ...this.#event(stream, bytes) }));
    const batch = events.map(({ stream, data }) => ({ name: EVENT, channel: stream.channel, data }));
    const response = await api.triggerBatch(batch);
    this.#responded(events.map(({ stream, sequence }) => [stream, sequence]), response);
    return response;
  }

  /** Sends one client event of the stream from its sender. There is no response: an event counts as accepted if the socket was open. */
  sendClientEvent(stream, { bytes = 100 } = {}) {
    const sender = this.connections[stream.sender];
    const { member } = sender.subscriptions.get(stream.channel);
    const { sequence, data } = this.#event(stream, bytes, { from: member && member.id });
    const isSent = sender.trigger(stream.channel, CLIENT_EVENT, JSON.parse(data));
    if (isSent) this.#responded([[stream, sequence]], { status: 200 });
  }

  /** Waits until all expected events have arrived, or no more events arrive. */
  async settle() {
    this.lastArrival = Date.now();
    const isOver = () => this.#isComplete() || Date.now() - this.lastArrival > PATIENCE_MS;
    await eventually(Infinity, 20, isOver);
    await pause(QUIET_MS);
  }

  /** Waits, closes all connections, and records all faults. Must be called once, at the end. */
  async finish() {
    await this.settle();
    const enabled = this.connections.filter(({ isEnabled }) => isEnabled);
    metrics.absent.add(enabled.filter(({ isWhole }) => !isWhole).length);
    await within(CONNECT_MS, 'closing', Promise.all(this.connections.map((connection) => this.#closeConnection(connection))));
    metrics.published.add(this.published);
    metrics.delivered.add(this.delivered);
    // Adds zero, so that the report also contains faults that did not occur.
    for (const fault of metrics.FAULTS) fault.add(0);
    metrics.completed.add(1);
  }

  // --- Listener of connections

  subscribed(subscription) {
    const { connection, channel } = subscription;
    subscription.tracks.clear();
    for (const stream of this.streams.get(channel) || []) {
      if (stream.sender !== connection.index) subscription.tracks.set(stream.id, new Track(stream, connection.socketId));
    }
  }

  event(subscription, frame, at) {
    this.lastArrival = Date.now();
    if (frame.event !== EVENT && frame.event !== CLIENT_EVENT) {
      metrics.misdirected.add(1);
      return;
    }
    const { stream, sequence, sent, from } = JSON.parse(frame.data);
    const track = subscription.tracks.get(stream);
    // On presence channels the server adds the sender's user id to client events.
    const verdict = track === undefined || from !== frame.user_id ? MISDIRECTED : track.arrived(sequence);
    if (verdict !== FRESH) FAULTS[verdict].add(1);
    // A reordered event has also been delivered.
    if (verdict === FRESH || verdict === REORDERED) {
      this.delivered += 1;
      metrics.deliveryLatency.add(at - sent);
    }
  }

  /** Counts events that the subscription missed as lost. Later events are not expected. */
  ended(subscription) {
    this.#count(subscription, Date.now());
  }

  // --- Details

  #event(stream, bytes, { except, from } = {}) {
    const sequence = stream.begin(except && except.socketId);
    const payload = { stream: stream.id, sequence, sent: Date.now(), from, padding: '' };
    payload.padding = 'x'.repeat(Math.max(0, bytes - JSON.stringify(payload).length));
    return { sequence, data: JSON.stringify(payload) };
  }

  #responded(events, { status }) {
    if (status !== 200) return;
    for (const [stream, sequence] of events) stream.accepted(sequence);
    this.published += events.length;
  }

  #isComplete() {
    return this.#tracks().every((track) => track.isComplete || track.lost() === 0);
  }

  #tracks() {
    const subscriptions = this.connections.flatMap((connection) => [...connection.subscriptions.values()]);
    return subscriptions.filter(({ isConfirmed }) => isConfirmed).flatMap(({ tracks }) => [...tracks.values()]);
  }

  /** Closes a connection. All accepted events count as expected, however late they were published. */
  #closeConnection(connection) {
    for (const subscription of connection.subscriptions.values()) {
      if (subscription.isConfirmed) this.#count(subscription, Infinity);
    }
    return connection.close();
  }

  #count(subscription, endedAt) {
    for (const track of subscription.tracks.values()) {
      const lost = track.lost(endedAt);
      if (lost > 0) metrics.lost.add(lost, { channel: subscription.channel.split('-')[0] });
    }
    subscription.tracks.clear();
  }
}
