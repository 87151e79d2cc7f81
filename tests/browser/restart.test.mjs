// A restart of a single process: pages with the documented configuration, which allows HTTP, are connected over WebSocket again within
// 2.5 s of the signal.

import assert from 'node:assert/strict';
import { after, describe } from 'node:test';

import { documentedSnippet, expectEvent, subscribe, live, startClient, statesOf } from './client.mjs';
import { launch, expectUnchanged } from './harness.mjs';
import { metric, scenario, sender, servePages, startNginx, startNode } from './network.mjs';

const browser = await launch({ after });

/** The time limit after the signal. */
const BACK_MS = 2_500;

describe('a single process is restarted', () => {
  for (const place of ['directly', 'through nginx']) {
    scenario(`pages that connect ${place} are on WebSocket again within 2.5 s`, async (t) => {
      const node = await startNode(t);
      const pages = await servePages(t);
      const nginx = place === 'directly' ? undefined : await startNginx(t, { gateways: [node], pages });
      const address = nginx ?? node;
      const open = (user, library) => startClient(t, browser, { url: nginx?.url ?? pages, user, snippet: documentedSnippet(library, address) });
      const clients = await Promise.all([open('ana', 'pusher-js'), open('bo', 'Echo'), open('cy', 'pusher-js')]);
      for (const page of clients) {
        assert.equal((await live(page)).transport, 'ws');
        await subscribe(page, 'news');
      }

      const signaled = Date.now();
      await node.stop();
      await node.startAgain();
      for (const page of clients) {
        const back = await live(page, { nth: 2 });
        assert.equal(back.transport, 'ws');
        assert.ok(back.at - signaled <= BACK_MS, `connected after ${back.at - signaled} ms: ${JSON.stringify(await statesOf(page))}`);
        assert.deepEqual([...new Set((await page.evaluate(() => errors)).map(({ code }) => code))], [4100]);
      }
      // All pages are on WebSockets and subscribed again.
      assert.equal(await metric([node], 'carillon_connections', 'transport="websocket"'), clients.length);
      const carillon = sender(node);
      for (const [index, page] of clients.entries()) {
        await subscribe(page, `after-${index}`);
        await carillon.trigger(`after-${index}`, 'hello', { index });
        await expectEvent(page, `after-${index}`, 'hello', { index });
      }
      await expectUnchanged(...clients);
    });
  }
});
