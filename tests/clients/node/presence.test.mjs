// Presence channels: `here`, `joining` and `leaving` of Echo, and one member per user with any number of sockets.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { APPS, PusherServer, body, connected, joined, marked, next, nextFrame, serve, settled, subscribe, unique } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();

const ana = { id: 'ana', info: { name: 'Ana' } };
const bo = { id: 'bo', info: { name: 'Bo' } };
const cy = { id: 'cy', info: { name: 'Cy' } };

/** Records the joins (`+id`) and leaves (`-id`) of a presence channel, in order. */
function memberChanges(channel) {
  const seen = [];
  channel.bind('pusher:member_added', ({ id }) => seen.push(`+${id}`));
  channel.bind('pusher:member_removed', ({ id }) => seen.push(`-${id}`));
  return seen;
}

const usersOf = async (name) => (await body(sender.get({ path: `/channels/${name}/users` }))).users.map(({ id }) => id).sort();

test('Echo reports members, joins and leaves', async (t) => {
  const room = unique('room');
  const first = carillon.echo(t, { user: ana }).join(room);
  const here = await new Promise((settle) => first.here(settle));
  assert.deepEqual(here, [ana.info]);

  const joining = new Promise((settle) => first.joining(settle));
  const other = carillon.echo(t, { user: bo });
  const hereForBo = await new Promise((settle) => other.join(room).here(settle));
  assert.deepEqual(hereForBo.map(({ name }) => name).sort(), ['Ana', 'Bo']);
  assert.deepEqual(await joining, bo.info);

  const leaving = new Promise((settle) => first.leaving(settle));
  other.leave(room);
  assert.deepEqual(await leaving, bo.info);
});

test('a member leaves when its connection is lost', async (t) => {
  const name = unique('presence-room');
  const channel = await subscribe(carillon.client(t, { user: ana }), name);
  const other = carillon.client(t, { user: bo });
  const added = next(channel, 'pusher:member_added');
  await subscribe(other, name);
  assert.deepEqual(await added, { id: 'bo', info: bo.info });

  const removed = next(channel, 'pusher:member_removed');
  other.disconnect();
  assert.deepEqual(await removed, { id: 'bo', info: bo.info });
  assert.equal(channel.members.count, 1);
});

test('the member list contains the subscriber, and `me` is set', async (t) => {
  const channel = await subscribe(carillon.client(t, { user: ana }), unique('presence-room'));
  assert.equal(channel.members.count, 1);
  assert.deepEqual(channel.members.members, { ana: ana.info });
  assert.deepEqual(channel.members.me, { id: 'ana', info: ana.info });
});

test('a user with many sockets is one member with one join and one leave', async (t) => {
  const name = unique('presence-room');
  const watcher = await subscribe(carillon.client(t, { user: ana }), name);
  const seen = memberChanges(watcher);

  const tabs = [];
  for (let tab = 0; tab < 3; tab += 1) {
    const client = carillon.client(t, { user: bo });
    const channel = await subscribe(client, name);
    assert.equal(channel.members.count, 2, 'members are counted by user');
    tabs.push(client);
  }
  const { user_count, subscription_count } = await body(
    sender.get({ path: `/channels/${name}`, params: { info: 'user_count,subscription_count' } }),
  );
  assert.deepEqual({ user_count, subscription_count }, { user_count: 2, subscription_count: 4 });
  assert.deepEqual(await usersOf(name), ['ana', 'bo']);

  tabs[0].unsubscribe(name);
  await settled(tabs[0]);
  const left = nextFrame(watcher.pusher, ({ event }) => event === 'pusher_internal:member_removed', 'member_removed');
  tabs[1].disconnect();
  await marked(sender, watcher, tabs[2].channel(name));
  assert.deepEqual(seen, ['+bo']);

  tabs[2].disconnect();
  await left;
  assert.deepEqual(seen, ['+bo', '-bo']);
  await marked(sender, watcher);
  assert.deepEqual(seen, ['+bo', '-bo']);
  assert.deepEqual(await usersOf(name), ['ana']);
});

test('every join and leave of a user is sent', async (t) => {
  const name = unique('presence-room');
  const watcher = await subscribe(carillon.client(t, { user: ana }), name);
  const seen = memberChanges(watcher);
  const client = carillon.client(t, { user: bo });
  for (let round = 0; round < 3; round += 1) {
    const added = next(watcher, 'pusher:member_added');
    await subscribe(client, name);
    await added;
    const removed = next(watcher, 'pusher:member_removed');
    client.unsubscribe(name);
    await removed;
  }
  assert.deepEqual(seen, ['+bo', '-bo', '+bo', '-bo', '+bo', '-bo']);
});

test('earlier members receive the join, and the new member receives the list', async (t) => {
  const name = unique('presence-room');
  const [a, b] = [await subscribe(carillon.client(t, { user: ana }), name), await subscribe(carillon.client(t, { user: bo }), name)];
  await marked(sender, a, b);
  const received = [next(a, 'pusher:member_added'), next(b, 'pusher:member_added')];
  const c = carillon.client(t, { user: cy }).subscribe(name);
  const own = memberChanges(c);
  await joined(c);
  assert.deepEqual((await Promise.all(received)).map(({ id }) => id), ['cy', 'cy']);
  await marked(sender, c);
  assert.deepEqual(own, []);
  assert.deepEqual(Object.keys(c.members.members).sort(), ['ana', 'bo', 'cy']);
});

test('a user leaves all presence channels when the connection closes', async (t) => {
  const names = [unique('presence-a'), unique('presence-b')];
  const watcher = carillon.client(t, { user: ana });
  const channels = await Promise.all(names.map((name) => subscribe(watcher, name)));
  const client = carillon.client(t, { user: bo });
  await Promise.all(names.map((name) => subscribe(client, name)));
  const removed = channels.map((channel) => next(channel, 'pusher:member_removed'));
  client.disconnect();
  assert.deepEqual((await Promise.all(removed)).map(({ id }) => id), ['bo', 'bo']);
});

test('a user id that was signed as a number arrives as a string', async (t) => {
  const name = unique('presence-numbers');
  const watcher = await subscribe(carillon.client(t, { user: ana }), name);
  const member = { user_id: 10, user_info: { name: 'Mr. Channels' } };
  const added = nextFrame(watcher.pusher, ({ event }) => event === 'pusher_internal:member_added', 'member_added');
  const client = carillon.client(t, { authorize: (socketId, channel) => sender.authorizeChannel(socketId, channel, member) });
  const succeeded = nextFrame(client, ({ event }) => event === 'pusher_internal:subscription_succeeded', 'subscription_succeeded');
  const channel = await subscribe(client, name);

  assert.deepEqual((await added).data, { user_id: '10', user_info: { name: 'Mr. Channels' } });
  const { presence } = (await succeeded).data;
  assert.deepEqual(presence.ids.toSorted(), ['10', 'ana']);
  assert.equal(presence.count, 2);
  assert.deepEqual(channel.members.get('10').info, { name: 'Mr. Channels' });
  assert.deepEqual(await usersOf(name), ['10', 'ana']);
});

test('user info is optional and may be any JSON', async (t) => {
  const name = unique('presence-info');
  const watcher = await subscribe(carillon.client(t, { user: { id: 'bare' } }), name);
  assert.ok('bare' in watcher.members.members, 'each id is a key of the hash');
  for (const info of ['text', 7, ['list'], { deep: { name: 'Zoë "Z" \\ 🎉' } }]) {
    const user = { id: unique('user'), info };
    const added = next(watcher, 'pusher:member_added');
    const channel = await subscribe(carillon.client(t, { user }), name);
    assert.deepEqual(await added, user);
    assert.deepEqual(channel.members.get(user.id), user);
  }
});

const refusals = {
  'no channel data': () => undefined,
  'channel data without a user id': () => '{"user_info":{}}',
  'an empty user id': () => '{"user_id":""}',
  'channel data that is not JSON': () => 'ana',
  'a user id that is neither a string nor a number': () => '{"user_id":{"a":1}}',
};

for (const [what, data] of Object.entries(refusals)) {
  test(`${what} does not make a member`, async (t) => {
    const token = new PusherServer.Token(APPS.app.key, APPS.app.secret);
    const name = unique('presence-closed');
    const watcher = await subscribe(carillon.client(t, { user: ana }), name);
    const seen = memberChanges(watcher);
    const socket = carillon.socket(t);
    const socketId = await socket.established();
    const channelData = data();
    const text = channelData === undefined ? `${socketId}:${name}` : `${socketId}:${name}:${channelData}`;
    socket.send({ event: 'pusher:subscribe', data: { channel: name, auth: `${APPS.app.key}:${token.sign(text)}`, channel_data: channelData } });

    const answers = [await socket.next(), await socket.next()];
    assert.deepEqual(answers.map(({ event }) => event).sort(), ['pusher:error', 'pusher:subscription_error']);
    const refused = answers.find(({ event }) => event === 'pusher:subscription_error');
    assert.equal(refused.channel, name);
    assert.equal(typeof refused.data, 'string');
    await marked(sender, watcher);
    assert.deepEqual(seen, []);
  });
}

test('changed channel data is rejected', async (t) => {
  const authorize = (socketId, name) => ({ ...sender.authorizeChannel(socketId, name, { user_id: 'ana' }), channel_data: '{"user_id":"bo"}' });
  const refused = await next(carillon.client(t, { authorize }).subscribe(unique('presence-forged')), 'pusher:subscription_error');
  assert.equal(refused.status, 401);
});

test('the 101st user is refused, and a member may open another connection', async (t) => {
  const name = unique('presence-full');
  const clients = await Promise.all(Array.from({ length: 100 }, (_, n) => connected(carillon.client(t, { user: { id: `user-${n}` } }))));
  const channels = await Promise.all(clients.map((client) => subscribe(client, name)));
  await settled(clients[0]);
  assert.equal((await usersOf(name)).length, 100);

  await next(carillon.client(t, { user: { id: 'one-too-many' } }).subscribe(name), 'pusher:subscription_error');
  const tab = await subscribe(carillon.client(t, { user: { id: 'user-0' } }), name);
  assert.equal(tab.members.count, 100);
  await marked(sender, tab, channels[0]);
  assert.equal(channels[0].members.count, 100);
});

test('ids are strings, and the hash has an entry for each', async (t) => {
  const client = carillon.client(t, { user: ana });
  const succeeded = nextFrame(client, ({ event }) => event === 'pusher_internal:subscription_succeeded', 'subscription_succeeded');
  const channel = await subscribe(client, unique('presence-wire'));
  assert.deepEqual(await succeeded, {
    event: 'pusher_internal:subscription_succeeded',
    channel: channel.name,
    data: { presence: { count: 1, ids: ['ana'], hash: { ana: ana.info } } },
  });
});

test('`leave` of Echo unsubscribes from the public and the presence channel of that name', async (t) => {
  const room = unique('room');
  const echo = carillon.echo(t, { user: ana });
  const watcher = await subscribe(carillon.client(t, { user: bo }), `presence-${room}`);
  await joined(echo.join(room).subscription);
  await joined(echo.channel(room).subscription);
  const removed = next(watcher, 'pusher:member_removed');
  echo.leave(room);
  assert.equal((await removed).id, 'ana');
  await settled(echo.connector.pusher);
  assert.equal((await body(sender.get({ path: `/channels/${room}` }))).occupied, false);
});
