// The start and the end of connections: refusals, limits, restarts, and pings.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { APPS, connected, joined, marked, needsApp, needsProcess, needsWebSockets, next, nextFrame, pretendOrigin, serve, settled, start, subscribe, unique } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();

/**
 * The deadline for pusher-js to reconnect. pusher-js repeats a refused first attempt only after the 15 s timeout of its strategy, which
 * exceeds the usual deadline.
 */
const RECONNECT_DEADLINE_MS = 60_000;

/** Waits until pusher-js stops to reconnect: it is `disconnected` and has no timer or attempt left. */
async function expectGivenUp(client, code) {
  if (client.connection.state !== 'disconnected') await next(client.connection, 'disconnected');
  const [{ error }] = client.errors.filter(({ type }) => type === 'WebSocketError');
  assert.equal(error.data.code, code);
  assert.ok(error.data.message, 'the error has a message');
  const { state, retryTimer, runner, connection } = client.connection;
  assert.equal(state, 'disconnected');
  assert.deepEqual([retryTimer, runner, connection].filter(Boolean), []);
}

/** Asserts that a plain socket receives `pusher:error` with this code, then a close frame with the same code. */
async function expectRefused(socket, code) {
  const { event, data } = await socket.next();
  assert.equal(event, 'pusher:error');
  assert.equal(data.code, code);
  assert.equal(typeof data.message, 'string');
  assert.equal((await socket.closed).code, code);
}

test('an unknown key is refused with 4001 and pusher-js does not retry', async (t) => {
  await expectGivenUp(carillon.client(t, { app: unique('no-such-key') }), 4001);
  await expectRefused(carillon.socket(t, { app: unique('no-such-key') }), 4001);
});

test('a page of another origin is refused with 4009 and pusher-js does not retry', { ...needsApp('strict'), ...needsWebSockets }, async (t) => {
  pretendOrigin(t, 'https://evil.example');
  await expectGivenUp(carillon.client(t, { app: 'strict' }), 4009);
  for (const origin of ['https://evil.example', 'https://good.example.evil.example', 'https://notgood.example', 'https://sub.good.example', 'null']) {
    await expectRefused(carillon.socket(t, { app: 'strict', origin }), 4009);
  }
});

test('a page of an allowed origin connects', { ...needsApp('strict'), ...needsWebSockets }, async (t) => {
  for (const origin of ['https://good.example', 'http://good.example:8000']) {
    pretendOrigin(t, origin);
    const client = await connected(carillon.client(t, { app: 'strict' }));
    client.disconnect();
  }
});

test('a connection over the limit of its app is refused with 4004 until another one closes', { ...needsProcess, ...needsWebSockets }, async (t) => {
  const carillon = await start();
  t.after(() => carillon.stop());
  const origin = 'https://good.example';
  pretendOrigin(t, origin);
  const [first, second] = [carillon.client(t, { app: 'strict' }), carillon.client(t, { app: 'strict' })];
  const name = unique('private-quota');
  const channel = await subscribe(first, name);
  await subscribe(second, name);
  await expectGivenUp(carillon.client(t, { app: 'strict' }), 4004);
  await expectRefused(carillon.socket(t, { app: 'strict', origin }), 4004);

  // Refused sockets do not count, and a closed socket frees capacity. The client has no signal for this and therefore retries.
  second.disconnect();
  for (let attempt = 0; ; attempt += 1) {
    const socket = carillon.socket(t, { app: 'strict', origin });
    const { event } = await socket.next();
    if (event === 'pusher:connection_established') break;
    assert.ok(attempt < 1_000, 'the capacity of a closed socket becomes free');
    await socket.closed;
  }
  await marked(carillon.sender('strict'), channel);
});

test('protocol versions 4 to 7 are accepted, others are refused', async (t) => {
  for (const query of ['protocol=7', 'protocol=6', 'protocol=5', 'protocol=4', '']) {
    assert.match(await carillon.socket(t, { query }).established(), /^\d+\.\d+$/);
  }
  await expectRefused(carillon.socket(t, { query: 'protocol=3' }), 4007);
  await expectRefused(carillon.socket(t, { query: 'protocol=8' }), 4007);
  await expectRefused(carillon.socket(t, { query: 'protocol=seven' }), 4006);
});

test('the subprotocol of the Swift client is accepted, and none is sent without an offer', async (t) => {
  const swift = carillon.socket(t, { protocols: ['pusher-channels-protocol-7'] });
  await swift.established();
  assert.equal(swift.protocol, 'pusher-channels-protocol-7');
  const plain = carillon.socket(t);
  await plain.established();
  assert.equal(plain.protocol, '');
});

test('the server responds to pusher:ping and to WebSocket pings', async (t) => {
  const socket = carillon.socket(t);
  await socket.established();
  socket.send({ event: 'pusher:ping', data: {} });
  const { event, data } = await socket.next();
  assert.equal(event, 'pusher:pong');
  assert.deepEqual(data ?? {}, {});
  assert.equal(await socket.ping('payload'), 'payload');
});

test('pusher-js pings an idle connection and keeps it', needsWebSockets, async (t) => {
  const client = carillon.client(t, { options: { activityTimeout: 50, pongTimeout: 5_000 } });
  const states = [];
  await connected(client);
  client.connection.bind('state_change', ({ current }) => states.push(current));
  for (let round = 0; round < 5; round += 1) await nextFrame(client, ({ event }) => event === 'pusher:pong', 'pusher:pong');
  assert.deepEqual(states, []);
});

test('a client that reconnects has a new socket id and the same channels', async (t) => {
  const client = carillon.client(t);
  const channel = await subscribe(client, unique('again'));
  const before = client.connection.socket_id;
  client.disconnect();
  client.connect();
  await next(channel, 'pusher:subscription_succeeded');
  assert.notEqual(client.connection.socket_id, before);
  await marked(sender, channel);
});

test('events are not lost while many clients connect and disconnect', async (t) => {
  const name = unique('churn');
  const stays = await subscribe(carillon.client(t), name);
  for (let round = 0; round < 5; round += 1) {
    const clients = await Promise.all(Array.from({ length: 20 }, () => connected(carillon.client(t))));
    const channels = await Promise.all(clients.map((client) => subscribe(client, name)));
    await marked(sender, stays, ...channels);
    for (const client of clients) client.disconnect();
  }
  await settled(stays.pusher);
});

test('one socket can subscribe to many channels', async (t) => {
  const client = await connected(carillon.client(t));
  const channels = Array.from({ length: 90 }, () => client.subscribe(unique('hold')));
  await Promise.all(channels.map(joined));
  const received = channels.map((channel) => next(channel, 'e'));
  await sender.trigger(channels.map(({ name }) => name), 'e', 1);
  assert.deepEqual(await Promise.all(received), channels.map(() => 1));
});

// Concurrent, because each test waits for pusher-js to retry.
test('a server that stops and starts again', { ...needsProcess, concurrency: true }, async (t) => {
  // In a cluster, clients reconnect to other nodes at once. A single process requests a delay of one second.
  const code = process.env.BINARY_IN_CLUSTER ? 4200 : 4100;
  const ways = [['SIGTERM', code], ['SIGINT', code], ['SIGKILL', 1006]];
  await Promise.all(ways.map(([signal, code]) => t.test(`after ${signal} clients receive ${code} and reconnect to the restarted server`, (t) => expectReturn(t, signal, code))));
});

async function expectReturn(t, signal, code) {
  const first = await start();
  t.after(() => first.kill('SIGKILL'));
  const user = { id: 'ana', info: { name: 'Ana' } };
  const clients = [first.client(t), first.client(t, { user })];
  const channel = await subscribe(clients[0], unique('survivor'));
  const room = await subscribe(clients[1], unique('presence-survivor'));
  const socket = first.socket(t);
  await socket.established();
  const before = clients.map((client) => client.connection.socket_id);

  const left = clients.map((client) => next(client.connection, 'connecting'));
  const back = [channel, room].map((each) => next(each, 'pusher:subscription_succeeded', RECONNECT_DEADLINE_MS));
  const how = await first.kill(signal);
  assert.deepEqual(how, signal === 'SIGKILL' ? { code: null, signal } : { code: 0, signal: null });
  assert.equal((await socket.closed).code, code);

  const second = await start({ port: first.port });
  t.after(() => second.stop());
  await Promise.all([...left, ...back]);
  for (const [n, client] of clients.entries()) {
    assert.equal(client.connection.state, 'connected');
    assert.notEqual(client.connection.socket_id, before[n]);
  }
  assert.deepEqual(room.members.me, user);
  await marked(second.sender(), channel, room);
}

test('the admin listener responds on a separate port', needsProcess, async () => {
  for (const path of ['/livez', '/readyz', '/metrics']) {
    assert.equal((await fetch(carillon.adminUrl + path)).status, 200, path);
  }
  const metrics = await (await fetch(`${carillon.adminUrl}/metrics`)).text();
  assert.ok(!metrics.includes(APPS.app.secret));
});
