// Cache channels: a new subscriber receives the last published event, or a cache miss.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { body, connected, joined, marked, next, record, serve, settled, subscribe, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();
const user = { id: 'ana', info: { name: 'Ana' } };

for (const prefix of ['cache', 'private-cache', 'presence-cache']) {
  test(`${prefix}-: a miss at first, then the last event, before live events`, async (t) => {
    const name = unique(`${prefix}-score`);
    const early = carillon.client(t, { user }).subscribe(name);
    const first = record(early);
    await next(early, 'pusher:cache_miss');
    assert.deepEqual(first.map(({ event }) => event), ['pusher:subscription_succeeded', 'pusher:cache_miss']);

    await sender.trigger(name, 'goal', { score: '1:0' });
    await sender.trigger(name, 'goal', { score: '1:1' });
    const late = carillon.client(t, { user }).subscribe(name);
    const seen = record(late);
    await next(late, 'goal');
    const live = next(late, 'whistle');
    await sender.trigger(name, 'whistle', {});
    await live;
    assert.deepEqual(
      seen.map(({ event, data }) => (event === 'goal' ? data : event)),
      ['pusher:subscription_succeeded', { score: '1:1' }, 'whistle'],
    );
    assert.equal(late.subscribed, true);
  });
}

test('a presence-cache channel has members', async (t) => {
  const channel = await subscribe(carillon.client(t, { user }), unique('presence-cache-room'));
  assert.deepEqual(channel.members.me, user);
  assert.equal(channel.members.count, 1);
});

test('Echo subscribes to cache channels by name', async (t) => {
  const echo = carillon.echo(t, { user });
  const room = unique('cache-room');
  await Promise.all([echo.channel(room), echo.private(room), echo.join(room)].map((channel) => next(channel.subscription, 'pusher:cache_miss')));
  for (const name of [room, `private-${room}`, `presence-${room}`]) await sender.trigger(name, 'App\\Events\\Scored', { name });
  const late = carillon.echo(t, { user });
  const channels = [late.channel(room), late.private(room), late.join(room)];
  const received = await Promise.all(channels.map((channel) => next(channel.subscription, 'App\\Events\\Scored')));
  assert.deepEqual(received.map(({ name }) => name), channels.map(({ name }) => name));
});

test('every new subscription receives the cached event', async (t) => {
  const name = unique('cache-score');
  await sender.trigger(name, 'goal', 1);
  const client = await connected(carillon.client(t));
  for (let round = 0; round < 3; round += 1) {
    assert.equal(await next(client.subscribe(name), 'goal'), 1);
    client.unsubscribe(name);
    await settled(client);
  }
});

test('an event is cached although it excluded the only client', async (t) => {
  const name = unique('cache-score');
  const author = await connected(carillon.client(t));
  await sender.trigger(name, 'goal', 1, { socket_id: author.connection.socket_id });
  assert.equal(await next(author.subscribe(name), 'goal'), 1);
});

test('an event published to several channels or in a batch is cached on each', async (t) => {
  const names = [unique('cache-a'), unique('cache-b'), unique('cache-c')];
  await sender.trigger(names.slice(0, 2), 'goal', { of: 'trigger' });
  await sender.triggerBatch([{ channel: names[2], name: 'goal', data: { of: 'batch' } }]);
  const client = carillon.client(t);
  const received = await Promise.all(names.map((name) => next(client.subscribe(name), 'goal')));
  assert.deepEqual(received, [{ of: 'trigger' }, { of: 'trigger' }, { of: 'batch' }]);
});

test('client events are not cached', async (t) => {
  const name = unique('private-cache-score');
  const [author, reader] = [await subscribe(carillon.client(t), name), await subscribe(carillon.client(t), name)];
  const received = next(reader, 'client-typing');
  author.trigger('client-typing', {});
  await received;
  const late = carillon.client(t).subscribe(name);
  const seen = record(late);
  await next(late, 'pusher:cache_miss');
  assert.deepEqual(without(seen), []);
});

for (const name of ['my-cache-score', 'cachescore', 'private-my-cache-score', 'cache_score', 'presence-cachescore']) {
  test(`${name} is not a cache channel`, async (t) => {
    const channelName = unique(name);
    await sender.trigger(channelName, 'goal', {});
    const channel = carillon.client(t, { user }).subscribe(channelName);
    const seen = record(channel);
    await joined(channel);
    await marked(sender, channel);
    assert.deepEqual(seen.map(({ event }) => event), ['pusher:subscription_succeeded', 'marker']);
  });
}

test('the cached text is unchanged, and the API returns it with its time to live', async (t) => {
  const name = unique('cache-score');
  const path = `/channels/${name}`;
  assert.equal((await body(sender.get({ path, params: { info: 'cache' } }))).cache ?? null, null);

  await sender.trigger(name, 'goal', '{"spaces":  "stay"}');
  const socket = carillon.socket(t);
  await socket.established();
  socket.send({ event: 'pusher:subscribe', data: { channel: name } });
  assert.equal((await socket.next()).event, 'pusher_internal:subscription_succeeded');
  assert.deepEqual(await socket.next(), { event: 'goal', channel: name, data: '{"spaces":  "stay"}' });

  const { occupied, cache } = await body(sender.get({ path, params: { info: 'cache' } }));
  assert.equal(occupied, true);
  assert.equal(cache.data, '{"spaces":  "stay"}');
  assert.ok(Number.isInteger(cache.ttl) && cache.ttl > 1700 && cache.ttl <= 1800, `ttl ${cache.ttl} should be just under 30 minutes`);
});

test('a miss has string data', async (t) => {
  const name = unique('cache-wire');
  const socket = carillon.socket(t);
  await socket.established();
  socket.send({ event: 'pusher:subscribe', data: { channel: name } });
  await socket.next();
  assert.deepEqual(await socket.next(), { event: 'pusher:cache_miss', channel: name, data: '{}' });
});
