// Webhooks: the official library must accept every request.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { test } from 'node:test';

import { APPS, PusherServer, connected, needsProcess, start, subscribe, within } from './harness.mjs';

/** Starts an endpoint that accepts every webhook. `next()` resolves with the next request in the form that the library needs. */
async function endpoint(t) {
  const waiting = [];
  const arrived = [];
  const server = createServer(async (request, response) => {
    let rawBody = '';
    for await (const chunk of request.setEncoding('utf8')) rawBody += chunk;
    response.end();
    const received = { headers: request.headers, rawHeaders: request.rawHeaders, rawBody };
    const resolve = waiting.shift();
    if (resolve) resolve(received);
    else arrived.push(received);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  return {
    url: `http://127.0.0.1:${server.address().port}/`,
    next: () => within(arrived.length ? arrived.shift() : new Promise((resolve) => waiting.push(resolve)), () => 'a webhook'),
  };
}

function configuration(url, more = '') {
  const { id, key, secret } = APPS.app;
  return `
[server]
host = "127.0.0.1"
[drain]
accept = "0s"
window = "200ms"
[[apps]]
id = "${id}"
key = "${key}"
secret = "${secret}"
[[apps.webhooks]]
url = "${url}"
${more}
`;
}

for (const batch of [false, true]) {
  test(`the library accepts ${batch ? 'batches' : 'single events'} and reads their events`, needsProcess, async (t) => {
    const receiver = await endpoint(t);
    const carillon = await start({ configuration: configuration(receiver.url, `batch = ${batch}`) });
    const client = carillon.client(t);
    await connected(client);
    const channel = await subscribe(client, 'private-room');
    channel.trigger('client-typing', { who: 'Zo\u00eb', text: '"quoted" \u{1f600}' });
    const events = [];
    while (events.length < 2) {
      const request = await receiver.next();
      const library = new PusherServer({ appId: APPS.app.id, key: APPS.app.key, secret: APPS.app.secret });
      const webhook = library.webhook(request);
      assert.equal(webhook.isContentTypeValid(), true, JSON.stringify(request.headers));
      assert.equal(webhook.isValid(), true, request.rawBody);
      const age = Date.now() - webhook.getTime().getTime();
      assert.ok(Math.abs(age) < 10_000, `the webhook is ${age} ms old`);
      for (const name of ['X-Pusher-Key', 'X-Pusher-Signature', 'Content-Type']) {
        assert.ok(request.rawHeaders.includes(name), `${name} in ${request.rawHeaders}`);
      }
      const other = new PusherServer({ appId: '1', key: APPS.app.key, secret: 'another' });
      assert.equal(other.webhook(request).isValid(), false, 'another secret');
      events.push(...webhook.getEvents());
    }
    assert.deepEqual(
      events.map(({ id, ...event }) => (assert.match(id, /^.+$/), event)),
      [
        { name: 'channel_occupied', channel: 'private-room' },
        {
          name: 'client_event',
          channel: 'private-room',
          event: 'client-typing',
          data: JSON.stringify({ who: 'Zo\u00eb', text: '"quoted" \u{1f600}' }),
          socket_id: client.connection.socket_id,
        },
      ],
    );
    client.disconnect();
    await carillon.stop();
  });
}
