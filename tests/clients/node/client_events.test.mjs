// Client events: who may send them, to whom they go, and what the sender hears when they are refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connected, joined, marked, needsApp, next, nextCall, nextError, pretendOrigin, record, sendsInOrder, serve, settled, subscribe, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();

/** Two clients on one channel, as channel objects. */
async function pair(t, name, options = [{}, {}]) {
  return Promise.all(options.map((each) => subscribe(carillon.client(t, each), name)));
}

test('a whisper through Echo reaches the others and not its sender', async (t) => {
  const room = unique('chat');
  const [speaker, listener] = [carillon.echo(t).private(room), carillon.echo(t).private(room)];
  await Promise.all([joined(speaker.subscription), joined(listener.subscription)]);
  const own = record(speaker.subscription);

  const heard = new Promise((settle) => listener.listenForWhisper('typing', settle));
  const later = next(listener.subscription, 'client-typing');
  speaker.whisper('typing', { name: 'Ana' });
  assert.deepEqual(await later, { name: 'Ana' });
  assert.deepEqual(await heard, { name: 'Ana' });

  await marked(sender, speaker.subscription, listener.subscription);
  assert.deepEqual(without(own), []);
});

test('on a presence channel the receiver learns the verified user id', async (t) => {
  const [ana, bo] = await pair(t, unique('presence-chat'), [{ user: { id: 'ana' } }, { user: { id: 'bo' } }]);
  const heard = nextCall(bo, 'client-typing');
  ana.trigger('client-typing', { x: 1, user_id: 'forged' });
  assert.deepEqual(await heard, [{ x: 1, user_id: 'forged' }, { user_id: 'ana' }]);
});

test('on a private channel there is no user id', async (t) => {
  const name = unique('private-chat');
  const [speaker] = await pair(t, name, [{}]);
  const socket = carillon.socket(t);
  const socketId = await socket.established();
  socket.send({ event: 'pusher:subscribe', data: { channel: name, ...sender.authorizeChannel(socketId, name) } });
  await socket.next();
  speaker.trigger('client-typing', { x: 1 });
  assert.deepEqual(await socket.next(), { event: 'client-typing', channel: name, data: '{"x":1}' });
  speaker.trigger('client-typing', '{"already":  "text"}');
  assert.deepEqual(await socket.next(), { event: 'client-typing', channel: name, data: '{"already":  "text"}' });
});

test('other sockets of the same user do hear the event', async (t) => {
  const [first, second] = await pair(t, unique('presence-tabs'), [{ user: { id: 'ana' } }, { user: { id: 'ana' } }]);
  const heard = nextCall(second, 'client-typing');
  first.trigger('client-typing', [1]);
  assert.deepEqual(await heard, [[1], { user_id: 'ana' }]);
});

test('a public channel carries no client events', async (t) => {
  const [speaker, listener] = await pair(t, unique('public-chat'));
  const [error, seen] = [nextError(speaker.pusher), record(listener)];
  speaker.trigger('client-typing', {});
  await error;
  await marked(sender, speaker, listener);
  assert.deepEqual(without(seen), []);
  assert.equal(speaker.pusher.connection.state, 'connected');
});

test('an encrypted channel carries no client events', async (t) => {
  const [speaker, listener] = await pair(t, unique('private-encrypted-chat'));
  const frames = [];
  listener.pusher.connection.bind('message', ({ event }) => event.startsWith('client-') && frames.push(event));
  const error = nextError(speaker.pusher);
  speaker.pusher.connection.send_event('client-typing', {}, speaker.name);
  await error;
  await marked(sender, listener);
  assert.deepEqual(frames, []);
});

test('only a subscriber may send', async (t) => {
  const listener = await subscribe(carillon.client(t), unique('private-chat'));
  const seen = record(listener);
  const outsider = await connected(carillon.client(t));
  const error = nextError(outsider);
  outsider.connection.send_event('client-typing', {}, listener.name);
  await error;

  await subscribe(outsider, listener.name);
  outsider.unsubscribe(listener.name);
  await settled(outsider);
  const errorAfterLeaving = nextError(outsider);
  outsider.connection.send_event('client-typing', {}, listener.name);
  await errorAfterLeaving;
  await marked(sender, listener);
  assert.deepEqual(without(seen), []);
});

for (const event of ['pusher_internal:member_added', 'App\\Events\\OrderShipped', 'pusher:cache_miss', 'Client-typing', 'client', '']) {
  test(`a client cannot send \`${event}\` to others`, async (t) => {
    const [speaker, listener] = await pair(t, unique('presence-chat'), [{ user: { id: 'ana' } }, { user: { id: 'bo' } }]);
    await marked(sender, listener);
    const frames = [];
    listener.pusher.connection.bind('message', (frame) => frame.event !== 'marker' && frame.event !== 'pusher:pong' && frames.push(frame));
    speaker.pusher.connection.send_event(event, { user_id: 'mallory' }, speaker.name);
    await settled(speaker.pusher);
    await marked(sender, listener);
    assert.deepEqual(frames, []);
  });
}

test('an app that does not allow client events answers with an error', needsApp('strict'), async (t) => {
  pretendOrigin(t, 'https://good.example');
  const [speaker, listener] = await pair(t, unique('private-chat'), [{ app: 'strict' }, { app: 'strict' }]);
  const [error, seen] = [nextError(speaker.pusher), record(listener)];
  speaker.trigger('client-typing', {});
  assert.equal(typeof (await error).message, 'string');
  await marked(carillon.sender('strict'), speaker, listener);
  assert.deepEqual(without(seen), []);
  assert.equal(speaker.pusher.connection.state, 'connected');
});

test('more than ten in a second cost an error 4301 and the rest of the burst, never the socket', async (t) => {
  const [speaker, listener] = await pair(t, unique('private-burst'));
  const seen = record(listener);
  const error = nextError(speaker.pusher);
  for (let n = 0; n < 40; n += 1) speaker.trigger('client-n', n);
  const { code, message } = await error;
  assert.equal(code, 4301);
  assert.equal(message, 'The rate limit for sending client events exceeded the quota.');

  await settled(speaker.pusher);
  await marked(sender, speaker, listener);
  const delivered = without(seen).map(({ data }) => data ?? 0);
  assert.ok(delivered.length >= 10 && delivered.length < 40, `${delivered.length} of 40 were delivered`);
  assert.equal(new Set(delivered).size, delivered.length, 'each once');
  if (sendsInOrder) {
    assert.deepEqual(delivered.slice(0, 10), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert.deepEqual(delivered, delivered.toSorted((a, b) => a - b));
  }
  assert.equal(speaker.pusher.connection.state, 'connected');
});

test('the rate is counted per socket', async (t) => {
  const [loud, quiet, listener] = await pair(t, unique('private-burst'), [{}, {}, {}]);
  const error = nextError(loud.pusher);
  for (let n = 0; n < 20; n += 1) loud.trigger('client-n', n);
  await error;
  const heard = next(listener, 'client-hello');
  quiet.trigger('client-hello', {});
  await heard;
  assert.deepEqual(quiet.pusher.errors, []);
});

test('data over 10 KB and names over 200 characters are refused', async (t) => {
  const [speaker, listener] = await pair(t, unique('private-large'));
  const seen = record(listener);
  const tooMuch = nextError(speaker.pusher);
  speaker.trigger('client-large', 'x'.repeat(10_241));
  await tooMuch;
  const tooLong = nextError(speaker.pusher);
  speaker.trigger('client-'.padEnd(201, 'x'), {});
  await tooLong;

  const heard = next(listener, 'client-'.padEnd(200, 'x'));
  speaker.trigger('client-'.padEnd(200, 'x'), 'y'.repeat(10_000));
  assert.equal((await heard).length, 10_000);
  assert.equal(without(seen).length, 1);
});
