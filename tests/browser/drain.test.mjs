// A gateway of two is drained while 200 clients are connected through nginx: those that it had come back evenly over the window. A
// browser acts on the end of TCP and not on the close frame, so this is where a drain shows that keeps connections open.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { after, describe } from 'node:test';

import { APP, eventually, launch, open, servePlainPage } from './harness.mjs';
import { metric, scenario, servePages, startNginx, startNode, startRedis } from './network.mjs';

const browser = await launch({ after });
const Pusher = createRequire(new URL('../../examples/package.json', import.meta.url))('pusher-js');

const CLIENTS = 200;
const WINDOW_MS = 10_000;

/** From the loss of a connection to the next one: at once in principle, and this process and the browser are busy. */
const BACK_MS = 2_500;

/** Starts clients and notes the end of each connection and its next beginning; runs in a page, and in Node. */
function start({ Pusher, host, port, key, count }) {
  const clients = [];
  for (let index = 0; index < count; index += 1) {
    const options = { wsHost: host, wsPort: port, wssPort: port, forceTLS: false, enabledTransports: ['ws'], disableStats: true, cluster: '' };
    const noted = { connected: false, lost: [], back: [] };
    const { connection } = new Pusher(key, options);
    connection.bind('state_change', ({ previous, current }) => {
      noted.connected = current === 'connected';
      if (previous === 'connected') noted.lost.push(Date.now());
      else if (noted.connected && noted.lost.length > 0) noted.back.push(Date.now());
    });
    noted.end = () => connection.disconnect();
    clients.push(noted);
  }
  return clients;
}

/** Starts the clients in Chromium; `look()` resolves with what they noted. */
async function inChromium(t, parameters) {
  const page = await open(t, browser, await servePlainPage(t));
  await page.evaluate(`window.clients = (${start})({ Pusher, ...${JSON.stringify(parameters)} }); undefined`);
  return { look: () => page.evaluate(() => JSON.parse(JSON.stringify(window.clients))), end: () => page.evaluate(() => window.clients.forEach(({ end }) => end())) };
}

/** Starts them in this process. */
async function inNode(t, parameters) {
  const clients = start({ Pusher, ...parameters });
  return { look: async () => clients, end: async () => clients.forEach(({ end }) => end()) };
}

describe('one gateway of two is drained', { concurrency: 2 }, () => {
  for (const [where, run] of Object.entries({ Chromium: inChromium, Node: inNode })) {
    scenario(`the clients that it had come back evenly over the window, in ${where}`, async (t) => {
      const redis = await startRedis(t);
      const drain = `window = "${WINDOW_MS}ms"`;
      const gateways = await Promise.all([0, 1].map(() => startNode(t, { role: 'gateway', redis, drain })));
      const nginx = await startNginx(t, { gateways, publishers: gateways, pages: await servePages(t) });
      const { look, end } = await run(t, { host: nginx.host, port: nginx.port, key: APP.key, count: CLIENTS });
      await eventually(async () => (await look()).every(({ connected }) => connected), 'all clients to be connected');
      const moved = await metric([gateways[0]], 'carillon_connections', 'transport="websocket"');
      assert.ok(moved > CLIENTS / 4, `nginx gave the gateway ${moved} of ${CLIENTS} clients`);

      const signaled = Date.now();
      await gateways[0].stop();
      await eventually(async () => (await look()).every(({ connected, lost, back }) => connected && lost.length === back.length), 'all clients to be back');
      const clients = await look();
      assert.equal(clients.filter(({ lost }) => lost.length > 0).length, moved, 'those of the other gateway stay');
      assert.ok(clients.every(({ lost }) => lost.length <= 1), 'none is moved twice');
      const absences = clients.flatMap(({ lost, back }) => lost.map((at, index) => ({ lost: at - signaled, back: back[index] - signaled })));
      const slowest = Math.max(...absences.map(({ lost, back }) => back - lost));
      assert.ok(slowest <= BACK_MS, `a client was back ${slowest} ms after it was closed`);
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
