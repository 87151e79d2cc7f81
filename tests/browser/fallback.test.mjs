// HTTP fallback: unmodified pusher-js and Laravel Echo with the documented configuration, in networks that block WebSockets, and some
// of them streams. nginx has the files of deploy/nginx.

import assert from 'node:assert/strict';
import { after, describe } from 'node:test';

import { requestsOf, documentedSnippet, exercise, flood, subscribe, live, startClient, statesOf } from './client.mjs';
import { eventually, launch, expectUnchanged } from './harness.mjs';
import { metric, scenario, sender, servePages, startNginx, startNode } from './network.mjs';

const TIMES = {
  // The times from `connect()` at which pusher-js starts a transport: protocol reference 6.4. It must connect before the next one.
  plain: { xhr_streaming: 5_000, xhr_polling: 9_000 },
  tls: { xhr_streaming: 2_000, xhr_polling: 6_000 },
};

/** pusher-js stops all transports and starts the next round after this time. */
const ROUND_MS = 15_000;

const browser = await launch({ after });

/** Starts the node, nginx and the pages of one test. */
async function setUp(t, { network, tls, app } = {}) {
  const node = await startNode(t, { app });
  const pages = await servePages(t);
  const nginx = await startNginx(t, { gateways: [node], pages, network, tls });
  return { node, pages, nginx, carillon: sender(node) };
}

/** Asserts that the client connected over the expected transport before the next one would have started. */
function expectTransportInTime({ transport, afterMs }, expected, tls = false) {
  const times = tls ? TIMES.tls : TIMES.plain;
  assert.equal(transport, expected);
  assert(afterMs >= times[expected] - 100, `connected too early, after ${afterMs} ms`);
  const latest = expected === 'xhr_streaming' ? times.xhr_polling : ROUND_MS;
  assert(afterMs < latest, `connected too late, after ${afterMs} ms`);
}

// With more concurrent tests, pages on two cores are too slow for these limits.
describe('HTTP fallback', { concurrency: 2 }, () => {
  const forbidden = { webSockets: 'forbidden' };
  const unanswered = { webSockets: 'unanswered' };
  const reset = { webSockets: 'reset' };
  const noStreams = { ...forbidden, streams: 'forbidden' };
  const buffered = { ...reset, streams: 'buffered' };
  for (const { what, network, library, isSameOrigin, transport, tls } of [
    { what: 'WebSockets get 403', network: forbidden, library: 'pusher-js' },
    { what: 'WebSockets get 403', network: forbidden, library: 'Echo', isSameOrigin: true },
    { what: 'WebSockets get no response', network: unanswered, library: 'Echo' },
    { what: 'WebSockets are reset', network: reset, library: 'pusher-js', isSameOrigin: true },
    { what: 'WebSockets get 403, with TLS', network: forbidden, library: 'Echo', isSameOrigin: true, tls: true },
    { what: 'WebSockets are reset, with TLS', network: reset, library: 'pusher-js', tls: true },
    { what: 'streams get 403 as well', network: noStreams, library: 'Echo', transport: 'xhr_polling' },
    { what: 'streams are buffered', network: buffered, library: 'pusher-js', isSameOrigin: true, transport: 'xhr_polling' },
  ]) {
    const origin = isSameOrigin ? 'with the same origin' : 'with another origin';
    scenario(`${what}: ${library} on a page ${origin} connects over ${transport ?? 'xhr_streaming'}`, async (t) => {
      const { node, pages, nginx, carillon } = await setUp(t, { network, tls });
      const url = isSameOrigin ? nginx.url : pages;
      const ana = await startClient(t, browser, { url, snippet: documentedSnippet(library, nginx) });
      // A client without the restrictions.
      const bo = await startClient(t, browser, { url: pages, user: 'bo', snippet: documentedSnippet(library, node) });
      assert.equal((await live(bo)).transport, 'ws');
      expectTransportInTime(await live(ana), transport ?? 'xhr_streaming', tls);

      await exercise(carillon.trigger.bind(carillon), ana, bo, 'a');
      const sent = requestsOf(ana, 'xhr_send').length;
      assert(sent > 0 && sent <= (await metric([node], 'carillon_fallback_requests_total', 'kind="send"')));
      const preflights = await metric([node], 'carillon_fallback_requests_total', 'kind="preflight"');
      assert.equal(preflights > 0, !isSameOrigin, `${preflights} preflights`);
      assert.equal(await metric([node], 'carillon_connections', `transport="${transport ?? 'xhr_streaming'}"`), 1);
      assert.equal((await statesOf(ana)).filter(({ state }) => state === 'connected').length, 1, 'the client connected once');
      await expectUnchanged(ana, bo);
    });
  }

  scenario('without restrictions clients use WebSockets and send no request to /pusher', async (t) => {
    const { pages, nginx, carillon } = await setUp(t);
    const [ana, bo] = await Promise.all([
      startClient(t, browser, { url: nginx.url, snippet: documentedSnippet('pusher-js', nginx) }),
      startClient(t, browser, { url: pages, user: 'bo', snippet: documentedSnippet('Echo', nginx) }),
    ]);
    for (const page of [ana, bo]) assert.equal((await live(page)).transport, 'ws');
    await exercise(carillon.trigger.bind(carillon), ana, bo, 'a');
    for (const page of [ana, bo]) assert.deepEqual(page.sentRequests.filter(({ url }) => url.includes('/pusher/app')), []);
  });

  for (const transport of ['xhr_streaming', 'xhr_polling']) {
    scenario(`2 MiB over ${transport} arrive in order over several responses`, async (t) => {
      const network = { webSockets: 'forbidden', streams: transport === 'xhr_streaming' ? 'allowed' : 'forbidden' };
      const { pages, nginx, carillon } = await setUp(t, { network });
      const ana = await startClient(t, browser, { url: pages, snippet: documentedSnippet('pusher-js', nginx) });
      assert.equal((await live(ana)).transport, transport);
      await subscribe(ana, 'flood');
      await flood(carillon, [ana], 'flood', 5);

      assert.equal((await statesOf(ana)).filter(({ state }) => state === 'connected').length, 1, 'without a reconnect');
      const receives = requestsOf(ana, transport === 'xhr_streaming' ? 'xhr_streaming' : 'xhr');
      assert(receives.length > 5, `${receives.length} responses`);
      const sessions = new Set(receives.map(({ url }) => new URL(url).pathname));
      assert.equal(sessions.size, 1, 'all requests belong to one session');
    });
  }

  scenario('a page with an origin that the app does not allow is refused permanently over HTTP', async (t) => {
    const { pages, nginx } = await setUp(t, { network: { webSockets: 'forbidden' }, app: 'allowed_origins = ["shop.example"]' });
    const ana = await startClient(t, browser, { url: pages, snippet: documentedSnippet('pusher-js', nginx) });
    await eventually(async () => (await statesOf(ana)).at(-1)?.state === 'disconnected', 'the client to give up');
    const [{ code }] = await ana.evaluate(() => errors);
    assert.equal(code, 4009);
  });

  scenario('with the `enabledTransports` of the Laravel stub the client never uses HTTP', async (t) => {
    const { pages, nginx } = await setUp(t, { network: { webSockets: 'forbidden' } });
    const stub = [["['ws', 'wss', 'xhr_streaming', 'xhr_polling']", "['ws', 'wss']"]];
    const ana = await startClient(t, browser, { url: pages, snippet: documentedSnippet('Echo', nginx, stub) });
    await eventually(async () => (await statesOf(ana)).at(-1)?.state === 'unavailable', 'the client to be unavailable');
    // At this time a client with HTTP transports would have tried both of them.
    await eventually(() => requestsOf(ana, 'WS').length >= 3, 'WebSockets to be tried in the next round');
    assert.deepEqual(ana.sentRequests.filter(({ url }) => url.includes('/pusher')), []);
    assert(!(await statesOf(ana)).some(({ state }) => state === 'connected'));
  });

  for (const { library, cluster, host } of [
    { library: 'Echo', cluster: [], host: 'sockjs.pusher.com' },
    { library: 'pusher-js', cluster: [["cluster: ''", "cluster: 'mt1'"]], host: 'sockjs-mt1.pusher.com' },
  ]) {
    scenario(`without \`httpHost\` ${library} sends requests to ${host}`, async (t) => {
      const { pages, nginx } = await setUp(t, { network: { webSockets: 'forbidden' } });
      const address = `httpHost: '${nginx.host}', httpPort: ${nginx.port}, httpsPort: ${nginx.port},`;
      const snippet = documentedSnippet(library, nginx, [[address, ''], ...cluster]);
      const elsewhere = [];
      const prepare = (page) =>
        page.route(({ hostname }) => hostname !== nginx.host, (route) => {
          elsewhere.push(new URL(route.request().url()));
          return route.abort();
        });
      const ana = await startClient(t, browser, { url: pages, snippet, prepare });
      const [leak] = await eventually(() => elsewhere.length > 0 && elsewhere, 'a request to another host');
      assert.equal(leak.hostname, host);
      assert.match(leak.pathname, /^\/pusher\/app\/app-key\/\d+\/[0-9a-v]{8}\/xhr_streaming$/, 'the path contains the key of the app');
      assert(!(await statesOf(ana)).some(({ state }) => state === 'connected'));
    });
  }
});

