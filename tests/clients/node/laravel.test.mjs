// A Laravel application: Echo with the configuration of its stubs, broadcasts with the bytes of its PusherBroadcaster, and the two
// authorization endpoints.

import assert from 'node:assert/strict';
import { createHash, createHmac } from 'node:crypto';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { APPS, Echo, Pusher, connected, joined, marked, needsApp, next, record, serve, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();
const { key, secret } = APPS.app;

/** Encodes JSON like PHP's `json_encode`, with escaped slashes and non-ASCII characters. */
function phpJson(value) {
  return JSON.stringify(value)
    .replaceAll('/', '\\/')
    .replace(/[\u0080-\uffff]/g, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

const hmac = (text, key = secret) => createHmac('sha256', key).update(text).digest('hex');

/** Sends one request of pusher-http-php: parameters in its order, values escaped like Guzzle does. */
async function post(payload, { id: appId, key, secret } = APPS.app) {
  const text = phpJson(payload);
  const path = `/apps/${appId}/events`;
  const params = {
    auth_key: key,
    auth_timestamp: String(Math.floor(Date.now() / 1000)),
    auth_version: '1.0',
    body_md5: createHash('md5').update(text).digest('hex'),
  };
  const signed = Object.keys(params).sort().map((name) => `${name}=${params[name]}`).join('&');
  const query = new URLSearchParams({ ...params, auth_signature: hmac(`POST\n${path}\n${signed}`, secret) });
  const response = await fetch(`${carillon.url}${path}?${query}`, {
    method: 'POST',
    body: text,
    headers: { 'Content-Type': 'application/json', 'X-Pusher-Library': 'pusher-http-php 7.2.6' },
  });
  assert.equal(response.status, 200, await response.clone().text());
  assert.equal(await response.text(), '{}', 'pusher-http-php expects an object');
}

/** Publishes like Laravel's `broadcast()`: channels in chunks of 100, a single channel as `channel`, and the payload as JSON text. */
async function broadcast(channels, name, payload, socketId, app) {
  for (let at = 0; at < channels.length; at += 100) {
    const chunk = channels.slice(at, at + 100);
    await post({
      name,
      data: phpJson(payload),
      ...(chunk.length === 1 ? { channel: chunk[0] } : { channels: chunk }),
      ...(socketId && { socket_id: socketId }),
    }, app);
  }
}

/** Waits for the next `event` on an Echo channel, with a name as for `listen`, and returns its data. */
const nextEvent = (channel, event) => next(channel.subscription, channel.eventFormatter.format(event));

test('the broadcasters `reverb` and `pusher` of Echo connect and receive a broadcast', async (t) => {
  for (const broadcaster of ['reverb', 'pusher']) {
    const echo = carillon.echo(t, { broadcaster });
    const channel = echo.channel(unique('orders'));
    const listened = new Promise((settle) => channel.listen('OrderShipped', settle));
    await joined(channel.subscription);
    assert.equal(echo.connectionStatus(), 'connected');
    await broadcast([channel.name], 'App\\Events\\OrderShipped', { order: { id: 1, note: 'a/b Zoë 🎉' } });
    assert.deepEqual(await listened, { order: { id: 1, note: 'a/b Zoë 🎉' } });
  }
});

test('the unchanged options of the Laravel stub work', async (t) => {
  const echo = new Echo({
    broadcaster: 'reverb',
    key,
    wsHost: carillon.host,
    wsPort: carillon.port,
    wssPort: carillon.port,
    forceTLS: false,
    enabledTransports: ['ws', 'wss'],
    Pusher,
  });
  t.after(() => echo.disconnect());
  await connected(echo.connector.pusher);
  await marked(sender, await joined(echo.channel(unique('news')).subscription));
});

test('a key with +, / and = works for pages, signatures and publishes', needsApp('random'), async (t) => {
  const echo = carillon.echo(t, { app: 'random', user: { id: '1', info: { name: 'Zoë' } } });
  const [room, orders] = [echo.join(unique('room')), echo.private(unique('orders'))];
  await Promise.all([room, orders].map((channel) => joined(channel.subscription)));
  await marked(carillon.sender('random'), room.subscription, orders.subscription);
  const received = nextEvent(orders, 'OrderShipped');
  await broadcast([orders.name], 'App\\Events\\OrderShipped', { id: 1 }, undefined, APPS.random);
  assert.deepEqual(await received, { id: 1 });
  const users = await carillon.sender('random').get({ path: `/channels/${room.name}/users` });
  assert.deepEqual(await users.json(), { users: [{ id: '1' }] });
});

test('channel names can contain dots', async (t) => {
  const name = `${unique('orders')}.1`;
  const channel = carillon.echo(t).private(name);
  await joined(channel.subscription);
  const received = nextEvent(channel, 'OrderShipped');
  await broadcast([`private-${name}`], 'App\\Events\\OrderShipped', { id: 1 });
  assert.deepEqual(await received, { id: 1 });
});

test('a broadcast to 150 channels is two requests and reaches each channel once', async (t) => {
  const tag = unique('many');
  const names = Array.from({ length: 150 }, (_, n) => `private-${tag}.${n}`);
  const echo = carillon.echo(t);
  const listeners = await Promise.all([0, 1, 98, 99, 100, 101, 148, 149].map((n) => joined(echo.private(`${tag}.${n}`).subscription)));
  const lists = listeners.map(record);
  await broadcast(names, 'App\\Events\\OrderShipped', { id: 1 });
  await marked(sender, ...listeners);
  for (const list of lists) assert.deepEqual(without(list), [{ event: 'App\\Events\\OrderShipped', data: { id: 1 } }]);
});

test('the second request of a broadcast to 101 channels has a single channel', async (t) => {
  const tag = unique('many');
  const channel = carillon.echo(t).channel(`${tag}.100`);
  await joined(channel.subscription);
  const received = nextEvent(channel, 'OrderShipped');
  await broadcast(Array.from({ length: 101 }, (_, n) => `${tag}.${n}`), 'App\\Events\\OrderShipped', { id: 1 });
  assert.deepEqual(await received, { id: 1 });
});

test('toOthers excludes the author', async (t) => {
  const room = unique('chat');
  const [author, reader] = [carillon.echo(t), carillon.echo(t)];
  const [own, other] = await Promise.all([author, reader].map((echo) => joined(echo.private(room).subscription)));
  const [onOwn, onOther] = [record(own), record(other)];
  await broadcast([`private-${room}`], 'App\\Events\\MessageSent', { text: 'hi' }, author.socketId());
  await marked(sender, own, other);
  assert.deepEqual(without(onOwn), []);
  assert.deepEqual(without(onOther), [{ event: 'App\\Events\\MessageSent', data: { text: 'hi' } }]);
});

test('broadcastAs, other namespaces and notifications work', async (t) => {
  const user = `App.Models.User.${unique('1')}`;
  const channel = carillon.echo(t).private(user);
  await joined(channel.subscription);

  const renamed = new Promise((settle) => channel.listen('.order.shipped', settle));
  await broadcast([`private-${user}`], 'order.shipped', { id: 1 });
  assert.deepEqual(await renamed, { id: 1 });

  const elsewhere = new Promise((settle) => channel.listen('.Shop\\Orders\\Shipped', settle));
  await broadcast([`private-${user}`], 'Shop\\Orders\\Shipped', { id: 2 });
  assert.deepEqual(await elsewhere, { id: 2 });

  const notified = new Promise((settle) => channel.notification(settle));
  const notification = { id: 'b7f1', type: 'App\\Notifications\\InvoicePaid', invoice: 3 };
  await broadcast([`private-${user}`], 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated', notification);
  assert.deepEqual(await notified, notification);
});

test('listenToAll receives every event of a channel', async (t) => {
  const channel = carillon.echo(t).channel(unique('all'));
  await joined(channel.subscription);
  const seen = [];
  channel.listenToAll((event, data) => seen.push([event, data]));
  await broadcast([channel.name], 'App\\Events\\OrderShipped', { id: 1 });
  await broadcast([channel.name], 'order.paid', { id: 2 });
  await marked(sender, channel.subscription);
  assert.deepEqual(seen.slice(0, 2), [['OrderShipped', { id: 1 }], ['.order.paid', { id: 2 }]]);
});

test('an empty payload arrives as the empty list that PHP encodes', async (t) => {
  const channel = carillon.echo(t).channel(unique('empty'));
  await joined(channel.subscription);
  const received = nextEvent(channel, 'Pinged');
  await broadcast([channel.name], 'App\\Events\\Pinged', []);
  assert.deepEqual(await received, []);
});

/** Serves `/broadcasting/auth` and `/broadcasting/user-auth` of a Laravel application with one user and a bearer token. */
async function application(t, user) {
  const calls = [];
  const server = createServer(async (request, response) => {
    let form = '';
    for await (const chunk of request) form += chunk;
    const fields = Object.fromEntries(new URLSearchParams(form));
    calls.push({ path: request.url, fields });
    const reply = (status, answer) => response.writeHead(status, { 'Content-Type': 'application/json' }).end(phpJson(answer));

    if (request.headers.authorization !== 'Bearer open-sesame') return reply(403, { message: 'Unauthenticated.' });
    const { socket_id: socketId, channel_name: channel } = fields;
    if (request.url === '/broadcasting/user-auth') {
      const data = phpJson({ id: user.id, user_info: user.info });
      return reply(200, { auth: `${key}:${hmac(`${socketId}::user::${data}`)}`, user_data: data });
    }
    if (channel.startsWith('presence-')) {
      const data = phpJson({ user_id: user.id, user_info: user.info });
      return reply(200, { auth: `${key}:${hmac(`${socketId}:${channel}:${data}`)}`, channel_data: data });
    }
    return reply(200, { auth: `${key}:${hmac(`${socketId}:${channel}`)}` });
  });
  await new Promise((settle) => server.listen(0, '127.0.0.1', settle));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return { base: `http://127.0.0.1:${server.address().port}/broadcasting`, calls };
}

/** Returns an Echo with authorization endpoints, as in a browser. */
function echoOf(t, base, bearerToken) {
  const echo = new Echo({
    broadcaster: 'reverb',
    key,
    wsHost: carillon.host,
    wsPort: carillon.port,
    forceTLS: false,
    enabledTransports: ['ws', 'wss'],
    authEndpoint: `${base}/auth`,
    auth: { headers: {} },
    userAuthentication: { endpoint: `${base}/user-auth`, headers: {} },
    bearerToken,
    Pusher,
  });
  t.after(() => echo.disconnect());
  return echo;
}

test('private channels, presence and sign-in work through the endpoints of an application', async (t) => {
  const user = { id: unique('7'), info: { name: 'Zoë 🎉', url: 'https://app.example/zoe' } };
  const { base, calls } = await application(t, user);
  const echo = echoOf(t, base, 'open-sesame');

  const room = unique('room.1');
  await joined(echo.private(room).subscription);
  const here = await new Promise((settle) => echo.join(room).here(settle));
  assert.deepEqual(here, [user.info], 'the user info is signed in escaped form and arrives unescaped');

  const { pusher } = echo.connector;
  const signedIn = next(pusher, 'pusher:signin_success');
  echo.connector.signin();
  await signedIn;
  const received = next(pusher.user, 'message');
  await sender.sendToUser(user.id, 'message', { n: 1 });
  assert.deepEqual(await received, { n: 1 });

  const ended = next(pusher.connection, 'disconnected');
  await sender.terminateUserConnections(user.id);
  await ended;
  assert.deepEqual(calls.map(({ path }) => path), ['/broadcasting/auth', '/broadcasting/auth', '/broadcasting/user-auth']);
  assert.equal(calls[0].fields.channel_name, `private-${room}`);
  assert.match(calls[0].fields.socket_id, /^\d+\.\d+$/);
});

test('`error` reports that the application denies access, and the socket stays open', async (t) => {
  const { base } = await application(t, { id: '1', info: {} });
  const echo = echoOf(t, base, 'wrong');
  const denied = await new Promise((settle) => echo.private(unique('closed')).error(settle));
  assert.equal(denied.status, 403);
  await marked(sender, await joined(echo.channel(unique('open')).subscription));
});

test('`error` reports a signature with the wrong secret', async (t) => {
  const echo = carillon.echo(t, { authorize: () => ({ auth: `${key}:00` }) });
  const refused = await new Promise((settle) => echo.private(unique('closed')).error(settle));
  assert.equal(refused.type, 'AuthError');
});
