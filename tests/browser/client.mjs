// A page with a client: starts it with the documented configuration and reads the events that it received.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { DEADLINE_MS, eventually, open } from './harness.mjs';

const CLIENTS = readFileSync(new URL('../../docs/CLIENTS.md', import.meta.url), 'utf8');

/**
 * Returns the configuration of docs/CLIENTS.md for `pusher-js` or `Echo` as JavaScript, with the host and ports of `address`
 * (`{ host, port, url }`). `changes` has pairs of a pattern and its replacement.
 */
export function documentedSnippet(library, address, changes = []) {
  const [section] = CLIENTS.split('## WebSocket with HTTP fallback\n')[1]?.split('\n## ') ?? [];
  const snippets = [...(section ?? '').matchAll(/```js\n([^]*?)```/g)].map(([, snippet]) => snippet);
  let snippet = snippets.find((each) => each.includes(library === 'Echo' ? 'new Echo' : 'new Pusher'));
  const replacements = [
    [/^import .*\n/gm, ''],
    ["'ws.example.com'", `'${address.host}'`],
    [/\b(80|443)\b/g, String(address.port)],
    ['forceTLS: true', `forceTLS: ${address.url.startsWith('https')}`],
    ...changes,
  ];
  for (const [from, to] of replacements) {
    const changed = snippet.replaceAll(from, to);
    assert(changed !== snippet || from instanceof RegExp || from === to, `docs/CLIENTS.md does not contain ${from}:\n${snippet}`);
    snippet = changed;
  }
  return snippet;
}

/**
 * Opens a page of `servePages` as `user` and runs a client in it. The page's `sentRequests` has its requests in order, as
 * `{ method, url, afterMs }`. `prepare(page)` is called before the client starts.
 */
export async function startClient(owner, browser, { url, user = 'ana', snippet, prepare = () => {} }) {
  const page = await open(owner, browser, `${url}/?user=${user}`, { ignoreHTTPSErrors: true });
  page.sentRequests = [];
  await prepare(page);
  const started = Date.now();
  page.on('request', (request) => page.sentRequests.push({ method: request.method(), url: request.url(), afterMs: Date.now() - started }));
  page.on('websocket', (socket) => page.sentRequests.push({ method: 'WS', url: socket.url(), afterMs: Date.now() - started }));
  await page.evaluate((code) => run(code), snippet);
  return page;
}

// === the state of the client ===

/** Returns all states of the connection so far: `{ state, transport, afterMs, at, socketId }`. `at` is the wall-clock time. */
export const statesOf = (page) => page.evaluate(() => states);

/** Waits until the client is connected for the `nth` time, over `transport` if given: `{ transport, afterMs, at, socketId }`. */
export async function live(page, { nth = 1, transport, ms = DEADLINE_MS } = {}) {
  const find = async () => {
    const connected = (await statesOf(page)).filter(({ state }) => state === 'connected');
    return transport ? connected.slice(nth - 1).find((each) => each.transport === transport) : connected[nth - 1];
  };
  const what = `the client to be connected${transport ? ` over ${transport}` : ''}${nth > 1 ? ` again (${nth})` : ''}`;
  return awaited(page, find, what, ms);
}

/** Subscribes to a channel and waits for the confirmation. */
export async function subscribe(page, channel) {
  await page.evaluate((name) => listen(name), channel);
  return expectEvent(page, channel, 'pusher:subscription_succeeded');
}

/** Waits for an event on a channel and returns its data. With `data`, waits for an event with exactly this data. */
export async function expectEvent(page, channel, event, data) {
  const find = async () => {
    const found = (await receivedBy(page)).filter((each) => each.channel === channel && each.event === event);
    return data === undefined ? found[0] : found.find((each) => JSON.stringify(each.data) === JSON.stringify(data));
  };
  return (await awaited(page, find, `\`${event}\` ${data === undefined ? '' : JSON.stringify(data)} on ${channel}`)).data;
}

/** Returns all events received so far: `{ channel, event, data }`. */
export const receivedBy = (page) => page.evaluate(() => received);

async function awaited(page, find, what, ms = DEADLINE_MS) {
  return eventually(find, what, ms).catch(async (error) => {
    const there = await page.evaluate(() => JSON.stringify({ states, errors, received: received.slice(-12) }).slice(0, 4_000)).catch(String);
    throw new Error(`${error.message}; the page has ${there}\n${JSON.stringify(page.sentRequests.slice(-12))}\n${page.failures.join('\n')}`);
  });
}

/** Returns the requests of the page of one kind: `xhr_streaming`, `xhr`, `xhr_send`, or `WS`. */
export function requestsOf(page, kind) {
  return page.sentRequests.filter(({ method, url }) => (kind === 'WS' ? method === 'WS' : new URL(url).pathname.endsWith(`/${kind}`)));
}

// === load ===

/**
 * Exercises all features between the pages of two users. `trigger` (of the server library) publishes on a public and a private channel,
 * both pages send client events, and a member joins and leaves. `label` makes the channels unique.
 */
export async function exercise(trigger, ana, bo, label) {
  const [news, orders, room] = [`news-${label}`, `private-orders-${label}`, `presence-room-${label}`];
  await Promise.all([ana, bo].flatMap((page) => [subscribe(page, news), subscribe(page, orders)]));
  await trigger([news, orders], 'shipped', { order: 7, to: 'Zoë 🔔\n"x"' });
  for (const page of [ana, bo]) {
    for (const channel of [news, orders]) await expectEvent(page, channel, 'shipped', { order: 7, to: 'Zoë 🔔\n"x"' });
  }

  await ana.evaluate((name) => whisper(name, 'typing', { by: 'ana' }), orders);
  await expectEvent(bo, orders, 'client-typing', { by: 'ana' });
  await bo.evaluate((name) => whisper(name, 'typing', { by: 'bo' }), orders);
  await expectEvent(ana, orders, 'client-typing', { by: 'bo' });

  assert.deepEqual(await subscribe(ana, room), ['ana']);
  assert.deepEqual(await subscribe(bo, room), ['ana', 'bo']);
  assert.deepEqual(await expectEvent(ana, room, 'pusher:member_added'), { id: 'bo', info: { name: 'bo' } });
  await bo.evaluate((name) => leave(name), room);
  assert.deepEqual(await expectEvent(ana, room, 'pusher:member_removed'), { id: 'bo', info: { name: 'bo' } });

  // Each event arrives once.
  for (const page of [ana, bo]) {
    const events = (await receivedBy(page)).filter(({ channel }) => channel.endsWith(`-${label}`));
    const own = page === ana ? ['pusher:member_added', 'pusher:member_removed'] : [];
    const expected = [...own, 'shipped', 'shipped', 'client-typing', ...Array(3).fill('pusher:subscription_succeeded')];
    assert.deepEqual(events.map(({ event }) => event).sort(), expected.sort());
  }
}

/** The UTF-16 units of one response after which pusher-js starts another request. */
const RESPONSE_UNITS = 262_144;

/** 5,000 units in 8,333 bytes. Clients count UTF-16 units and servers count bytes, and most letters here have several bytes. */
const FLOOD_TEXT = 'éa🔔zü'.repeat(834).slice(0, 5_000);

/** The maximum number of events in flight: half of the server's queue per client (`server.outbox_bytes`). */
const IN_FLIGHT_MAX = 60;

/**
 * Publishes as much as `responses` responses carry to pages that are subscribed to the channel. Asserts that each page receives all
 * events once and in order.
 */
export async function flood(server, pages, channel, responses) {
  const count = Math.ceil((responses * RESPONSE_UNITS) / FLOOD_TEXT.length);
  const countOf = (page) => page.evaluate((name) => received.filter((each) => each.channel === name && each.event === 'flood').length, channel);
  const hasReceived = (page, number) => awaited(page, async () => (await countOf(page)) >= number, `${number} events`);
  const allReceived = (number) => Promise.all(pages.map((page) => hasReceived(page, number)));
  for (let at = 0; at < count; at += 10) {
    await allReceived(at - IN_FLIGHT_MAX);
    const batch = Array.from({ length: Math.min(10, count - at) }, (_, index) => ({ number: at + index, text: FLOOD_TEXT }));
    await server.triggerBatch(batch.map((data) => ({ channel, name: 'flood', data })));
  }
  await allReceived(count);
  for (const page of pages) {
    const floods = (await receivedBy(page)).filter((each) => each.channel === channel && each.event === 'flood');
    assert.deepEqual(floods.map(({ data }) => data.number), Array.from({ length: count }, (_, index) => index), 'all events arrive once and in order');
    assert(floods.every(({ data }) => data.text === FLOOD_TEXT), 'the text is unchanged');
  }
}
