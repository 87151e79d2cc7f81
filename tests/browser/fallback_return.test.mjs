// The way back: pusher-js after a network allows WebSockets again, and after the server stops while the client is on HTTP.

import assert from 'node:assert/strict';
import { after, describe } from 'node:test';

import { requestsOf, documentedSnippet, expectEvent, receivedBy, subscribe, live, startClient, statesOf } from './client.mjs';
import { eventually, launch, expectUnchanged } from './harness.mjs';
import { metric, scenario, sender, servePages, startNginx, startNode } from './network.mjs';

const browser = await launch({ after });

const BLOCKED = { webSockets: 'forbidden' };
const POLLING = { webSockets: 'forbidden', streams: 'forbidden' };

/** Starts a node, nginx, pages, and a client with subscriptions to `news`, `private-orders` and `presence-room`. */
async function setUp(t, { network = BLOCKED, server, library = 'pusher-js', prepare } = {}) {
  const node = await startNode(t, { server });
  const pages = await servePages(t);
  const nginx = await startNginx(t, { gateways: [node], pages, network });
  const snippet = documentedSnippet(library, nginx);
  const ana = await startClient(t, browser, { url: nginx.url, snippet, prepare });
  const connected = await live(ana);
  for (const channel of ['news', 'private-orders', 'presence-room']) await subscribe(ana, channel);
  return { node, pages, nginx, ana, connected, carillon: sender(node) };
}

/** Returns the channel of each confirmed subscription, in order. */
async function subscriptionsOf(page) {
  const joins = (await receivedBy(page)).filter(({ event }) => event === 'pusher:subscription_succeeded');
  return joins.map(({ channel }) => channel);
}

/** Waits for the `nth` subscription to each channel, publishes an event and asserts that the client receives it. */
async function expectBack(carillon, page, nth) {
  for (const channel of ['news', 'private-orders', 'presence-room']) {
    const count = async () => (await subscriptionsOf(page)).filter((name) => name === channel).length;
    await eventually(async () => (await count()) >= nth, `${channel} to be subscribed again`);
    await carillon.trigger(channel, `back-${nth}`, { nth });
    await expectEvent(page, channel, `back-${nth}`, { nth });
  }
}

describe('return to WebSockets', { concurrency: 4 }, () => {
  for (const [network, transport] of [[BLOCKED, 'xhr_streaming'], [POLLING, 'xhr_polling']]) {
    scenario(`the client returns from ${transport} when WebSockets work again and the server requests a reconnect`, async (t) => {
      const library = transport === 'xhr_polling' ? 'Echo' : 'pusher-js';
      const { node, nginx, ana, connected, carillon } = await setUp(t, { network, library, server: 'fallback_reconnect = "10s"' });
      assert.equal(connected.transport, transport);
      await carillon.trigger('news', 'meanwhile', {});
      await expectEvent(ana, 'news', 'meanwhile');
      await nginx.setNetwork({});

      const returned = await live(ana, { nth: 2, transport: 'ws' });
      assert.notEqual(returned.socketId, connected.socketId);
      const states = await statesOf(ana);
      const at = states.findIndex(({ transport }) => transport === 'ws');
      assert.deepEqual(states.slice(at - 2, at + 1).map(({ state }) => state), ['connected', 'connecting', 'connected']);
      assert.equal(states[at - 2].transport, transport);
      const [offer] = (await ana.evaluate(() => errors)).filter(({ code }) => code === 4200);
      assert.match(offer.message, /reconnect/i);

      const times = states.filter(({ state }) => state === 'connected').length;
      await expectBack(carillon, ana, times);
      assert.equal((await receivedBy(ana)).filter(({ event }) => event === 'meanwhile').length, 1);
      assert.equal(await metric([node], 'carillon_connections', 'transport="websocket"'), 1);
      await eventually(async () => (await metric([node], 'carillon_connections', 'transport="xhr')) === 0, 'the fallback session to end');
      // The server requests a reconnect only over HTTP, and never on a WebSocket.
      await expectUnchanged(ana);
    });
  }

  scenario('a client whose WebSocket is lost and then blocked continues over HTTP with the same channels', async (t) => {
    const { node, nginx, ana, connected, carillon } = await setUp(t, { network: {} });
    assert.equal(connected.transport, 'ws');
    await nginx.setNetwork(BLOCKED);
    await node.stop();
    await node.startAgain();
    assert.match((await live(ana, { nth: 2 })).transport, /^xhr_/);
    await expectBack(carillon, ana, 2);
    await expectUnchanged(ana);
  });

  scenario('pusher-js tries HTTP first for 30 minutes after it was used five times in a row', async (t) => {
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
      // This is the reason for the 31 minutes of `server.fallback_reconnect`.
      { count: 4, minutes: 31, transport: 'ws' },
    ]) {
      const prepare = (page) => remember(page, count, minutes);
      const ana = await startClient(t, browser, { url: pages, snippet: documentedSnippet('pusher-js', node), prepare });
      assert.equal((await live(ana)).transport, transport, `${count} times, ${minutes} minutes ago`);
    }
  });
});

describe('the server stops', { concurrency: 4 }, () => {
  for (const [network, transport] of [[BLOCKED, 'xhr_streaming'], [POLLING, 'xhr_polling']]) {
    scenario(`stopped and started again, with a client on ${transport}`, async (t) => {
      const { node, ana, connected, carillon } = await setUp(t, { network });
      assert.equal(connected.transport, transport);
      await node.stop();
      await eventually(async () => (await statesOf(ana)).at(-1).state !== 'connected', 'the client to detect the end');
      const codes = (await ana.evaluate(() => errors)).map(({ code }) => code);
      assert.deepEqual([...new Set(codes)], [4100]);
      await node.startAgain();
      const again = await live(ana, { nth: 2 });
      // pusher-js does not penalize the transport for a clean close.
      assert.match(again.transport, transport === 'xhr_polling' ? /^xhr_polling$/ : /^xhr_/);
      await expectBack(carillon, ana, 2);
      await expectUnchanged(ana);
    });

    scenario(`killed and started again, with a client on ${transport}`, async (t) => {
      const { node, ana, carillon } = await setUp(t, { network });
      await node.kill('SIGKILL');
      await node.startAgain();
      await live(ana, { nth: 2 });
      await expectBack(carillon, ana, 2);
      await expectUnchanged(ana);
    });
  }

  scenario('killed and started between two polls: the new process rejects the session, and the client opens another', async (t) => {
    const node = await startNode(t);
    const pages = await servePages(t);
    const nginx = await startNginx(t, { gateways: [node], pages, network: POLLING });
    const carillon = sender(node);
    let held;
    let hold = false;
    const prepare = (page) => page.route(/\/xhr\?/, (route) => (hold ? void (held = route) : route.continue()));
    const ana = await startClient(t, browser, { url: nginx.url, snippet: documentedSnippet('pusher-js', nginx), prepare });
    const before = await live(ana);
    for (const channel of ['news', 'private-orders', 'presence-room']) await subscribe(ana, channel);

    hold = true;
    await carillon.trigger('news', 'last', {});
    await expectEvent(ana, 'news', 'last');
    await eventually(() => held, 'the next poll');
    await node.kill('SIGKILL');
    await node.startAgain();
    assert.equal((await statesOf(ana)).at(-1).state, 'connected', 'the client has not detected the end');
    hold = false;
    await held.continue();

    const after = await live(ana, { nth: 2 });
    assert.equal(after.transport, 'xhr_polling');
    assert.notEqual(after.socketId, before.socketId);
    await expectBack(carillon, ana, 2);
    const sessions = new Set(requestsOf(ana, 'xhr').map(({ url }) => new URL(url).pathname));
    assert(sessions.size > 1, `sessions: ${[...sessions]}`);
    // The session without requests ends, together with its member.
    await eventually(async () => (await metric([node], 'carillon_connections', 'transport="xhr')) === 1, 'the lost session to end');
    await expectUnchanged(ana);
  });
});
