// A restart of a single process, as a supervisor performs it: with any enabled transports, every client is connected over WebSocket
// again within 2.5 s of the signal.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { connected, marked, needsProcess, needsWebSockets, nextCall, start, subscribe, unique } from './harness.mjs';

/** The time limit after the signal. */
const BACK_MS = 2_500;

/** The transports of the documented configuration for networks that may block WebSockets. */
const TRANSPORTS = ['ws', 'wss', 'xhr_streaming', 'xhr_polling'];

const CLIENTS = 50;

const needsOneProcess = process.env.BINARY_IN_CLUSTER ? { skip: 'needs a single process' } : needsProcess;

for (const signal of ['SIGTERM', 'SIGINT']) {
  test(`after ${signal} and a start every client is on WebSocket again within 2.5 s`, { ...needsOneProcess, ...needsWebSockets }, async (t) => {
    const first = await start();
    t.after(() => first.kill('SIGKILL'));
    const options = { enabledTransports: TRANSPORTS };
    const echo = first.echo(t, { options });
    const clients = [echo.connector.pusher, ...Array.from({ length: CLIENTS }, () => first.client(t, { options }))];
    const name = unique('restart');
    const channels = await Promise.all(clients.map(async (client) => subscribe(await connected(client), name)));

    const signaled = performance.now();
    const back = clients.map((client) => nextCall(client.connection, 'connected').then(() => performance.now() - signaled));
    const joined = channels.map((channel) => nextCall(channel, 'pusher:subscription_succeeded'));
    await first.kill(signal);
    const second = await start({ port: first.port });
    t.after(() => second.stop());

    const slowest = Math.max(...(await Promise.all(back)));
    assert.ok(slowest <= BACK_MS, `the last client reconnected after ${slowest.toFixed()} ms`);
    assert.deepEqual([...new Set(clients.map((client) => client.connection.connection.transport.name))], ['ws']);
    for (const client of clients) {
      assert.deepEqual([...new Set(client.errors.map(({ data, error }) => (data ?? error?.data)?.code))], [4100]);
    }
    await Promise.all(joined);
    await marked(second.sender(), ...channels);
  });
}
