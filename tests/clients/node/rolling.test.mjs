// Rolling restarts that nobody notices: real clients and a real sender through nginx, while events go on.

import assert from 'node:assert/strict';
import { Agent } from 'node:http';
import { test } from 'node:test';

import { APPS, connected, marked, needsCluster, record, start, subscribe, unique, joined } from './harness.mjs';

const CLIENTS = 60;
const EVENTS_PER_SECOND = 200;
const ACCEPT_S = 1;
const WINDOW_S = 2;

/** From a node's being told to leave until all of its clients are back: the promise, and what coming back takes. */
const BACK_MS = (ACCEPT_S + WINDOW_S + 2) * 1000;

/** An event that was taken so long before a gateway closes its first client has reached all of them. */
const UNDER_WAY_MS = 500;

/** This process, busy with clients of its own, notices a close later than it was sent; never by so much. */
const NOTICED_MS = 2000;

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

/** A publish is answered within this time, on a busy machine too; the promise for a Redis that is away is 3 s. */
const ANSWER_MS = 5000;

/** Milliseconds since 1970, as the cluster tells them. */
const now = () => performance.timeOrigin + performance.now();

/**
 * Publishes numbers at a steady rate until told to stop; resolves with `sent` and `taken`, when each number was, with what failed,
 * and with how many of a second's were taken.
 */
function publish(sender, channel) {
  const [failures, sent, taken, pending] = [[], [], [], new Set()];
  const began = now();
  const timer = setInterval(() => {
    // What a late timer missed is made up for.
    while (sent.length < ((now() - began) / 1000) * EVENTS_PER_SECOND) {
      const number = sent.push(now()) - 1;
      const done = sender.trigger(channel, 'tick', number).then(
        (response) => (response.status === 200 ? (taken[number] = now()) : failures.push(response.status)),
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
    const rate = taken.filter(Boolean).length / seconds;
    return { sent, taken, failures, rate };
  };
}

/** Keeps when a client was lost and back, and from when to when it was subscribed. */
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

/** A cluster that ends with the test, with a sender and so many subscribers of one channel. */
async function cluster(t, count) {
  const carillon = await start({ configuration: CONFIGURATION });
  let stopped = false;
  t.after(() => stopped || carillon.kill('SIGTERM'));
  // Enough that a slow answer holds up no other.
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

/** The numbers that each client heard: none twice, and what two of them heard in the same order. */
function heard(clients) {
  const all = clients.map(({ list }) => list.filter(({ event }) => event === 'tick').map(({ data }) => data));
  const sets = all.map((ticks) => new Set(ticks));
  for (const [index, ticks] of all.entries()) {
    assert.equal(ticks.length, sets[index].size, 'none twice');
    assert.deepEqual(ticks.filter((number) => sets[0].has(number)), all[0].filter((number) => sets[index].has(number)), 'one order');
  }
  return sets;
}

/** Nothing failed, and the rate was kept without a queue: a sender that waits would hide what goes wrong. */
function assertSteady({ sent, taken, failures, rate }) {
  assert.deepEqual(failures, [], `of ${sent.length} publishes`);
  const slowest = Math.max(...taken.map((at, number) => at - sent[number]));
  assert.ok(slowest < ANSWER_MS, `a publish took ${slowest.toFixed()} ms`);
  assert.ok(rate >= 0.9 * EVENTS_PER_SECOND, `only ${rate.toFixed(1)} of ${EVENTS_PER_SECOND} events a second were taken`);
}

test('gateways are replaced: clients are back in time, miss nothing while they are there, and no publish fails', needsCluster, async (t) => {
  const { carillon, sender, name, clients, stop } = await cluster(t, CLIENTS);
  const published = publish(sender, name);
  const told = await carillon.roll('gateway');
  const events = await published();
  assertSteady(events);
  // A marker reaches everyone: each is back and subscribed again.
  await Promise.all(clients.map(({ channel }) => joined(channel)));
  await marked(sender, ...clients.map(({ channel }) => channel));
  assert.equal(told.length, 2, 'each gateway was told');
  const sets = heard(clients);
  let there = 0;
  for (const [index, { client, absences, presences }] of clients.entries()) {
    assert.ok(absences.length >= 1, 'each gateway was restarted, so each client was moved');
    for (const { lost, back } of absences) {
      const order = told.findLast((order) => order <= lost);
      assert.ok(order !== undefined, `lost ${told[0] - lost} ms before any gateway was told to leave`);
      assert.ok(back - order <= BACK_MS, `back ${back - order} ms after its gateway was told to leave`);
    }
    assert.deepEqual(client.errors.filter(({ data, error }) => (data ?? error?.data)?.code !== 4200), []);
    // Nobody is closed while the gateway still accepts; of what comes after that only the client's own word tells. Its first
    // gateway may be the one that was told second, but not the other way round.
    const until = (to, index) => Math.max(to - NOTICED_MS, told[index] + ACCEPT_S * 1000 - UNDER_WAY_MS);
    const wasThere = (number) =>
      presences.some(({ from, to }, index) => from < events.sent[number] && (to === Infinity || events.taken[number] < until(to, index)));
    const due = events.sent.map((_, number) => number).filter(wasThere);
    assert.deepEqual(due.filter((number) => !sets[index].has(number)), [], `of ${due.length} events that were published while it was there`);
    there += due.length / events.sent.length / clients.length;
  }
  assert.ok(there > 0.25, `clients were there for ${(100 * there).toFixed()} % of the events only`);
  await stop();
});

test('publishers are replaced: no publish fails, and every event arrives once and in one order', needsCluster, async (t) => {
  const { carillon, sender, name, clients, stop } = await cluster(t, 4);
  const published = publish(sender, name);
  const told = await carillon.roll('publisher');
  const events = await published();
  assert.equal(told.length, 2, 'each publisher was told');
  assertSteady(events);
  await marked(sender, ...clients.map(({ channel }) => channel));
  const sets = heard(clients);
  for (const [index, { absences }] of clients.entries()) {
    assert.deepEqual(absences, [], 'clients are on gateways');
    assert.equal(sets[index].size, events.sent.length, 'all of them');
  }
  await stop();
});
