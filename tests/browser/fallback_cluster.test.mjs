// HTTP fallback in a cluster: two gateways, a publisher and Redis behind nginx. The requests of a client reach any gateway.

import assert from 'node:assert/strict';
import { after, describe } from 'node:test';

import { requestsOf, documentedSnippet, exercise, flood, expectEvent, receivedBy, subscribe, live, startClient, statesOf } from './client.mjs';
import { eventually, launch, expectUnchanged } from './harness.mjs';
import { metric, scenario, sender, servePages, startNginx, startNode, startRedis } from './network.mjs';

const browser = await launch({ after });

/** Networks without WebSockets that alternate the requests of a session between both gateways. */
const IN_TURN = {
  xhr_streaming: { webSockets: 'forbidden', sticky: false },
  xhr_polling: { webSockets: 'forbidden', streams: 'forbidden', sticky: false },
};

/** Starts a cluster and connects clients of two users. */
async function setUp(t, network) {
  const redis = await startRedis(t);
  const [first, second, publisher] = await Promise.all(['gateway', 'gateway', 'publisher'].map((role) => startNode(t, { role, redis })));
  const gateways = [first, second];
  const pages = await servePages(t);
  const nginx = await startNginx(t, { gateways, publishers: [publisher], pages, network });
  // With the same origin there are no preflights between two requests of a session, and the requests do alternate.
  const open = (user, library) => startClient(t, browser, { url: nginx.url, user, snippet: documentedSnippet(library, nginx) });
  const [ana, bo] = await Promise.all([open('ana', 'pusher-js'), open('bo', 'Echo')]);
  for (const page of [ana, bo]) await live(page);
  return { gateways, publisher, nginx, ana, bo, carillon: sender(publisher) };
}

const forwarded = (gateways, result = '') => metric(gateways, 'carillon_fallback_forwarded_total', result && `result="${result}"`);

const timesConnected = async (page) => (await statesOf(page)).filter(({ state }) => state === 'connected').length;

/** Publishes after both clients have subscribed on their current connection. Asserts that both receive the event once. */
async function expectDelivery(carillon, pages, event) {
  for (const page of pages) {
    // A client may detect the end of its gateway late. The subscription does not succeed on a lost connection.
    await subscribe(page, `live-${event}`);
    const isRoom = (each) => each.channel === 'presence-room' && each.event === 'pusher:subscription_succeeded';
    const timesJoined = async () => (await receivedBy(page)).filter(isRoom).length;
    await eventually(async () => (await timesJoined()) === (await timesConnected(page)), 'the channel to be subscribed again');
  }
  await carillon.trigger('presence-room', event, {});
  for (const page of pages) {
    await expectEvent(page, 'presence-room', event);
    assert.equal((await receivedBy(page)).filter((each) => each.event === event).length, 1);
  }
}

describe('HTTP fallback in a cluster', { concurrency: 3 }, () => {
  for (const [transport, network] of Object.entries(IN_TURN)) {
    scenario(`alternating gateways: all features work over ${transport}`, async (t) => {
      const { gateways, ana, bo, carillon } = await setUp(t, network);
      for (const page of [ana, bo]) assert.equal((await live(page)).transport, transport);
      for (const label of ['a', 'b', 'c']) await exercise(carillon.trigger.bind(carillon), ana, bo, label);
      for (const page of [ana, bo]) {
        assert.equal(await timesConnected(page), 1, 'without a reconnect');
        assert.deepEqual(await page.evaluate(() => errors), []);
      }
      assert((await forwarded(gateways, 'answered')) > 0, 'requests were forwarded');
      assert.equal(await forwarded(gateways), await forwarded(gateways, 'answered'), 'every forwarded request succeeded');
      await expectUnchanged(ana, bo);
    });

    scenario(`alternating gateways: 2 MiB over ${transport} arrive in order`, async (t) => {
      const { gateways, ana, bo, carillon } = await setUp(t, network);
      await Promise.all([subscribe(ana, 'flood'), subscribe(bo, 'flood')]);
      await flood(carillon, [ana, bo], 'flood', 5);
      for (const page of [ana, bo]) {
        assert.equal(await timesConnected(page), 1, 'without a reconnect');
        assert(requestsOf(page, transport === 'xhr_streaming' ? 'xhr_streaming' : 'xhr').length > 5);
      }
      assert((await forwarded(gateways, 'answered')) > 0, 'requests were forwarded');
    });

    for (const [how, end] of [['killed', (node) => node.kill('SIGKILL')], ['stopped', (node) => node.stop()]]) {
      scenario(`alternating gateways: one is ${how}, and clients on ${transport} use the other, then both again`, async (t) => {
        const { gateways, ana, bo, carillon } = await setUp(t, network);
        for (const page of [ana, bo]) await subscribe(page, 'presence-room');
        for (const [index, node] of gateways.entries()) {
          const others = await metric([gateways[1 - index]], 'carillon_connections', 'transport="xhr');
          const before = await Promise.all([ana, bo].map(timesConnected));
          await end(node);
          const onOther = () => metric([gateways[1 - index]], 'carillon_connections', 'transport="xhr');
          await eventually(async () => (await onOther()) === 2, 'both clients to be on the other gateway');
          await expectDelivery(carillon, [ana, bo], `without-${index}`);
          const after = await Promise.all([ana, bo].map(timesConnected));
          const moved = after.filter((times, client) => times > before[client]).length;
          // A client of the other gateway moves only if the ended gateway was forwarding one of its requests.
          assert(moved >= 2 - others, 'all clients of the ended gateway moved');
          await node.startAgain();
          await expectDelivery(carillon, [ana, bo], `with-${index}-again`);
        }
        await expectUnchanged(ana, bo);
      });
    }
  }

  scenario('with the nginx of deploy/nginx all requests of a session reach one gateway and none is forwarded', async (t) => {
    const { gateways, ana, bo, carillon } = await setUp(t, { webSockets: 'forbidden' });
    await exercise(carillon.trigger.bind(carillon), ana, bo, 'a');
    assert.equal(await forwarded(gateways), 0);
  });
});
