// A plain WebSocket, for details that the client libraries hide: exact frames, close codes, subprotocols.

import assert from 'node:assert/strict';

import { within } from './waiting.mjs';

/** A WebSocket whose frames are read one by one. */
export class RawSocket {
  #socket;
  #frames = [];
  #waiting = [];

  constructor(socket) {
    this.#socket = socket;
    this.opened = within(new Promise((settle) => socket.once('open', settle)), () => 'the WebSocket to open');
    this.opened.catch(() => {});
    /** Resolves with `{ code, reason }` when the server closes the connection. */
    this.closed = new Promise((settle) => socket.once('close', (code, reason) => settle({ code, reason: reason.toString() })));
    socket.on('error', () => {});
    socket.on('message', (data, isBinary) => {
      const frame = { ...JSON.parse(data.toString()), isBinary };
      const waiter = this.#waiting.shift();
      if (waiter) waiter(frame);
      else this.#frames.push(frame);
    });
  }

  /** The subprotocol that the server selected, or `''`. */
  get protocol() {
    return this.#socket.protocol;
  }

  /** Waits for the next frame and parses it. Its `data` is not decoded. */
  async next() {
    const { isBinary, ...frame } = await this.#take();
    assert.equal(isBinary, false, 'the server sends only text frames');
    return frame;
  }

  #take() {
    if (this.#frames.length > 0) return this.#frames.shift();
    return within(new Promise((settle) => this.#waiting.push(settle)), () => 'the next frame on a WebSocket');
  }

  /** Waits for `connection_established` and returns the socket id. */
  async established() {
    const { event, data } = await this.next();
    assert.equal(event, 'pusher:connection_established');
    return JSON.parse(data).socket_id;
  }

  send(frame) {
    this.#socket.send(typeof frame === 'string' ? frame : JSON.stringify(frame));
  }

  /** Sends a WebSocket ping and resolves with the payload of the pong. */
  async ping(payload) {
    const pong = new Promise((settle) => this.#socket.once('pong', (data) => settle(data.toString())));
    this.#socket.ping(payload);
    return within(pong, () => 'a WebSocket pong');
  }

  terminate() {
    this.#socket.terminate();
  }
}
