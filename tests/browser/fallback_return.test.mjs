// Coming back: what pusher-js does once WebSockets are let through again, and when the server goes away while it is on HTTP.

import assert from 'node:assert/strict';
import { after, describe } from 'node:test';

import { asked, documented, hears, heardBy, joins, live, startClient, statesOf } from './client.mjs';
import { eventually, launch, unchanged } from './harness.mjs';
import { metric, scenario, sender, servePages, startNginx, startNode } from './network.mjs';

const browser = await launch({ after });

const BLOCKED = { webSockets: 'forbidden' };
const POLLING = { webSockets: 'forbidden', streams: 'forbidden' };

/** Node, nginx, pages, and a client that is live and has joined `news`, `private-orders` and `presence-room`. */
async function setUp(t, { network = BLOCKED, server, library = 'pusher-js', prepare } = {}) {
  const node = await startNode(t, { server });
  const pages = await servePages(t);
  const nginx = await startNginx(t, { gateways: [node], pages, network });
  const snippet = documented(library, nginx);
  const ana = await startClient(t, browser, { url: nginx.url, snippet, prepare });
  const connected = await live(ana);
  for (const channel of ['news', 'private-orders', 'presence-room']) await joins(ana, channel);
  return { node, pages, nginx, ana, connected, carillon: sender(node) };
}

/** The channels that the client has joined, each as often as it has. */
async function joinedBy(page) {
  const joins = (await heardBy(page)).filter(({ event }) => event === 'pusher:subscription_succeeded');
  return joins.map(({ channel }) => channel);
}

/** Publishes once the client has joined its channels for the `nth` time, and asserts that it hears all of it. */
async function isBack(carillon, page, nth) {
  for (const channel of ['news', 'private-orders', 'presence-room']) {
    const count = async () => (await joinedBy(page)).filter((name) => name === channel).length;
    await eventually(async () => (await count()) >= nth, `${channel} to be joined again`);
    await carillon.trigger(channel, `back-${nth}`, { nth });
    await hears(page, channel, `back-${nth}`, { nth });
  }
}

describe('coming back', { concurrency: 4 }, () => {
  for (const [network, transport] of [[BLOCKED, 'xhr_streaming'], [POLLING, 'xhr_polling']]) {
    scenario(`WebSockets are let through again: from ${transport} the client returns when the server offers a reconnect`, async (t) => {
      const library = transport === 'xhr_polling' ? 'Echo' : 'pusher-js';
      const { node, nginx, ana, connected, carillon } = await setUp(t, { network, library, server: 'fallback_reconnect = "10s"' });
      assert.equal(connected.transport, transport);
      await carillon.trigger('news', 'meanwhile', {});
      await hears(ana, 'news', 'meanwhile');
      await nginx.becomes({});

      const returned = await live(ana, { nth: 2, transport: 'ws' });
      assert.notEqual(returned.socketId, connected.socketId);
      const states = await statesOf(ana);
      const at = states.findIndex(({ transport }) => transport === 'ws');
      assert.deepEqual(states.slice(at - 2, at + 1).map(({ state }) => state), ['connected', 'connecting', 'connected']);
      assert.equal(states[at - 2].transport, transport);
      const [offer] = (await ana.evaluate(() => errors)).filter(({ code }) => code === 4200);
      assert.match(offer.message, /reconnect/i);

      const times = states.filter(({ state }) => state === 'connected').length;
      await isBack(carillon, ana, times);
      assert.equal((await heardBy(ana)).filter(({ event }) => event === 'meanwhile').length, 1);
      assert.equal(await metric([node], 'carillon_connections', 'transport="websocket"'), 1);
      await eventually(async () => (await metric([node], 'carillon_connections', 'transport="xhr')) === 0, 'no session to be left over');
      // The offer is for those on HTTP: a WebSocket is left alone.
      await unchanged(ana);
    });
  }

  scenario('a WebSocket that is lost, and blocked from then on, is followed by HTTP with the same channels', async (t) => {
    const { node, nginx, ana, connected, carillon } = await setUp(t, { network: {} });
    assert.equal(connected.transport, 'ws');
    await nginx.becomes(BLOCKED);
    await node.stop();
    await node.again();
    assert.match((await live(ana, { nth: 2 })).transport, /^xhr_/);
    await isBack(carillon, ana, 2);
    await unchanged(ana);
  });

  scenario('what pusher-js remembers of HTTP: from the sixth time in a row it comes first, for 30 minutes', async (t) => {
    const node = await startNode(t);
    const pages = await servePages(t);
    const remember = (page, cacheSkipCount, minutes) =>
      page.evaluate(([count, age]) => {
        const cached = { timestamp: Date.now() - age * 60_000, transport: 'xhr_streaming', latency: 500, cacheSkipCount: count };
        localStorage.pusherTransportNonTLS = JSON.stringify(cached);
      }, [cacheSkipCount, minutes]);
    for (const { count, minutes, transport } of [
      { count: 0, minutes: 1, transport: 'ws' },
      { count: 3, minutes: 1, transport: 'ws' },
      { count: 4, minutes: 1, transport: 'xhr_streaming' },
      { count: 4, minutes: 29, transport: 'xhr_streaming' },
      // So `server.fallback_reconnect` is 31 minutes.
      { count: 4, minutes: 31, transport: 'ws' },
    ]) {
      const prepare = (page) => remember(page, count, minutes);
      const ana = await startClient(t, browser, { url: pages, snippet: documented('pusher-js', node), prepare });
      assert.equal((await live(ana)).transport, transport, `${count} times, ${minutes} minutes ago`);
    }
  });
});

describe('the server goes away', { concurrency: 4 }, () => {
  for (const [network, transport] of [[BLOCKED, 'xhr_streaming'], [POLLING, 'xhr_polling']]) {
    scenario(`stopped and started again, with a client on ${transport}`, async (t) => {
      const { node, ana, connected, carillon } = await setUp(t, { network });
      assert.equal(connected.transport, transport);
      await node.stop();
      await eventually(async () => (await statesOf(ana)).at(-1).state !== 'connected', 'the client to notice');
      const codes = (await ana.evaluate(() => errors)).map(({ code }) => code);
      assert.deepEqual([...new Set(codes)], [4100]);
      await node.again();
      const again = await live(ana, { nth: 2 });
      // A clean end costs the transport nothing.
      assert.match(again.transport, transport === 'xhr_polling' ? /^xhr_polling$/ : /^xhr_/);
      await isBack(carillon, ana, 2);
      await unchanged(ana);
    });

    scenario(`killed and started again, with a client on ${transport}`, async (t) => {
      const { node, ana, carillon } = await setUp(t, { network });
      await node.kill('SIGKILL');
      await node.again();
      await live(ana, { nth: 2 });
      await isBack(carillon, ana, 2);
      await unchanged(ana);
    });
  }

  scenario('killed and back between two polls, the new one does not know the session, and the client begins another', async (t) => {
    const node = await startNode(t);
    const pages = await servePages(t);
    const nginx = await startNginx(t, { gateways: [node], pages, network: POLLING });
    const carillon = sender(node);
    let held;
    let hold = false;
    const prepare = (page) => page.route(/\/xhr\?/, (route) => (hold ? void (held = route) : route.continue()));
    const ana = await startClient(t, browser, { url: nginx.url, snippet: documented('pusher-js', nginx), prepare });
    const before = await live(ana);
    for (const channel of ['news', 'private-orders', 'presence-room']) await joins(ana, channel);

    hold = true;
    await carillon.trigger('news', 'last', {});
    await hears(ana, 'news', 'last');
    await eventually(() => held, 'the next poll');
    await node.kill('SIGKILL');
    await node.again();
    assert.equal((await statesOf(ana)).at(-1).state, 'connected', 'it has not noticed');
    hold = false;
    await held.continue();

    const after = await live(ana, { nth: 2 });
    assert.equal(after.transport, 'xhr_polling');
    assert.notEqual(after.socketId, before.socketId);
    await isBack(carillon, ana, 2);
    const sessions = new Set(asked(ana, 'xhr').map(({ url }) => new URL(url).pathname));
    assert(sessions.size > 1, `sessions: ${[...sessions]}`);
    // The session that nobody came back for is gone, and with it the member that it was.
    await eventually(async () => (await metric([node], 'carillon_connections', 'transport="xhr')) === 1, 'the lost session to be gone');
    await unchanged(ana);
  });
});
