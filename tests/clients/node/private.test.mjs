// Private channels: permissions, and errors for clients without permission.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { APPS, PusherServer, connected, marked, needsApp, next, nextError, record, serve, settled, subscribe, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();
const token = new PusherServer.Token(APPS.app.key, APPS.app.secret);

/** Returns `{ auth }` with the signature of `text`. */
const signed = (text) => ({ auth: `${APPS.app.key}:${token.sign(text)}` });

test('a signed subscription succeeds and receives events', async (t) => {
  const channel = await subscribe(carillon.client(t), unique('private-orders'));
  const received = next(channel, 'shipped');
  await sender.trigger(channel.name, 'shipped', { order: 1 });
  assert.deepEqual(await received, { order: 1 });
});

test('the older `authorizer` option of pusher-js works', async (t) => {
  const authorizer = ({ name }) => ({ authorize: (socketId, done) => done(null, sender.authorizeChannel(socketId, name)) });
  await marked(sender, await subscribe(carillon.client(t, { options: { authorizer } }), unique('private-old')));
});

const refusals = {
  'a signature with another secret': (socketId, name) => ({ auth: `${APPS.app.key}:${new PusherServer.Token(APPS.app.key, 'wrong').sign(`${socketId}:${name}`)}` }),
  'a signature for another socket': (socketId, name) => signed(`1${socketId}:${name}`),
  'a signature for another channel': (socketId, name) => signed(`${socketId}:${name}x`),
  'a signature with the key of another app': (socketId, name) => ({ auth: `counting-key:${token.sign(`${socketId}:${name}`)}` }),
  'an auth without a colon': (socketId, name) => ({ auth: token.sign(`${socketId}:${name}`) }),
  'an empty auth': () => ({ auth: '' }),
  'a missing auth': () => ({}),
};

for (const [what, authorize] of Object.entries(refusals)) {
  test(`${what} is refused, and the socket stays open`, async (t) => {
    const client = await connected(carillon.client(t, { authorize }));
    const error = nextError(client);
    const channel = client.subscribe(unique('private-closed'));
    const seen = record(channel);

    const refused = await next(channel, 'pusher:subscription_error');
    assert.equal(refused.type, 'AuthError');
    assert.equal(refused.status, 401);
    assert.equal((await error).code, 4009);

    await sender.trigger(channel.name, 'secret', {});
    await marked(sender, await subscribe(client, unique('open')));
    assert.deepEqual(without(seen), []);
    assert.equal(client.connection.state, 'connected');
  });
}

test('a subscription that was refused can succeed later on the same socket', async (t) => {
  let allowed = false;
  const authorize = (socketId, name) => (allowed ? sender.authorizeChannel(socketId, name) : { auth: `${APPS.app.key}:00` });
  const client = await connected(carillon.client(t, { authorize }));
  const name = unique('private-later');
  await next(client.subscribe(name), 'pusher:subscription_error');

  // pusher-js assumes that the first attempt is still pending. The test sends the second one.
  allowed = true;
  const channel = client.channel(name);
  const succeeded = next(channel, 'pusher:subscription_succeeded');
  client.connection.send_event('pusher:subscribe', { channel: name, ...sender.authorizeChannel(client.connection.socket_id, name) });
  await succeeded;
  await marked(sender, channel);
});

test('channel data on a private channel is part of the signature', async (t) => {
  const data = '{"role": "admin"}';
  const authorize = (socketId, name) => ({ ...signed(`${socketId}:${name}:${data}`), channel_data: data });
  await marked(sender, await subscribe(carillon.client(t, { authorize }), unique('private-data')));
});

for (const data of ['', '{"role":"admin"}']) {
  test(`a private channel accepts a signature without the channel data '${data}'`, async (t) => {
    const authorize = (socketId, name) => ({ ...signed(`${socketId}:${name}`), channel_data: data });
    await marked(sender, await subscribe(carillon.client(t, { authorize }), unique('private-data')));
  });
}

test('a client without a subscription receives no events', async (t) => {
  const name = unique('private-orders');
  const inside = await subscribe(carillon.client(t), name);
  const outside = await connected(carillon.client(t));
  const frames = [];
  outside.connection.bind('message', (frame) => frame.channel === name && frames.push(frame));
  await sender.trigger(name, 'shipped', {});
  await marked(sender, inside);
  await settled(outside);
  assert.deepEqual(frames, []);
});

test('the same channel name in another app is another channel', needsApp('counting'), async (t) => {
  const name = unique('private-shared');
  const [own, other] = [await subscribe(carillon.client(t), name), await subscribe(carillon.client(t, { app: 'counting' }), name)];
  const seen = record(other);
  await sender.trigger(name, 'secret', {});
  await marked(sender, own);
  await marked(carillon.sender('counting'), other);
  assert.deepEqual(without(seen), []);
});

test('a signer that fails leaves the channel unsubscribed and the socket in use', async (t) => {
  const authorize = () => {
    throw new Error('signer is down');
  };
  const client = await connected(carillon.client(t, { authorize }));
  const channel = client.subscribe(unique('private-unsigned'));
  await settled(client);
  assert.equal(channel.subscribed, false);
  await marked(sender, await subscribe(client, unique('open')));
});
