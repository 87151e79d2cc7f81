// Rolling restarts under load: real clients and a server library publish and receive through nginx, and no event is lost.

import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { test } from 'node:test';

import { APPS, connected, marked, needsCluster, record, start, subscribe, unique, joined } from './harness.mjs';

const CLIENTS = 60;
const EVENTS_PER_SECOND = 200;
const ACCEPT_S = 1;
const WINDOW_S = 2;

/** The time limit from the drain signal of a node until all its clients have reconnected: the drain and the reconnects. */
const BACK_MS = (ACCEPT_S + WINDOW_S + 2) * 1000;

/** An event that was accepted this long before a gateway closes its first client has reached all clients. */
const DELIVERY_MS = 500;

/** This process may detect a close later than it was sent, since it also runs the clients. This is the maximum delay. */
const CLOSE_DELAY_MS = 2000;

const { id, key, secret } = APPS.app;
const CONFIGURATION = `
[server]
host = "127.0.0.1"
[drain]
accept = "${ACCEPT_S}s"
window = "${WINDOW_S}s"
[[apps]]
id = "${id}"
key = "${key}"
secret = "${secret}"
`;

/** The time limit for the response to a publish on a busy machine. Without Redis, a publish fails within 3 s. */
const RESPONSE_MS = 5000;

/** Returns milliseconds since 1970, the unit of the cluster's output. */
const now = () => performance.timeOrigin + performance.now();

/**
 * Publishes numbers at a steady rate. Returns a function that stops it and resolves with the results: the times at which each number was
 * `sent` and `accepted`, the `failures`, and the `rate` of accepted numbers per second.
 */
function publish(sender, channel) {
  const [failures, sent, accepted, pending] = [[], [], [], new Set()];
  const began = now();
  const timer = setInterval(() => {
    // Catches up after a late timer.
    while (sent.length < ((now() - began) / 1000) * EVENTS_PER_SECOND) {
      const number = sent.push(now()) - 1;
      const done = sender.trigger(channel, 'tick', number).then(
        (response) => (response.status === 200 ? (accepted[number] = now()) : failures.push(response.status)),
        (error) => failures.push(`${error.status ?? ''} ${error.message} ${error.error ?? ''}`),
      );
      pending.add(done);
      done.finally(() => pending.delete(done));
    }
  }, 10);
  return async () => {
    clearInterval(timer);
    const seconds = (now() - began) / 1000;
    await Promise.all(pending);
    const rate = accepted.filter(Boolean).length / seconds;
    return { sent, accepted, failures, rate };
  };
}

/** Records the times without a connection (`absences`) and the times with a subscription (`presences`) of a client. */
function watch(client, channel) {
  const [absences, presences] = [[], [{ from: now(), to: Infinity }]];
  client.connection.bind('state_change', ({ previous, current }) => {
    if (previous === 'connected') {
      absences.push({ lost: now(), back: Infinity });
      presences.at(-1).to = now();
    }
    if (current === 'connected') absences.at(-1).back = now();
  });
  channel.bind('pusher:subscription_succeeded', () => presences.push({ from: now(), to: Infinity }));
  return { absences, presences };
}

/** Starts a cluster that stops with the test, a server library, and `count` subscribers of one channel. */
async function cluster(t, count) {
  const carillon = await start({ configuration: CONFIGURATION });
  let stopped = false;
  t.after(() => stopped || carillon.kill('SIGTERM'));
  // With enough sockets, a slow response does not delay other requests.
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  t.after(() => agent.destroy());
  const sender = carillon.sender('app', { agent });
  const name = unique('steady');
  const clients = await Promise.all(
    Array.from({ length: count }, async () => {
      const client = await connected(carillon.client(t));
      const channel = await subscribe(client, name);
      return { client, channel, list: record(channel), ...watch(client, channel) };
    }),
  );
  const stop = async () => {
    clients.forEach(({ client }) => client.disconnect());
    stopped = true;
    await carillon.stop();
  };
  return { carillon, sender, name, clients, stop };
}

/** Returns the numbers that each client received. Asserts that none arrived twice and that all clients have the same order. */
function receivedBy(clients) {
  const all = clients.map(({ list }) => list.filter(({ event }) => event === 'tick').map(({ data }) => data));
  const sets = all.map((ticks) => new Set(ticks));
  for (const [index, ticks] of all.entries()) {
    assert.equal(ticks.length, sets[index].size, 'no event arrives twice');
    assert.deepEqual(ticks.filter((number) => sets[0].has(number)), all[0].filter((number) => sets[index].has(number)), 'all clients receive the same order');
  }
  return sets;
}

/** Asserts that no publish failed and that the rate was kept. A publisher that waits for responses would hide delays. */
function assertSteady({ sent, accepted, failures, rate }) {
  assert.deepEqual(failures, [], `failures of ${sent.length} publishes`);
  const slowest = Math.max(...accepted.map((at, number) => at - sent[number]));
  assert.ok(slowest < RESPONSE_MS, `a publish took ${slowest.toFixed()} ms`);
  assert.ok(rate >= 0.9 * EVENTS_PER_SECOND, `only ${rate.toFixed(1)} of ${EVENTS_PER_SECOND} events a second were accepted`);
}

test('gateways are restarted: clients reconnect in time and receive all events while connected, and no publish fails', needsCluster, async (t) => {
  const { carillon, sender, name, clients, stop } = await cluster(t, CLIENTS);
  const published = publish(sender, name);
  const drained = await carillon.roll('gateway');
  const events = await published();
  assertSteady(events);
  // A marker reaches all clients after they have subscribed again.
  await Promise.all(clients.map(({ channel }) => joined(channel)));
  await marked(sender, ...clients.map(({ channel }) => channel));
  assert.equal(drained.length, 2, 'each gateway was signaled');
  const sets = receivedBy(clients);
  let connectedShare = 0;
  for (const [index, { client, absences, presences }] of clients.entries()) {
    assert.ok(absences.length >= 1, 'each client was moved, since each gateway was restarted');
    for (const { lost, back } of absences) {
      const signaled = drained.findLast((time) => time <= lost);
      assert.ok(signaled !== undefined, `lost ${drained[0] - lost} ms before any gateway was signaled`);
      assert.ok(back - signaled <= BACK_MS, `reconnected ${back - signaled} ms after its gateway was signaled`);
    }
    assert.deepEqual(client.errors.filter(({ data, error }) => (data ?? error?.data)?.code !== 4200), []);
    // A gateway closes no client while it still accepts connections. After that, only the client's own times are known. The client's
    // first gateway may be the one that was signaled second, but not vice versa.
    const until = (to, index) => Math.max(to - CLOSE_DELAY_MS, drained[index] + ACCEPT_S * 1000 - DELIVERY_MS);
    const wasConnected = (number) =>
      presences.some(({ from, to }, index) => from < events.sent[number] && (to === Infinity || events.accepted[number] < until(to, index)));
    const due = events.sent.map((_, number) => number).filter(wasConnected);
    assert.deepEqual(due.filter((number) => !sets[index].has(number)), [], `missed events of ${due.length} that were published while it was connected`);
    connectedShare += due.length / events.sent.length / clients.length;
  }
  assert.ok(connectedShare > 0.25, `clients were connected for ${(100 * connectedShare).toFixed()} % of the events only`);
  await stop();
});

test('publishers are restarted: no publish fails, and every event arrives once and in the same order', needsCluster, async (t) => {
  const { carillon, sender, name, clients, stop } = await cluster(t, 4);
  const published = publish(sender, name);
  const drained = await carillon.roll('publisher');
  const events = await published();
  assert.equal(drained.length, 2, 'each publisher was signaled');
  assertSteady(events);
  await marked(sender, ...clients.map(({ channel }) => channel));
  const sets = receivedBy(clients);
  for (const [index, { absences }] of clients.entries()) {
    assert.deepEqual(absences, [], 'no client is disconnected');
    assert.equal(sets[index].size, events.sent.length, 'all events arrive');
  }
  await stop();
});
