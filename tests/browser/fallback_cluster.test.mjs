// Falling back in a cluster: two gateways, a publisher and Redis behind nginx, where a client is on HTTP with any of them.

import assert from 'node:assert/strict';
import { after, describe } from 'node:test';

import { asked, documented, exercise, flood, hears, heardBy, joins, live, startClient, statesOf } from './client.mjs';
import { eventually, launch, unchanged } from './harness.mjs';
import { metric, scenario, sender, servePages, startNginx, startNode, startRedis } from './network.mjs';

const browser = await launch({ after });

/** A network without WebSockets, in which requests of one session go to both gateways in turn. */
const IN_TURN = {
  xhr_streaming: { webSockets: 'forbidden', sticky: false },
  xhr_polling: { webSockets: 'forbidden', streams: 'forbidden', sticky: false },
};

/** A cluster, and clients of two users that are live. */
async function setUp(t, network) {
  const redis = await startRedis(t);
  const [first, second, publisher] = await Promise.all(['gateway', 'gateway', 'publisher'].map((role) => startNode(t, { role, redis })));
  const gateways = [first, second];
  const pages = await servePages(t);
  const nginx = await startNginx(t, { gateways, publishers: [publisher], pages, network });
  // Of the same origin: no preflight comes between two requests of a session, so they do go to both in turn.
  const open = (user, library) => startClient(t, browser, { url: nginx.url, user, snippet: documented(library, nginx) });
  const [ana, bo] = await Promise.all([open('ana', 'pusher-js'), open('bo', 'Echo')]);
  for (const page of [ana, bo]) await live(page);
  return { gateways, publisher, nginx, ana, bo, carillon: sender(publisher) };
}

const passedOn = (gateways, result = '') => metric(gateways, 'carillon_fallback_forwarded_total', result && `result="${result}"`);

const timesConnected = async (page) => (await statesOf(page)).filter(({ state }) => state === 'connected').length;

/** Publishes once both have joined in the connection that they have, and asserts that both hear it once. */
async function areHeard(carillon, pages, event) {
  for (const page of pages) {
    // A client may be slow to notice that its gateway is gone. Over a connection that is lost this does not succeed.
    await joins(page, `live-${event}`);
    const isRoom = (each) => each.channel === 'presence-room' && each.event === 'pusher:subscription_succeeded';
    const timesJoined = async () => (await heardBy(page)).filter(isRoom).length;
    await eventually(async () => (await timesJoined()) === (await timesConnected(page)), 'the channel to be joined again');
  }
  await carillon.trigger('presence-room', event, {});
  for (const page of pages) {
    await hears(page, 'presence-room', event);
    assert.equal((await heardBy(page)).filter((each) => each.event === event).length, 1);
  }
}

describe('falling back in a cluster', { concurrency: 3 }, () => {
  for (const [transport, network] of Object.entries(IN_TURN)) {
    scenario(`two gateways in turn: everything works over ${transport}`, async (t) => {
      const { gateways, ana, bo, carillon } = await setUp(t, network);
      for (const page of [ana, bo]) assert.equal((await live(page)).transport, transport);
      for (const label of ['a', 'b', 'c']) await exercise(carillon.trigger.bind(carillon), ana, bo, label);
      for (const page of [ana, bo]) {
        assert.equal(await timesConnected(page), 1, 'without a reconnect');
        assert.deepEqual(await page.evaluate(() => errors), []);
      }
      assert((await passedOn(gateways, 'answered')) > 0, 'requests were passed on');
      assert.equal(await passedOn(gateways), await passedOn(gateways, 'answered'), 'none in vain');
      await unchanged(ana, bo);
    });

    scenario(`two gateways in turn: 2 MiB over ${transport} arrive in order`, async (t) => {
      const { gateways, ana, bo, carillon } = await setUp(t, network);
      await Promise.all([joins(ana, 'rain'), joins(bo, 'rain')]);
      await flood(carillon, [ana, bo], 'rain', 5);
      for (const page of [ana, bo]) {
        assert.equal(await timesConnected(page), 1, 'without a reconnect');
        assert(asked(page, transport === 'xhr_streaming' ? 'xhr_streaming' : 'xhr').length > 5);
      }
      assert((await passedOn(gateways, 'answered')) > 0, 'requests were passed on');
    });

    for (const [how, leave] of [['killed', (node) => node.kill('SIGKILL')], ['stopped', (node) => node.stop()]]) {
      scenario(`two gateways in turn: one is ${how}, and clients on ${transport} go on with the other, and with both again`, async (t) => {
        const { gateways, ana, bo, carillon } = await setUp(t, network);
        for (const page of [ana, bo]) await joins(page, 'presence-room');
        for (const [index, node] of gateways.entries()) {
          const others = await metric([gateways[1 - index]], 'carillon_connections', 'transport="xhr');
          const before = await Promise.all([ana, bo].map(timesConnected));
          await leave(node);
          const onOther = () => metric([gateways[1 - index]], 'carillon_connections', 'transport="xhr');
          await eventually(async () => (await onOther()) === 2, 'both to be on the other');
          await areHeard(carillon, [ana, bo], `without-${index}`);
          const after = await Promise.all([ana, bo].map(timesConnected));
          const moved = after.filter((times, client) => times > before[client]).length;
          // Others only if a request of theirs was passed on by the one that left.
          assert(moved >= 2 - others, 'those who were there had to move');
          await node.again();
          await areHeard(carillon, [ana, bo], `with-${index}-again`);
        }
        await unchanged(ana, bo);
      });
    }
  }

  scenario('the nginx of deploy/nginx sends all of a session to one gateway, so nothing is passed on', async (t) => {
    const { gateways, ana, bo, carillon } = await setUp(t, { webSockets: 'forbidden' });
    await exercise(carillon.trigger.bind(carillon), ana, bo, 'a');
    assert.equal(await passedOn(gateways), 0);
  });
});
