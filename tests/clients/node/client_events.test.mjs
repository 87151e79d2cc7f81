// Client events: permissions, receivers, and errors for the sending client.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connected, joined, marked, needsApp, next, nextCall, nextError, pretendOrigin, record, sendsInOrder, serve, settled, subscribe, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();

/** Subscribes one client per entry of `options` to a channel. Returns the channel objects. */
async function pair(t, name, options = [{}, {}]) {
  return Promise.all(options.map((each) => subscribe(carillon.client(t, each), name)));
}

test('a whisper through Echo reaches the others and not its sender', async (t) => {
  const room = unique('chat');
  const [author, reader] = [carillon.echo(t).private(room), carillon.echo(t).private(room)];
  await Promise.all([joined(author.subscription), joined(reader.subscription)]);
  const own = record(author.subscription);

  const received = new Promise((settle) => reader.listenForWhisper('typing', settle));
  const later = next(reader.subscription, 'client-typing');
  author.whisper('typing', { name: 'Ana' });
  assert.deepEqual(await later, { name: 'Ana' });
  assert.deepEqual(await received, { name: 'Ana' });

  await marked(sender, author.subscription, reader.subscription);
  assert.deepEqual(without(own), []);
});

test('on a presence channel the event has the verified user id', async (t) => {
  const [ana, bo] = await pair(t, unique('presence-chat'), [{ user: { id: 'ana' } }, { user: { id: 'bo' } }]);
  const received = nextCall(bo, 'client-typing');
  ana.trigger('client-typing', { x: 1, user_id: 'forged' });
  assert.deepEqual(await received, [{ x: 1, user_id: 'forged' }, { user_id: 'ana' }]);
});

test('on a private channel there is no user id', async (t) => {
  const name = unique('private-chat');
  const [author] = await pair(t, name, [{}]);
  const socket = carillon.socket(t);
  const socketId = await socket.established();
  socket.send({ event: 'pusher:subscribe', data: { channel: name, ...sender.authorizeChannel(socketId, name) } });
  await socket.next();
  author.trigger('client-typing', { x: 1 });
  assert.deepEqual(await socket.next(), { event: 'client-typing', channel: name, data: '{"x":1}' });
  author.trigger('client-typing', '{"already":  "text"}');
  assert.deepEqual(await socket.next(), { event: 'client-typing', channel: name, data: '{"already":  "text"}' });
});

test('other sockets of the same user receive the event', async (t) => {
  const [first, second] = await pair(t, unique('presence-tabs'), [{ user: { id: 'ana' } }, { user: { id: 'ana' } }]);
  const received = nextCall(second, 'client-typing');
  first.trigger('client-typing', [1]);
  assert.deepEqual(await received, [[1], { user_id: 'ana' }]);
});

test('client events on a public channel are rejected', async (t) => {
  const [author, reader] = await pair(t, unique('public-chat'));
  const [error, seen] = [nextError(author.pusher), record(reader)];
  author.trigger('client-typing', {});
  await error;
  await marked(sender, author, reader);
  assert.deepEqual(without(seen), []);
  assert.equal(author.pusher.connection.state, 'connected');
});

test('client events on an encrypted channel are rejected', async (t) => {
  const [author, reader] = await pair(t, unique('private-encrypted-chat'));
  const frames = [];
  reader.pusher.connection.bind('message', ({ event }) => event.startsWith('client-') && frames.push(event));
  const error = nextError(author.pusher);
  author.pusher.connection.send_event('client-typing', {}, author.name);
  await error;
  await marked(sender, reader);
  assert.deepEqual(frames, []);
});

test('only a subscriber may send client events', async (t) => {
  const reader = await subscribe(carillon.client(t), unique('private-chat'));
  const seen = record(reader);
  const outsider = await connected(carillon.client(t));
  const error = nextError(outsider);
  outsider.connection.send_event('client-typing', {}, reader.name);
  await error;

  await subscribe(outsider, reader.name);
  outsider.unsubscribe(reader.name);
  await settled(outsider);
  const errorAfterUnsubscribe = nextError(outsider);
  outsider.connection.send_event('client-typing', {}, reader.name);
  await errorAfterUnsubscribe;
  await marked(sender, reader);
  assert.deepEqual(without(seen), []);
});

for (const event of ['pusher_internal:member_added', 'App\\Events\\OrderShipped', 'pusher:cache_miss', 'Client-typing', 'client', '']) {
  test(`a client cannot send \`${event}\` to other clients`, async (t) => {
    const [author, reader] = await pair(t, unique('presence-chat'), [{ user: { id: 'ana' } }, { user: { id: 'bo' } }]);
    await marked(sender, reader);
    const frames = [];
    reader.pusher.connection.bind('message', (frame) => frame.event !== 'marker' && frame.event !== 'pusher:pong' && frames.push(frame));
    author.pusher.connection.send_event(event, { user_id: 'mallory' }, author.name);
    await settled(author.pusher);
    await marked(sender, reader);
    assert.deepEqual(frames, []);
  });
}

test('an app without client events returns an error', needsApp('strict'), async (t) => {
  pretendOrigin(t, 'https://good.example');
  const [author, reader] = await pair(t, unique('private-chat'), [{ app: 'strict' }, { app: 'strict' }]);
  const [error, seen] = [nextError(author.pusher), record(reader)];
  author.trigger('client-typing', {});
  assert.equal(typeof (await error).message, 'string');
  await marked(carillon.sender('strict'), author, reader);
  assert.deepEqual(without(seen), []);
  assert.equal(author.pusher.connection.state, 'connected');
});

test('more than ten client events per second are rejected with 4301, and the socket stays open', async (t) => {
  const [author, reader] = await pair(t, unique('private-burst'));
  const seen = record(reader);
  const error = nextError(author.pusher);
  for (let n = 0; n < 40; n += 1) author.trigger('client-n', n);
  const { code, message } = await error;
  assert.equal(code, 4301);
  assert.equal(message, 'The rate limit for sending client events exceeded the quota.');

  await settled(author.pusher);
  await marked(sender, author, reader);
  const delivered = without(seen).map(({ data }) => data ?? 0);
  assert.ok(delivered.length >= 10 && delivered.length < 40, `${delivered.length} of 40 were delivered`);
  assert.equal(new Set(delivered).size, delivered.length, 'every event arrives once');
  if (sendsInOrder) {
    assert.deepEqual(delivered.slice(0, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual(delivered, delivered.toSorted((a, b) => a - b));
  }
  assert.equal(author.pusher.connection.state, 'connected');
});

test('the rate limit is per socket', async (t) => {
  const [loud, quiet, reader] = await pair(t, unique('private-burst'), [{}, {}, {}]);
  const error = nextError(loud.pusher);
  for (let n = 0; n < 20; n += 1) loud.trigger('client-n', n);
  await error;
  const received = next(reader, 'client-hello');
  quiet.trigger('client-hello', {});
  await received;
  assert.deepEqual(quiet.pusher.errors, []);
});

test('data over 10 KB and names over 200 characters are rejected', async (t) => {
  const [author, reader] = await pair(t, unique('private-large'));
  const seen = record(reader);
  const tooMuch = nextError(author.pusher);
  author.trigger('client-large', 'x'.repeat(10_241));
  await tooMuch;
  const tooLong = nextError(author.pusher);
  author.trigger('client-'.padEnd(201, 'x'), {});
  await tooLong;

  const received = next(reader, 'client-'.padEnd(200, 'x'));
  author.trigger('client-'.padEnd(200, 'x'), 'y'.repeat(10_000));
  assert.equal((await received).length, 10_000);
  assert.equal(without(seen).length, 1);
});
