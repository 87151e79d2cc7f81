// A rolling restart that nobody notices: real clients through nginx, while events go on.

import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { test } from 'node:test';

import { APPS, connected, marked, needsCluster, next, record, start, subscribe, unique } from './harness.mjs';

const CLIENTS = 60;
const EVENTS_PER_SECOND = 200;
const WINDOW_S = 2;

const { id, key, secret } = APPS.app;
const CONFIGURATION = `
[server]
host = "127.0.0.1"
[drain]
accept = "1s"
window = "${WINDOW_S}s"
[[apps]]
id = "${id}"
key = "${key}"
secret = "${secret}"
`;

/** Publishes at a steady rate until told to stop; resolves with how many were published and what failed. */
function publish(sender, channel) {
  const failures = [];
  const pending = new Set();
  let published = 0;
  const timer = setInterval(() => {
    for (let n = 0; n < EVENTS_PER_SECOND / 20; n += 1) {
      const sent = sender.trigger(channel, 'tick', published++).then(
        (response) => response.status === 200 || failures.push(response.status),
        (error) => failures.push(`${error.status ?? ''} ${error.message} ${error.error ?? ''}`),
      );
      pending.add(sent);
      sent.finally(() => pending.delete(sent));
    }
  }, 50);
  return async () => {
    clearInterval(timer);
    await Promise.all(pending);
    return { published, failures };
  };
}

/** Keeps, for each time that a client was away, how long that was. */
function watch(client) {
  const absences = [];
  let since;
  client.connection.bind('state_change', ({ current }) => {
    if (current === 'connected') {
      if (since !== undefined) absences.push(performance.now() - since);
      since = undefined;
    } else since ??= performance.now();
  });
  return { absences, isAway: () => since !== undefined };
}

test('clients come back within the window plus two seconds and no publish fails', needsCluster, async (t) => {
  const carillon = await start({ configuration: CONFIGURATION });
  let stopped = false;
  t.after(() => stopped || carillon.kill('SIGTERM'));
  const agent = new Agent({ keepAlive: true, maxSockets: 8 });
  t.after(() => agent.destroy());
  const sender = carillon.sender('app', { agent });
  const name = unique('steady');
  const clients = await Promise.all(
    Array.from({ length: CLIENTS }, async () => {
      const client = await connected(carillon.client(t));
      const channel = await subscribe(client, name);
      return { client, channel, list: record(channel), away: watch(client) };
    }),
  );
  const stop = publish(sender, name);
  await carillon.roll();
  const { published, failures } = await stop();
  assert.deepEqual(failures, [], `of ${published} publishes`);
  assert.ok(published > EVENTS_PER_SECOND, `only ${published} events`);
  // A marker reaches everyone: each is back and subscribed again.
  await Promise.all(clients.map(({ channel }) => channel.subscribed || next(channel, 'pusher:subscription_succeeded')));
  await marked(sender, ...clients.map(({ channel }) => channel));
  for (const { client, list, away } of clients) {
    assert.equal(away.isAway(), false);
    assert.ok(away.absences.length >= 1, 'each gateway was restarted, so each client was moved');
    for (const absence of away.absences) assert.ok(absence < (WINDOW_S + 2) * 1000, `away for ${absence} ms`);
    assert.deepEqual(client.errors.filter(({ data, error }) => (data ?? error?.data)?.code !== 4200), []);
    const ticks = list.filter(({ event }) => event === 'tick').map(({ data }) => data);
    assert.deepEqual(ticks, [...new Set(ticks)].sort((a, b) => a - b), 'in order, and none twice');
  }
  clients.forEach(({ client }) => client.disconnect());
  stopped = true;
  await carillon.stop();
});
