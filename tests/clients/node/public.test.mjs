// Public channels: three major releases of pusher-js, the delivery and order of events, and subscription counts.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import Pusher7 from 'pusher-js-7';
import Pusher81 from 'pusher-js-8.1';

import { Pusher, body, connected, joined, marked, needsApp, next, nextFrame, record, serve, settled, subscribe, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();

for (const [name, library] of [['8.6', Pusher], ['8.1', Pusher81], ['7.6', Pusher7]]) {
  test(`pusher-js ${name} connects, subscribes and receives an event`, async (t) => {
    const client = await connected(carillon.client(t, { library }));
    assert.match(client.connection.socket_id, /^\d+\.\d+$/);

    const channel = await subscribe(client, unique('news'));
    const received = next(channel, 'my-event');
    await sender.trigger(channel.name, 'my-event', { hello: 'world' });

    assert.deepEqual(await received, { hello: 'world' });
    assert.deepEqual(client.errors, []);
  });
}

test('socket ids of one server differ', async (t) => {
  const clients = await Promise.all(Array.from({ length: 20 }, () => connected(carillon.client(t))));
  assert.equal(new Set(clients.map((client) => client.connection.socket_id)).size, 20);
});

test('every JSON value and any text arrives unchanged', async (t) => {
  const channel = await subscribe(await connected(carillon.client(t)), unique('values'));
  const values = [{ deep: { list: [1, 2.5, null, true] } }, [1, 2], 42, true, 'plain text', 'Zoë 🎉 "quoted" \\ back\nline', {}];
  for (const value of values) {
    const received = next(channel, 'value');
    await sender.trigger(channel.name, 'value', value);
    assert.deepEqual(await received, value);
  }
});

test('event names may contain backslashes, dots, colons and slashes', async (t) => {
  const channel = await subscribe(await connected(carillon.client(t)), unique('names'));
  for (const name of ['App\\Events\\OrderShipped', 'order.shipped', 'order:shipped', 'order/shipped', 'with space', 'é', 'x'.repeat(200)]) {
    const received = next(channel, name);
    await sender.trigger(channel.name, name, { name });
    assert.deepEqual(await received, { name });
  }
});

test('channel names may contain every allowed character, up to 164 of them', async (t) => {
  const client = await connected(carillon.client(t));
  for (const name of [unique('aZ09_-=@,.;'), unique('presence_x'), unique('privatex'), unique('long').padEnd(164, 'x')]) {
    const channel = await subscribe(client, name);
    const received = next(channel, 'hello');
    await sender.trigger(name, 'hello', 1);
    assert.equal(await received, 1);
  }
});

test('a channel name with a forbidden character is refused and the socket stays open', async (t) => {
  const client = await connected(carillon.client(t));
  const refused = next(client.connection, 'error');
  const channel = client.subscribe('no spaces');
  const succeeded = record(channel);
  await refused;
  await settled(client);
  assert.ok(!succeeded.some(({ event }) => event === 'pusher:subscription_succeeded'));
});

test('events stay on their channel', async (t) => {
  const client = await connected(carillon.client(t));
  const [red, blue] = [await subscribe(client, unique('red')), await subscribe(client, unique('blue'))];
  const onBlue = record(blue);
  await sender.trigger(red.name, 'paint', {});
  await marked(sender, red, blue);
  assert.deepEqual(without(onBlue), []);
});

test('apps do not receive events of each other', needsApp('counting'), async (t) => {
  const name = unique('shared-name');
  const [own, other] = await Promise.all(
    ['app', 'counting'].map(async (app) => subscribe(await connected(carillon.client(t, { app })), name)),
  );
  const onOther = record(other);
  await sender.trigger(name, 'secret', {});
  await marked(sender, own);
  await marked(carillon.sender('counting'), other);
  assert.deepEqual(without(onOther), []);
});

test('every subscriber of a channel receives an event once', async (t) => {
  const name = unique('crowd');
  const channels = await Promise.all(Array.from({ length: 20 }, async () => subscribe(await connected(carillon.client(t)), name)));
  const lists = channels.map(record);
  await sender.trigger(name, 'hello', 1);
  await marked(sender, ...channels);
  for (const list of lists) assert.deepEqual(without(list), [{ event: 'hello', data: 1 }]);
});

test('events of one channel keep their order', async (t) => {
  const channel = await subscribe(await connected(carillon.client(t)), unique('order'));
  const seen = record(channel);
  for (let n = 0; n < 100; n += 1) await sender.trigger(channel.name, 'n', n);
  await marked(sender, channel);
  assert.deepEqual(without(seen).map(({ data }) => data), Array.from({ length: 100 }, (_, n) => n));
});

test('an unsubscribed channel receives no events, and can be subscribed again', async (t) => {
  const client = await connected(carillon.client(t));
  const name = unique('left');
  const witness = await subscribe(await connected(carillon.client(t)), name);
  const channel = await subscribe(client, name);
  const frames = [];
  client.connection.bind('message', ({ event, channel: on }) => on === name && frames.push(event));

  client.unsubscribe(name);
  await settled(client);
  await sender.trigger(name, 'late', {});
  await marked(sender, witness);
  await settled(client);
  assert.deepEqual(frames, []);

  const again = await subscribe(client, name);
  assert.notEqual(again, channel);
  await marked(sender, again);
});

test('a repeated subscription succeeds, and events arrive once', async (t) => {
  const client = await connected(carillon.client(t));
  const channel = await subscribe(client, unique('twice'));
  const seen = record(channel);
  const again = next(channel, 'pusher:subscription_succeeded');
  client.connection.send_event('pusher:subscribe', { auth: '', channel: channel.name });
  await again;
  await sender.trigger(channel.name, 'hello', 1);
  await marked(sender, channel);
  assert.deepEqual(without(seen), [{ event: 'hello', data: 1 }]);
  const { subscription_count } = await body(sender.get({ path: `/channels/${channel.name}`, params: { info: 'subscription_count' } }));
  assert.equal(subscription_count, 1);
});

test('an unknown channel to unsubscribe from, an unknown event and broken JSON leave the socket open', async (t) => {
  const client = await connected(carillon.client(t));
  client.connection.send_event('pusher:unsubscribe', { channel: unique('never') });
  client.connection.send_event('pusher:nonsense', {});
  client.connection.send('{"event":');
  client.connection.send('[]');
  await settled(client);
  await marked(sender, await subscribe(client, unique('alive')));
});

test('messages have the encoding that official clients expect', async (t) => {
  const name = unique('wire');
  const socket = carillon.socket(t);
  const established = await socket.next();
  assert.equal(established.event, 'pusher:connection_established');
  assert.equal(typeof established.data, 'string');
  assert.deepEqual(Object.keys(JSON.parse(established.data)).sort(), ['activity_timeout', 'socket_id']);
  assert.ok(Number.isInteger(JSON.parse(established.data).activity_timeout));

  socket.send({ event: 'pusher:subscribe', data: { channel: name } });
  assert.deepEqual(await socket.next(), { event: 'pusher_internal:subscription_succeeded', channel: name, data: '{}' });

  await sender.trigger(name, 'my-event', '{"spaces":  "stay"}');
  assert.deepEqual(await socket.next(), { event: 'my-event', channel: name, data: '{"spaces":  "stay"}' });

  socket.send({ event: 'pusher:subscribe', data: JSON.stringify({ channel: `${name}-2` }) });
  assert.deepEqual(await socket.next(), { event: 'pusher_internal:subscription_succeeded', channel: `${name}-2`, data: '{}' });
});

test('subscription counts change with subscriptions', needsApp('counting'), async (t) => {
  const name = unique('counted');
  const [first, second] = await Promise.all([connected(carillon.client(t, { app: 'counting' })), connected(carillon.client(t, { app: 'counting' }))]);

  const channel = first.subscribe(name);
  assert.deepEqual(await next(channel, 'pusher:subscription_count'), { subscription_count: 1 });
  assert.equal(channel.subscriptionCount, 1);

  const [two, alsoTwo] = [next(channel, 'pusher:subscription_count'), next(second.subscribe(name), 'pusher:subscription_count')];
  assert.deepEqual([await two, await alsoTwo], [{ subscription_count: 2 }, { subscription_count: 2 }]);

  const one = next(channel, 'pusher:subscription_count');
  second.unsubscribe(name);
  assert.deepEqual(await one, { subscription_count: 1 });
});

test('a lost connection lowers the subscription count', needsApp('counting'), async (t) => {
  const name = unique('counted');
  const [stays, closes] = await Promise.all([connected(carillon.client(t, { app: 'counting' })), connected(carillon.client(t, { app: 'counting' }))]);
  const channel = await subscribe(stays, name);
  const two = nextFrame(stays, ({ event, data }) => event === 'pusher_internal:subscription_count' && data.subscription_count === 2, 'a count of 2');
  await subscribe(closes, name);
  await two;
  const one = next(channel, 'pusher:subscription_count');
  closes.disconnect();
  assert.deepEqual(await one, { subscription_count: 1 });
});

test('presence channels receive no subscription count', needsApp('counting'), async (t) => {
  const client = await connected(carillon.client(t, { app: 'counting', user: { id: 'ana' } }));
  const channel = client.subscribe(unique('presence-counted'));
  const seen = record(channel);
  await joined(channel);
  await settled(client);
  await marked(carillon.sender('counting'), channel);
  assert.ok(!seen.some(({ event }) => event === 'pusher:subscription_count'));
});

test('without the setting no subscription count is sent', async (t) => {
  const channel = carillon.client(t).subscribe(unique('uncounted'));
  const seen = record(channel);
  await joined(channel);
  await marked(sender, channel);
  assert.ok(!seen.some(({ event }) => event === 'pusher:subscription_count'));
});
