// The HTTP API with the official Node library, and the responses to invalid requests.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import { APPS, PusherServer, body, connected, joined, marked, needsApp, next, record, serve, subscribe, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();

const { id: appId, key, secret } = APPS.app;

/** Returns a request body for one event, for values that the library would reject. */
const event = (more) => ({ path: '/events', body: { name: 'e', data: '{}', channels: [unique('some')], ...more } });

// === events ===

test('a trigger to one channel returns an empty object', async (t) => {
  const channel = await subscribe(carillon.client(t), unique('one'));
  const received = next(channel, 'e');
  const response = await sender.trigger(channel.name, 'e', { n: 1 });
  assert.equal(response.status, 200);
  assert.match(response.headers.get('content-type'), /^application\/json/);
  assert.deepEqual(await response.json(), {});
  assert.deepEqual(await received, { n: 1 });
});

test('a trigger to many channels reaches each name once', async (t) => {
  const client = carillon.client(t);
  const channels = await Promise.all(['a', 'b', 'private-c'].map((name) => subscribe(client, unique(name))));
  const lists = channels.map(record);
  const names = channels.map(({ name }) => name);
  await sender.trigger([...names, names[0], unique('empty')], 'e', 1);
  await marked(sender, ...channels);
  for (const list of lists) assert.deepEqual(without(list), [{ event: 'e', data: 1 }]);
});

test('a trigger to 100 channels succeeds, and to 101 fails with 400', async (t) => {
  const names = Array.from({ length: 101 }, (_, n) => unique(`many-${n}`));
  const channel = await subscribe(carillon.client(t), names[99]);
  const received = next(channel, 'e');
  await sender.trigger(names.slice(0, 100), 'e', 1);
  assert.equal(await received, 1);
  await assert.rejects(sender.post(event({ channels: names })), { status: 400 });
});

test('`channel` is equivalent to a list of one channel', async (t) => {
  const channel = await subscribe(carillon.client(t), unique('single'));
  const received = next(channel, 'e');
  assert.deepEqual(await body(sender.post(event({ channels: undefined, channel: channel.name, data: '"x"' }))), {});
  assert.equal(await received, 'x');
});

test('data of 10240 bytes is accepted, and one byte more fails with 413', async (t) => {
  const channel = await subscribe(carillon.client(t), unique('large'));
  const seen = record(channel);
  const received = next(channel, 'fits');
  await sender.trigger(channel.name, 'fits', 'x'.repeat(10_240));
  assert.equal((await received).length, 10_240);
  await assert.rejects(sender.trigger(channel.name, 'large', 'x'.repeat(10_241)), (error) => {
    assert.equal(error.status, 413);
    assert.match(error.body, /10240/);
    return true;
  });
  await assert.rejects(sender.trigger(channel.name, 'large', 'é'.repeat(5_121)), { status: 413 });
  await marked(sender, channel);
  assert.deepEqual(without(seen, 'fits'), []);
});

test('an object as data is delivered as compact JSON', async (t) => {
  const channel = await subscribe(carillon.client(t), unique('object'));
  const received = next(channel, 'e');
  await sender.post(event({ channels: [channel.name], data: { a: [1, 'ü'] } }));
  assert.deepEqual(await received, { a: [1, 'ü'] });
});

test('unknown members of a request are ignored', async () => {
  assert.deepEqual(await body(sender.post(event({ tomorrow: true }))), {});
});

test('socket_id excludes one socket, on every channel of the request', async (t) => {
  const names = [unique('x'), unique('y')];
  const [author, reader] = [await connected(carillon.client(t)), await connected(carillon.client(t))];
  const own = await Promise.all(names.map((name) => subscribe(author, name)));
  const others = await Promise.all(names.map((name) => subscribe(reader, name)));
  const [ownLists, otherLists] = [own.map(record), others.map(record)];
  await sender.trigger(names, 'e', 1, { socket_id: author.connection.socket_id });
  await marked(sender, ...own, ...others);
  for (const list of ownLists) assert.deepEqual(without(list), []);
  for (const list of otherLists) assert.deepEqual(without(list), [{ event: 'e', data: 1 }]);
});

test('toOthers: the socket id of Echo excludes its client', async (t) => {
  const room = unique('orders');
  const [author, reader] = [carillon.echo(t), carillon.echo(t)];
  const [own, other] = await Promise.all([author, reader].map((echo) => joined(echo.private(room).subscription)));
  const [onOwn, onOther] = [record(own), record(other)];
  assert.match(author.socketId(), /^\d+\.\d+$/);
  await sender.trigger(`private-${room}`, 'App\\Events\\OrderShipped', { id: 1 }, { socket_id: author.socketId() });
  await marked(sender, own, other);
  assert.deepEqual(without(onOwn), []);
  assert.deepEqual(without(onOther), [{ event: 'App\\Events\\OrderShipped', data: { id: 1 } }]);
});

test('an unknown socket_id excludes no client', async (t) => {
  const channel = await subscribe(carillon.client(t), unique('channel'));
  const received = next(channel, 'e');
  await sender.trigger(channel.name, 'e', 1, { socket_id: '1.1' });
  assert.equal(await received, 1);
});

test('a trigger with info returns the counts of each channel', async (t) => {
  const [presence, open] = [unique('presence-info'), unique('info')];
  const user = { id: 'ana' };
  const [tab1, tab2] = [carillon.client(t, { user }), carillon.client(t, { user })];
  await Promise.all([subscribe(tab1, presence), subscribe(tab2, presence), subscribe(tab1, open)]);
  assert.deepEqual(await body(sender.trigger(presence, 'e', {}, { info: 'user_count,subscription_count' })), {
    channels: { [presence]: { user_count: 1, subscription_count: 2 } },
  });
  const unknown = unique('unknown');
  assert.deepEqual(await body(sender.trigger([presence, open, unknown], 'e', {}, { info: 'subscription_count' })), {
    channels: { [presence]: { subscription_count: 2 }, [open]: { subscription_count: 1 }, [unknown]: { subscription_count: 0 } },
  });
});

// === batches ===

test('a batch delivers each event in order and returns an empty object', async (t) => {
  const client = carillon.client(t);
  const [a, b] = await Promise.all([subscribe(client, unique('a')), subscribe(client, unique('b'))]);
  const [onA, onB] = [record(a), record(b)];
  const answer = await body(
    sender.triggerBatch([
      { channel: a.name, name: 'one', data: { n: 1 } },
      { channel: b.name, name: 'two', data: 'text' },
      { channel: a.name, name: 'three', data: { n: 3 } },
      { channel: a.name, name: 'hidden', data: {}, socket_id: client.connection.socket_id },
    ]),
  );
  assert.deepEqual(answer, {});
  await marked(sender, a, b);
  assert.deepEqual(without(onA), [{ event: 'one', data: { n: 1 } }, { event: 'three', data: { n: 3 } }]);
  assert.deepEqual(without(onB), [{ event: 'two', data: 'text' }]);
});

test('a batch with info returns one entry per event, in order', async (t) => {
  const [presence, open] = [unique('presence-batch'), unique('batch')];
  const client = carillon.client(t, { user: { id: 'ana' } });
  await Promise.all([subscribe(client, presence), subscribe(client, open)]);
  const answer = await body(
    sender.triggerBatch([
      { channel: presence, name: 'e', data: {}, info: 'user_count,subscription_count' },
      { channel: open, name: 'e', data: {} },
      { channel: open, name: 'e', data: {}, info: 'subscription_count' },
    ]),
  );
  assert.deepEqual(answer, { batch: [{ user_count: 1, subscription_count: 1 }, {}, { subscription_count: 1 }] });
});

test('a batch may have ten events; eleven fail with 400 and none is delivered', async (t) => {
  const channel = await subscribe(carillon.client(t), unique('batch'));
  const seen = record(channel);
  const batch = (length) => Array.from({ length }, (_, n) => ({ channel: channel.name, name: 'e', data: n }));
  await sender.triggerBatch(batch(10));
  await marked(sender, channel);
  assert.deepEqual(without(seen).map(({ data }) => data ?? 0), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);

  seen.length = 0;
  await assert.rejects(sender.triggerBatch(batch(11)), { status: 400 });
  await marked(sender, channel);
  assert.deepEqual(without(seen), []);
});

test('one event that is too large fails the batch with 413', async () => {
  const channel = unique('batch');
  const batch = [{ channel, name: 'e', data: 'x' }, { channel, name: 'e', data: 'x'.repeat(10_241) }];
  await assert.rejects(sender.triggerBatch(batch), { status: 413 });
});

// === channels ===

test('an app without subscribers has an empty object of channels', needsApp('strict'), async () => {
  const response = await carillon.sender('strict').get({ path: '/channels' });
  assert.equal(await response.text(), '{"channels":{}}');
});

test('the list of channels has the occupied ones, filtered by prefix', async (t) => {
  const client = await connected(carillon.client(t, { user: { id: 'ana' } }));
  const tag = unique('listed');
  const names = [`${tag}-a`, `private-${tag}-b`, `presence-${tag}-c`];
  for (const name of names) await subscribe(client, name);

  const { channels } = await body(sender.get({ path: '/channels' }));
  for (const name of names) assert.deepEqual(channels[name], {});

  const listed = await body(sender.get({ path: '/channels', params: { filter_by_prefix: `presence-${tag}`, info: 'user_count' } }));
  assert.deepEqual(listed, { channels: { [names[2]]: { user_count: 1 } } });
  const counted = await body(sender.get({ path: '/channels', params: { filter_by_prefix: `private-${tag}`, info: 'subscription_count' } }));
  assert.deepEqual(counted, { channels: { [names[1]]: { subscription_count: 1 } } });
  assert.deepEqual(await body(sender.get({ path: '/channels', params: { filter_by_prefix: unique('none') } })), { channels: {} });
});

test('a vacated channel is not listed', async (t) => {
  const [client, name] = [carillon.client(t), unique('left')];
  const witness = await connected(carillon.client(t));
  await subscribe(client, name);
  await subscribe(witness, name);
  const listed = async () => (await body(sender.get({ path: '/channels', params: { filter_by_prefix: name } }))).channels;
  assert.deepEqual(await listed(), { [name]: {} });
  for (const each of [client, witness]) {
    each.unsubscribe(name);
    // A response to a later message proves that the server has handled the unsubscription.
    await subscribe(each, unique('after'));
  }
  assert.deepEqual(await listed(), {});
});

test('user_count of all channels needs the presence prefix', async () => {
  await assert.rejects(sender.get({ path: '/channels', params: { info: 'user_count' } }), { status: 400 });
  await assert.rejects(sender.get({ path: '/channels', params: { info: 'user_count', filter_by_prefix: 'private-' } }), { status: 400 });
});

test('a channel query returns its occupancy and the requested counts', async (t) => {
  const [presence, open] = [unique('presence-one'), unique('one')];
  const user = { id: 'ana' };
  const clients = [carillon.client(t, { user }), carillon.client(t, { user })];
  await Promise.all(clients.flatMap((client) => [subscribe(client, presence), subscribe(client, open)]));
  const info = async (name, attributes) => body(sender.get({ path: `/channels/${name}`, params: attributes && { info: attributes } }));
  assert.deepEqual(await info(open), { occupied: true });
  assert.deepEqual(await info(open, 'subscription_count'), { occupied: true, subscription_count: 2 });
  assert.deepEqual(await info(presence, 'user_count,subscription_count'), { occupied: true, user_count: 1, subscription_count: 2 });
  assert.equal((await info(unique('unknown'))).occupied, false);
  assert.deepEqual(await info(unique('presence-unknown'), 'user_count,subscription_count'), { occupied: false, user_count: 0, subscription_count: 0 });
  await assert.rejects(info(open, 'user_count'), { status: 400 });
});

test('the users of a presence channel have string ids', async (t) => {
  const name = unique('presence-users');
  for (const id of ['1', '2', '2']) await subscribe(carillon.client(t, { user: { id } }), name);
  const { users } = await body(sender.get({ path: `/channels/${name}/users` }));
  assert.deepEqual(users.toSorted((a, b) => a.id.localeCompare(b.id)), [{ id: '1' }, { id: '2' }]);
  assert.deepEqual(await body(sender.get({ path: `/channels/${unique('presence-unknown')}/users` })), { users: [] });
  await assert.rejects(sender.get({ path: `/channels/${unique('open')}/users` }), { status: 400 });
});

// === authentication ===

test('a wrong secret, an unknown key and the key of another app fail with 401', needsApp('counting'), async () => {
  for (const options of [{ secret: 'wrong' }, { key: 'unknown' }, { key: APPS.counting.key, secret: APPS.counting.secret }]) {
    await assert.rejects(carillon.sender('app', options).trigger(unique('c'), 'e', {}), { status: 401 });
  }
});

test('an unknown app fails with 404', async () => {
  await assert.rejects(carillon.sender('app', { appId: '999999' }).trigger(unique('c'), 'e', {}), { status: 404 });
});

/** Sends a request that is signed here, with optional faults in each part. */
async function request({ path = `/apps/${appId}/events`, text, age = 0, version = '1.0', alter = (query) => query, sent = text, ...init }) {
  const params = { auth_key: key, auth_timestamp: String(Math.floor(Date.now() / 1000) - age), auth_version: version };
  if (text) params.body_md5 = createHash('md5').update(text).digest('hex');
  const query = Object.entries(params).sort().map((pair) => pair.join('=')).join('&');
  const method = text === undefined ? 'GET' : 'POST';
  const signature = new PusherServer.Token(key, secret).sign(`${method}\n${path}\n${query}`);
  const url = `${carillon.url}${path}?${alter(`${query}&auth_signature=${signature}`)}`;
  return fetch(url, { method, body: sent, headers: { 'content-type': 'application/json' }, ...init });
}

test('a request signed by hand is accepted, and each fault fails with 401', async () => {
  const text = JSON.stringify({ name: 'e', data: '{}', channel: unique('c') });
  assert.equal((await request({ text })).status, 200);
  assert.equal((await request({ text, age: 590 })).status, 200);
  assert.equal((await request({ text, age: 610 })).status, 401, 'too old');
  assert.equal((await request({ text, age: -610 })).status, 401, 'from the future');
  assert.equal((await request({ text, version: '2.0' })).status, 401, 'another version');
  assert.equal((await request({ text, sent: text.replace('"e"', '"f"') })).status, 401, 'altered body');
  assert.equal((await request({ text, alter: (query) => query.replace(/auth_timestamp=\d/, 'auth_timestamp=9') })).status, 401, 'altered time');
  for (const name of ['auth_key', 'auth_timestamp', 'auth_version', 'auth_signature', 'body_md5']) {
    const response = await request({ text, alter: (query) => query.replace(new RegExp(`&?${name}=[^&]*`), '') });
    assert.equal(response.status, 401, `without ${name}`);
  }
});

test('a rejection does not contain the secret', async () => {
  const response = await request({ text: '{}', alter: (query) => query.replace(/auth_signature=.*/, 'auth_signature=00') });
  assert.equal(response.status, 401);
  assert.ok(!(await response.text()).includes(secret));
});

// === invalid requests ===

const mistakes = {
  'no name': { name: undefined },
  'no data': { data: undefined },
  'no channel': { channels: undefined },
  'an empty list of channels': { channels: [] },
  'a name that is not a string': { name: 7 },
  'a name of 201 characters': { name: 'x'.repeat(201) },
  'channels that are not a list': { channels: { a: 1 } },
  'a channel with a space': { channels: ['no spaces'] },
  'a channel of 201 characters': { channels: ['x'.repeat(201)] },
  'an empty channel': { channels: [''] },
  'a malformed socket_id': { socket_id: 'abc' },
  'an event of the protocol': { name: 'pusher:error' },
  'an internal event of the protocol': { name: 'pusher_internal:member_added' },
};

for (const [what, more] of Object.entries(mistakes)) {
  test(`${what} fails with 400`, async () => {
    await assert.rejects(sender.post(event(more)), { status: 400 });
  });
}

test('user_count on a channel without users is omitted in a publish, and fails with 400 in a query', async () => {
  const open = unique('open');
  assert.deepEqual(await body(sender.trigger(open, 'e', {}, { info: 'user_count' })), { channels: { [open]: {} } });
  await assert.rejects(sender.get({ path: `/channels/${open}`, params: { info: 'user_count' } }), { status: 400 });
});

test('a body that is not JSON fails with 400', async () => {
  for (const text of ['{"name":', 'name=e', '[]', '"text"', 'null']) assert.equal((await request({ text })).status, 400, text);
});

test('unknown paths fail with 404 and wrong methods with 405', async () => {
  assert.equal((await request({ path: `/apps/${appId}/nothing` })).status, 404);
  assert.equal((await request({ path: `/apps/${appId}/events` })).status, 405);
  assert.equal((await fetch(`${carillon.url}/nothing`)).status, 404);
});

test('/up reports that the server is healthy', async () => {
  const response = await fetch(`${carillon.url}/up`);
  assert.equal(response.status, 200);
  assert.deepEqual(await response.json(), { health: 'OK' });
});
