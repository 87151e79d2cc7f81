// Sign-in: events to a user, presence without channel data, terminated connections, and watchlists.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { APPS, PusherServer, body, connected, marked, next, nextError, nextFrame, record, serve, settled, subscribe, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();
const token = new PusherServer.Token(APPS.app.key, APPS.app.secret);

const signedUser = (socketId, userData) => ({ auth: `${APPS.app.key}:${token.sign(`${socketId}::user::${userData}`)}`, user_data: userData });

/** Signs a client in and waits for the subscription of its user channel, over which events and terminations arrive. */
async function signedIn(t, user, options = {}) {
  const client = carillon.client(t, { user, ...options });
  const own = nextFrame(
    client,
    ({ event, channel }) => event === 'pusher_internal:subscription_succeeded' && channel === `#server-to-user-${user.id}`,
    `the channel of user ${user.id}`,
  );
  client.signin();
  await own;
  return client;
}

/** Records the `[event, ids]` pairs of a client's watchlist, in order. Call it before signing in. */
function watchlist(client) {
  const seen = [];
  client.user.watchlist.bind_global((name, { user_ids: ids }) => seen.push([name, ids.toSorted()]));
  return seen;
}

/** Waits for the next watchlist event of this name that lists `id`. */
async function nextSeen(client, name, id) {
  const frame = await nextFrame(
    client,
    ({ event, data }) => event === 'pusher_internal:watchlist_events' && data.events.some((each) => each.name === name && each.user_ids.includes(id)),
    `${id} ${name}`,
  );
  return frame.data.events;
}

test('a client that signs in receives the signed user data', async (t) => {
  const user = { id: unique('ana'), info: { name: 'Ana "Ä"' } };
  const client = await signedIn(t, user);
  await client.user.signinDonePromise;
  assert.deepEqual(client.user.user_data, { id: user.id, user_info: user.info });
  assert.deepEqual(client.errors, []);
});

test('signin_success contains the exact string of the user data', async (t) => {
  const socket = carillon.socket(t);
  const socketId = await socket.established();
  const id = unique('ana');
  const userData = `{"id": "${id}",  "user_info":{"name":"Zo\\u00eb"}}`;
  socket.send({ event: 'pusher:signin', data: signedUser(socketId, userData) });
  assert.deepEqual(await socket.next(), { event: 'pusher:signin_success', data: { user_data: userData } });
});

test('an event to a user reaches only the sockets of that user', async (t) => {
  const [ana, bo] = [{ id: unique('ana') }, { id: unique('bo') }];
  const [tab1, tab2, other, anonymous] = [await signedIn(t, ana), await signedIn(t, ana), await signedIn(t, bo), await connected(carillon.client(t))];
  const [onOther, onAnonymous] = [record(other.user), record(anonymous)];

  const received = [next(tab1.user, 'message'), next(tab2.user, 'message')];
  assert.deepEqual(await body(sender.sendToUser(ana.id, 'message', { hello: 'Ana' })), {});
  assert.deepEqual(await Promise.all(received), [{ hello: 'Ana' }, { hello: 'Ana' }]);

  const end = next(other.user, 'end');
  await sender.sendToUser(bo.id, 'end', {});
  await end;
  await settled(anonymous);
  assert.deepEqual(without(onOther, 'end'), []);
  assert.deepEqual(without(onAnonymous), []);
});

test('user events arrive after signin_success without a subscription', async (t) => {
  const id = unique('ana');
  const socket = carillon.socket(t);
  const socketId = await socket.established();
  socket.send({ event: 'pusher:signin', data: signedUser(socketId, JSON.stringify({ id })) });
  assert.equal((await socket.next()).event, 'pusher:signin_success');
  await sender.sendToUser(id, 'message', { n: 1 });
  assert.deepEqual(await socket.next(), { event: 'message', channel: `#server-to-user-${id}`, data: '{"n":1}' });
});

test('other clients cannot subscribe to the channel of a user, and it is not listed', async (t) => {
  const ana = { id: unique('ana') };
  const client = await signedIn(t, ana);
  for (const other of [await connected(carillon.client(t)), await signedIn(t, { id: unique('bo') })]) {
    const frames = [];
    other.connection.bind('message', (frame) => frame.channel === `#server-to-user-${ana.id}` && !frame.event.startsWith('pusher:') && frames.push(frame));
    const error = nextError(other);
    other.connection.send_event('pusher:subscribe', { auth: '', channel: `#server-to-user-${ana.id}` });
    await error;
    const received = next(client.user, 'message');
    await sender.sendToUser(ana.id, 'message', {});
    await received;
    await settled(other);
    assert.deepEqual(frames, []);
    assert.equal(other.connection.state, 'connected');
  }
  const { channels } = await body(sender.get({ path: '/channels' }));
  assert.deepEqual(Object.keys(channels).filter((name) => name.includes(ana.id)), []);
});

const refusals = {
  'a wrong signature': (socketId) => ({ ...signedUser(socketId, '{"id":"ana"}'), auth: `${APPS.app.key}:00` }),
  'a signature for another socket': () => signedUser('1.1', '{"id":"ana"}'),
  'a user without an id': (socketId) => signedUser(socketId, '{"name":"Ana"}'),
  'an empty id': (socketId) => signedUser(socketId, '{"id":""}'),
  'an id that is a number': (socketId) => signedUser(socketId, '{"id":7}'),
  'user data that is not JSON': (socketId) => signedUser(socketId, 'ana'),
};

for (const [what, authenticate] of Object.entries(refusals)) {
  test(`${what} does not sign in, and the socket stays open`, async (t) => {
    const client = await connected(carillon.client(t, { authenticate }));
    const events = [];
    client.connection.bind('message', ({ event }) => events.push(event));
    const error = nextError(client);
    client.signin();
    assert.equal((await error).code, 4009);
    await settled(client);
    assert.ok(!events.includes('pusher:signin_success'));
    await marked(sender, await subscribe(client, unique('open')));
  });
}

test('a socket cannot become a second user', async (t) => {
  const [ana, bo] = [{ id: unique('ana') }, { id: unique('bo') }];
  const client = await signedIn(t, ana);
  const error = nextError(client);
  client.connection.send_event('pusher:signin', sender.authenticateUser(client.connection.socket_id, bo));
  await error;
  const received = next(client.user, 'message');
  await sender.sendToUser(bo.id, 'message', { to: 'bo' });
  await sender.sendToUser(ana.id, 'message', { to: 'ana' });
  assert.deepEqual(await received, { to: 'ana' });
});

test('a signed-in user joins a presence channel without channel data', async (t) => {
  const user = { id: unique('ana'), info: { name: 'Ana' } };
  const authorize = (socketId, name) => sender.authorizeChannel(socketId, name);
  const name = unique('presence-signed');
  const watcher = await subscribe(carillon.client(t, { user: { id: 'watcher' } }), name);
  const added = next(watcher, 'pusher:member_added');
  const client = await signedIn(t, user, { authorize });
  const channel = await subscribe(client, name);
  assert.deepEqual(await added, user);
  assert.deepEqual(channel.members.me, user);

  const removed = next(watcher, 'pusher:member_removed');
  client.disconnect();
  assert.deepEqual(await removed, user);
});

test('terminating a user permanently closes only the signed-in sockets of that user', async (t) => {
  const ana = { id: unique('ana') };
  const [tab1, tab2, bo] = [await signedIn(t, ana), await signedIn(t, ana), await signedIn(t, { id: unique('bo') })];
  const presence = await subscribe(carillon.client(t, { user: ana }), unique('presence-room'));

  const ended = [tab1, tab2].map((client) => next(client.connection, 'disconnected'));
  assert.deepEqual(await body(sender.terminateUserConnections(ana.id)), {});
  await Promise.all(ended);
  for (const client of [tab1, tab2]) {
    const codes = client.errors.map(({ data, error }) => (data ?? error?.data)?.code);
    assert.ok(codes.includes(4009), JSON.stringify(client.errors));
    assert.ok(!client.connection.retryTimer, 'pusher-js does not retry after 4009');
  }
  await settled(bo);
  await marked(sender, presence);
});

test('the socket of a terminated user closes with 4009', async (t) => {
  const id = unique('ana');
  const socket = carillon.socket(t);
  const socketId = await socket.established();
  socket.send({ event: 'pusher:signin', data: signedUser(socketId, JSON.stringify({ id })) });
  await socket.next();
  await sender.terminateUserConnections(id);
  assert.equal((await socket.next()).data.code, 4009);
  assert.equal((await socket.closed).code, 4009);
});

test('a terminated user may sign in again', async (t) => {
  const ana = { id: unique('ana') };
  const client = await signedIn(t, ana);
  const ended = next(client.connection, 'disconnected');
  await sender.terminateUserConnections(ana.id);
  await ended;
  const back = await signedIn(t, ana);
  const received = next(back.user, 'message');
  await sender.sendToUser(ana.id, 'message', {});
  await received;
});

test('terminating an unknown user succeeds', async () => {
  assert.deepEqual(await body(sender.terminateUserConnections(unique('unknown'))), {});
});

test('a watchlist reports online users and changes', async (t) => {
  const [bo, cy] = [{ id: unique('bo') }, { id: unique('cy') }];
  const boTab = await signedIn(t, bo);
  const ana = carillon.client(t, { user: { id: unique('ana'), watchlist: [bo.id, cy.id] } });
  const seen = watchlist(ana);
  const first = nextSeen(ana, 'online', bo.id);
  ana.signin();
  await first;
  await settled(ana);
  assert.ok(!seen.some(([name, ids]) => name === 'online' && ids.includes(cy.id)));
  seen.length = 0;

  const cyOnline = nextSeen(ana, 'online', cy.id);
  const cyTab = await signedIn(t, cy);
  await cyOnline;

  // The second connection of an online user and its end cause no event.
  const boTab2 = await signedIn(t, bo);
  boTab2.disconnect();

  const cyOffline = nextSeen(ana, 'offline', cy.id);
  cyTab.disconnect();
  await cyOffline;
  const boOffline = nextSeen(ana, 'offline', bo.id);
  boTab.disconnect();
  await boOffline;

  assert.deepEqual(seen, [['online', [cy.id]], ['offline', [cy.id]], ['offline', [bo.id]]]);
});

test('a watchlist over 100 users signs in, warns with 4302 and keeps the first 100', async (t) => {
  const [first, last] = [{ id: unique('first') }, { id: unique('last') }];
  const unknown = Array.from({ length: 99 }, (_, n) => unique(`unknown-${n}`));
  await signedIn(t, first);
  await signedIn(t, last);
  const client = carillon.client(t, { user: { id: unique('ana'), watchlist: [first.id, ...unknown, last.id] } });
  const [error, online, success] = [nextError(client), nextSeen(client, 'online', first.id), nextFrame(client, ({ event }) => event === 'pusher:signin_success')];
  client.signin();
  assert.equal((await error).code, 4302);
  await success;
  assert.ok(!(await online).some(({ user_ids: ids }) => ids.includes(last.id)));
  assert.equal(client.connection.state, 'connected');
});
