// One of two gateways is drained while 200 clients are connected through nginx. Its clients must reconnect evenly over the window. A
// browser acts on the end of the TCP connection and not on the close frame, which detects a drain that keeps connections open.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, describe } from 'node:test';

import { APP, eventually, launch, open, servePlainPage } from './harness.mjs';
import { metric, scenario, servePages, startNginx, startNode, startRedis } from './network.mjs';

const browser = await launch({ after });
const Pusher = createRequire(new URL('../../examples/package.json', import.meta.url))('pusher-js');

const CLIENTS = 200;
const WINDOW_MS = 10_000;

/** The time limit from the loss of a connection to the next one. It allows for the load on this process and the browser. */
const BACK_MS = 2_500;

/** Starts clients and records the times of lost and restored connections. Runs in a page and in Node. */
function start({ Pusher, host, port, key, count }) {
  const clients = [];
  for (let index = 0; index < count; index += 1) {
    const options = { wsHost: host, wsPort: port, wssPort: port, forceTLS: false, enabledTransports: ['ws'], disableStats: true, cluster: '' };
    const record = { connected: false, lost: [], back: [] };
    const { connection } = new Pusher(key, options);
    connection.bind('state_change', ({ previous, current }) => {
      record.connected = current === 'connected';
      if (previous === 'connected') record.lost.push(Date.now());
      else if (record.connected && record.lost.length > 0) record.back.push(Date.now());
    });
    record.end = () => connection.disconnect();
    clients.push(record);
  }
  return clients;
}

/** Starts the clients in Chromium. `read()` resolves with their records. */
async function inChromium(t, parameters) {
  const page = await open(t, browser, await servePlainPage(t));
  await page.evaluate(`window.clients = (${start})({ Pusher, ...${JSON.stringify(parameters)} }); undefined`);
  return { read: () => page.evaluate(() => JSON.parse(JSON.stringify(window.clients))), end: () => page.evaluate(() => window.clients.forEach(({ end }) => end())) };
}

/** Starts the clients in this process. */
async function inNode(t, parameters) {
  const clients = start({ Pusher, ...parameters });
  return { read: async () => clients, end: async () => clients.forEach(({ end }) => end()) };
}

describe('one gateway of two is drained', { concurrency: 2 }, () => {
  for (const [where, run] of Object.entries({ Chromium: inChromium, Node: inNode })) {
    scenario(`its clients reconnect evenly over the window, in ${where}`, async (t) => {
      const redis = await startRedis(t);
      const drain = `window = "${WINDOW_MS}ms"`;
      const gateways = await Promise.all([0, 1].map(() => startNode(t, { role: 'gateway', redis, drain })));
      const nginx = await startNginx(t, { gateways, publishers: gateways, pages: await servePages(t) });
      const { read, end } = await run(t, { host: nginx.host, port: nginx.port, key: APP.key, count: CLIENTS });
      await eventually(async () => (await read()).every(({ connected }) => connected), 'all clients to be connected');
      const moved = await metric([gateways[0]], 'carillon_connections', 'transport="websocket"');
      assert.ok(moved > CLIENTS / 4, `the gateway has ${moved} of ${CLIENTS} clients`);

      const signaled = Date.now();
      await gateways[0].stop();
      await eventually(async () => (await read()).every(({ connected, lost, back }) => connected && lost.length === back.length), 'all clients to reconnect');
      const clients = await read();
      assert.equal(clients.filter(({ lost }) => lost.length > 0).length, moved, 'the clients of the other gateway stay connected');
      assert.ok(clients.every(({ lost }) => lost.length <= 1), 'no client is moved twice');
      const absences = clients.flatMap(({ lost, back }) => lost.map((at, index) => ({ lost: at - signaled, back: back[index] - signaled })));
      const slowest = Math.max(...absences.map(({ lost, back }) => back - lost));
      assert.ok(slowest <= BACK_MS, `a client reconnected ${slowest} ms after it was closed`);
      for (const side of ['lost', 'back']) {
        const quarters = [0, 0, 0, 0];
        for (const absence of absences) quarters[Math.min(3, Math.floor((absence[side] / WINDOW_MS) * 4))] += 1;
        const share = moved / 4;
        assert.ok(quarters.every((count) => share / 2 <= count && count <= share * 2), `${side} by quarter of the window: ${quarters}`);
      }
      await end();
    });
  }
});
