// The connections of one virtual user, what is published to them, and the verdict on what arrived.
//
// A virtual user shares nothing with others, so a room has channels of its own, publishes to them itself, and knows
// exactly what is owed to whom.

import exec from 'k6/execution';
import * as api from './api.js';
import * as metrics from './metrics.js';
import { Connection } from './pusher.js';
import { DOUBLED, FRESH, MISDIRECTED, REORDERED, Stream, Track } from './stream.js';
import { eventually, pause, within } from './time.js';

/** Nothing arriving for this long means that nothing more will. */
const PATIENCE_MS = 10000;
/** After everything has come: repeats may still follow. */
const QUIET_MS = 300;
/** Until a connection must have all of its subscriptions. */
const CONNECT_MS = 30000;
/** Connections of one room that are dialled at a time, unless they come at a pace. */
const DIALLING = 50;

/** What events of a room are called; others on its channels are nobody's. */
const EVENT = 'event';
const CLIENT_EVENT = 'client-event';

const FAULTS = { [DOUBLED]: metrics.doubled, [REORDERED]: metrics.reordered, [MISDIRECTED]: metrics.misdirected };

export class Room {
  /** `name`: where several virtual users share a room; else one of its own. */
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

  /** A channel of this room alone. */
  channel(name) {
    return `${name}-${this.name}`;
  }

  /**
   * A row of events on these channels; to be made before anybody subscribes to them. `sender`: the index of the connection
   * that sends them as client events.
   */
  stream(channels, sender) {
    const names = [].concat(channels);
    const stream = new Stream(`${names[0]}/${sender === undefined ? '' : sender}`, names, sender);
    for (const name of names) this.streams.set(name, [...(this.streams.get(name) || []), stream]);
    return stream;
  }

  /**
   * Connects and subscribes. `seat(index)`: what a connection subscribes to, as `{ channel, member }` each. `overSeconds`:
   * how long to take for it, evenly; 0 for as fast as it goes. Comes to the new connections.
   */
  async connect(count, seat, { overSeconds = 0, comesBack = false } = {}) {
    const connections = [];
    const opening = [];
    const begin = Date.now();
    for (let i = 0; i < count; i += 1) {
      const early = begin + (i * overSeconds * 1000) / count - Date.now();
      if (early > 0) await pause(early);
      else if (i >= DIALLING && overSeconds === 0) await opening[i - DIALLING];
      const connection = this.add(seat, { comesBack });
      connections.push(connection);
      opening.push(within(CONNECT_MS, `connection ${connection.index}`, connection.open()));
    }
    await Promise.all(opening);
    return connections;
  }

  /** A connection that is not opened yet. */
  add(seat, options) {
    const connection = new Connection(this.added, this, options);
    this.added += 1;
    for (const { channel, member } of seat(connection.index)) connection.want(channel, member);
    this.connections.push(connection);
    return connection;
  }

  /** A connection that is closed and will not be needed again. */
  forget(connection) {
    this.connections = this.connections.filter((other) => other !== connection);
  }

  /** Publishes one event of the stream. `except`: a connection that is to be left out. */
  async publish(stream, { bytes = 100, except, info } = {}) {
    const { sequence, data } = this.#event(stream, bytes, { except });
    const extra = { ...(except && { socket_id: except.socketId }), ...(info && { info }) };
    const answer = await api.trigger(stream.channels, EVENT, data, extra);
    this.#answered([[stream, sequence]], answer);
    return answer;
  }

  /** Publishes the next event of each of these streams at once; a stream may stand there more than once. */
  async publishBatch(streams, { bytes = 100 } = {}) {
    const events = streams.map((stream) => ({ stream, ...this.#event(stream, bytes) }));
    const batch = events.map(({ stream, data }) => ({ name: EVENT, channel: stream.channel, data }));
    const answer = await api.triggerBatch(batch);
    this.#answered(events.map(({ stream, sequence }) => [stream, sequence]), answer);
    return answer;
  }

  /** Sends one event of the stream from its sender. There is no answer: what an open socket took is owed. */
  whisper(stream, { bytes = 100 } = {}) {
    const sender = this.connections[stream.sender];
    const { member } = sender.subscriptions.get(stream.channel);
    const { sequence, data } = this.#event(stream, bytes, { from: member && member.id });
    const isSent = sender.trigger(stream.channel, CLIENT_EVENT, JSON.parse(data));
    if (isSent) this.#answered([[stream, sequence]], { status: 200 });
  }

  /** Waits until everything has come that is owed, or nothing comes any more. */
  async settle() {
    this.lastArrival = Date.now();
    const isOver = () => this.#isComplete() || Date.now() - this.lastArrival > PATIENCE_MS;
    await eventually(Infinity, 20, isOver);
    await pause(QUIET_MS);
  }

  /** Waits, closes everything, and says what was wrong. To be called once, at the end. */
  async judge() {
    await this.settle();
    const wanted = this.connections.filter(({ isWanted }) => isWanted);
    metrics.absent.add(wanted.filter(({ isWhole }) => !isWhole).length);
    await within(CONNECT_MS, 'closing', Promise.all(this.connections.map((connection) => this.#leave(connection))));
    metrics.published.add(this.published);
    metrics.delivered.add(this.delivered);
    // Those that never happened shall stand in the report, too.
    for (const fault of metrics.FAULTS) fault.add(0);
    metrics.judged.add(1);
  }

  // --- What a connection tells

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
    // Client events on presence channels name the user that sent them, as the server knows it.
    const verdict = track === undefined || from !== frame.user_id ? MISDIRECTED : track.arrived(sequence);
    if (verdict !== FRESH) FAULTS[verdict].add(1);
    // What comes late has come, all the same.
    if (verdict === FRESH || verdict === REORDERED) {
      this.delivered += 1;
      metrics.deliveryLatency.add(at - sent);
    }
  }

  /** What the subscription missed while it stood is lost; what comes later is not for it. */
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

  #answered(events, { status }) {
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

  /** At the end everything is owed, however late it was published. */
  #leave(connection) {
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
