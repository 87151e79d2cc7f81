// Encrypted channels: the server library encrypts, pusher-js decrypts, and Carillon forwards the ciphertext.
// The Node build of pusher-js includes encryption; browsers import `pusher-js/with-encryption`.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import nacl from 'tweetnacl';

import { ENCRYPTION_KEY, connected, joined, marked, next, record, serve, subscribe, unique, without } from './harness.mjs';

const carillon = await serve();
const sender = carillon.sender();

test('an event on an encrypted channel arrives decrypted', async (t) => {
  const channel = await subscribe(carillon.client(t), unique('private-encrypted-vault'));
  for (const secret of [{ message: 'Zoë' }, 'text', [1, 2]]) {
    const received = next(channel, 'secret');
    await sender.trigger(channel.name, 'secret', secret);
    assert.deepEqual(await received, secret);
  }
});

test('Echo receives decrypted events', async (t) => {
  const room = unique('vault');
  const channel = carillon.echo(t).encryptedPrivate(room);
  await joined(channel.subscription);
  const received = new Promise((settle) => channel.listen('SecretShared', settle));
  const arrived = next(channel.subscription, 'App\\Events\\SecretShared');
  await sender.trigger(`private-encrypted-${room}`, 'App\\Events\\SecretShared', { code: 42 });
  assert.deepEqual(await arrived, { code: 42 });
  assert.deepEqual(await received, { code: 42 });
});

test('an encrypted event consists of a nonce and a ciphertext for the channel key', async (t) => {
  const name = unique('private-encrypted-wire');
  const socket = carillon.socket(t);
  const socketId = await socket.established();
  const { auth } = sender.authorizeChannel(socketId, name);
  socket.send({ event: 'pusher:subscribe', data: { channel: name, auth } });
  assert.equal((await socket.next()).event, 'pusher_internal:subscription_succeeded');

  await sender.trigger(name, 'secret', { code: 42 });
  const { event, channel, data } = await socket.next();
  assert.deepEqual({ event, channel }, { event: 'secret', channel: name });
  const { nonce, ciphertext } = JSON.parse(data);
  assert.deepEqual(Object.keys(JSON.parse(data)).sort(), ['ciphertext', 'nonce']);

  const key = createHash('sha256').update(Buffer.concat([Buffer.from(name), Buffer.from(ENCRYPTION_KEY, 'base64')])).digest();
  const opened = nacl.secretbox.open(Buffer.from(ciphertext, 'base64'), Buffer.from(nonce, 'base64'), key);
  assert.deepEqual(JSON.parse(Buffer.from(opened).toString()), { code: 42 });
});

test('one batch can have encrypted and plain events', async (t) => {
  const client = carillon.client(t);
  const [secret, plain] = await Promise.all([subscribe(client, unique('private-encrypted-batch')), subscribe(client, unique('batch'))]);
  const received = [next(secret, 'e'), next(plain, 'e')];
  await sender.triggerBatch([
    { channel: secret.name, name: 'e', data: { n: 1 } },
    { channel: plain.name, name: 'e', data: { n: 2 } },
  ]);
  assert.deepEqual(await Promise.all(received), [{ n: 1 }, { n: 2 }]);
});

test('an encrypted cache channel sends its cached ciphertext', async (t) => {
  const name = unique('private-encrypted-cache-vault');
  const missing = carillon.client(t).subscribe(name);
  await next(missing, 'pusher:cache_miss');

  await sender.trigger(name, 'secret', { code: 42 });
  const late = carillon.client(t).subscribe(name);
  assert.deepEqual(await next(late, 'secret'), { code: 42 });
});

test('an encrypted channel needs a signature, like a private one', async (t) => {
  const authorize = (socketId, name) => ({ ...sender.authorizeChannel(socketId, name), auth: 'app-key:00' });
  const client = await connected(carillon.client(t, { authorize }));
  const channel = client.subscribe(unique('private-encrypted-closed'));
  const seen = record(channel);
  assert.equal((await next(channel, 'pusher:subscription_error')).status, 401);
  await sender.trigger(channel.name, 'secret', {});
  await marked(sender, await subscribe(client, unique('open')));
  assert.deepEqual(without(seen), []);
});
