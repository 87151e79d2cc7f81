// A page with a client in it: started with the configuration that the documentation shows, and asked what it heard.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';

import { DEADLINE_MS, eventually, open } from './harness.mjs';

const CLIENTS = readFileSync(new URL('../../docs/CLIENTS.md', import.meta.url), 'utf8');

/**
 * The configuration of docs/CLIENTS.md for `pusher-js` or `Echo`, as JavaScript, with the host and ports of `address` (`{ host, port, url }`)
 * in place of its own. `changes`: pairs of what to replace, and what by.
 */
export function documented(library, address, changes = []) {
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
    assert(changed !== snippet || from instanceof RegExp || from === to, `docs/CLIENTS.md has no ${from}:\n${snippet}`);
    snippet = changed;
  }
  return snippet;
}

/**
 * Opens a page of `servePages` as `user`, and runs a client in it. The page's `asked` has all requests of its own, in order, as
 * `{ method, url, afterMs }`. `prepare(page)`: called before the client starts.
 */
export async function startClient(owner, browser, { url, user = 'ana', snippet, prepare = () => {} }) {
  const page = await open(owner, browser, `${url}/?user=${user}`, { ignoreHTTPSErrors: true });
  page.asked = [];
  await prepare(page);
  const started = Date.now();
  page.on('request', (request) => page.asked.push({ method: request.method(), url: request.url(), afterMs: Date.now() - started }));
  page.on('websocket', (socket) => page.asked.push({ method: 'WS', url: socket.url(), afterMs: Date.now() - started }));
  await page.evaluate((code) => run(code), snippet);
  return page;
}

// === what became of it ===

/** All states of the client's connection so far: `{ state, transport, afterMs, at, socketId }`; `at` is by the clock. */
export const statesOf = (page) => page.evaluate(() => states);

/** Resolves with `{ transport, afterMs, at, socketId }` once the client is connected, for the `nth` time, over `transport` if given. */
export async function live(page, { nth = 1, transport, ms = DEADLINE_MS } = {}) {
  const find = async () => {
    const connected = (await statesOf(page)).filter(({ state }) => state === 'connected');
    return transport ? connected.slice(nth - 1).find((each) => each.transport === transport) : connected[nth - 1];
  };
  const what = `the client to be connected${transport ? ` over ${transport}` : ''}${nth > 1 ? ` again (${nth})` : ''}`;
  return awaited(page, find, what, ms);
}

/** Joins a channel and waits until the subscription has succeeded. */
export async function joins(page, channel) {
  await page.evaluate((name) => listen(name), channel);
  return hears(page, channel, 'pusher:subscription_succeeded');
}

/** The data of an event on a channel, once it has arrived; `data`, if given, is what it must be. */
export async function hears(page, channel, event, data) {
  const find = async () => {
    const found = (await heardBy(page)).filter((each) => each.channel === channel && each.event === event);
    return data === undefined ? found[0] : found.find((each) => JSON.stringify(each.data) === JSON.stringify(data));
  };
  return (await awaited(page, find, `\`${event}\` ${data === undefined ? '' : JSON.stringify(data)} on ${channel}`)).data;
}

/** Everything heard so far on any channel: `{ channel, event, data }`. */
export const heardBy = (page) => page.evaluate(() => heard);

async function awaited(page, find, what, ms = DEADLINE_MS) {
  return eventually(find, what, ms).catch(async (error) => {
    const there = await page.evaluate(() => JSON.stringify({ states, errors, heard: heard.slice(-12) }).slice(0, 4_000)).catch(String);
    throw new Error(`${error.message}; there was ${there}\n${JSON.stringify(page.asked.slice(-12))}\n${page.failures.join('\n')}`);
  });
}

/** The requests of a kind that the page made: `xhr_streaming`, `xhr`, `xhr_send`, or `WS`. */
export function asked(page, kind) {
  return page.asked.filter(({ method, url }) => (kind === 'WS' ? method === 'WS' : new URL(url).pathname.endsWith(`/${kind}`)));
}

// === doing everything ===

/**
 * What an application does, between the pages of two users: an event from `trigger` (of the server library) on a public and a private
 * channel, client events in both directions, and a list of members that one joins and leaves. `label`: makes channels new.
 */
export async function exercise(trigger, ana, bo, label) {
  const [news, orders, room] = [`news-${label}`, `private-orders-${label}`, `presence-room-${label}`];
  await Promise.all([ana, bo].flatMap((page) => [joins(page, news), joins(page, orders)]));
  await trigger([news, orders], 'shipped', { order: 7, to: 'Zoë 🔔\n"x"' });
  for (const page of [ana, bo]) {
    for (const channel of [news, orders]) await hears(page, channel, 'shipped', { order: 7, to: 'Zoë 🔔\n"x"' });
  }

  await ana.evaluate((name) => whisper(name, 'typing', { by: 'ana' }), orders);
  await hears(bo, orders, 'client-typing', { by: 'ana' });
  await bo.evaluate((name) => whisper(name, 'typing', { by: 'bo' }), orders);
  await hears(ana, orders, 'client-typing', { by: 'bo' });

  assert.deepEqual(await joins(ana, room), ['ana']);
  assert.deepEqual(await joins(bo, room), ['ana', 'bo']);
  assert.deepEqual(await hears(ana, room, 'pusher:member_added'), { id: 'bo', info: { name: 'bo' } });
  await bo.evaluate((name) => leave(name), room);
  assert.deepEqual(await hears(ana, room, 'pusher:member_removed'), { id: 'bo', info: { name: 'bo' } });

  // Each of it once.
  for (const page of [ana, bo]) {
    const events = (await heardBy(page)).filter(({ channel }) => channel.endsWith(`-${label}`));
    const own = page === ana ? ['pusher:member_added', 'pusher:member_removed'] : [];
    const expected = [...own, 'shipped', 'shipped', 'client-typing', ...Array(3).fill('pusher:subscription_succeeded')];
    assert.deepEqual(events.map(({ event }) => event).sort(), expected.sort());
  }
}

/** Of pusher-js: it takes so many UTF-16 units of one response before it asks for another. */
const RESPONSE_UNITS = 262_144;

/** 5,000 units in 8,333 bytes: clients count letters, servers bytes, and most letters here take several. */
const RAIN = 'éa🔔zü'.repeat(834).slice(0, 5_000);

/** So much may wait for a client: half of what the server keeps for it (`server.outbox_bytes`). */
const AHEAD = 60;

/**
 * Publishes `responses` times what a client takes of one response, to pages that have joined the channel, and asserts that all of it
 * arrives at each, once and in order.
 */
export async function flood(server, pages, channel, responses) {
  const count = Math.ceil((responses * RESPONSE_UNITS) / RAIN.length);
  const number = (page) => page.evaluate((name) => heard.filter((each) => each.channel === name && each.event === 'drop').length, channel);
  const hasHeard = (page, wanted) => awaited(page, async () => (await number(page)) >= wanted, `${wanted} events`);
  const isHeard = (wanted) => Promise.all(pages.map((page) => hasHeard(page, wanted)));
  for (let at = 0; at < count; at += 10) {
    await isHeard(at - AHEAD);
    const batch = Array.from({ length: Math.min(10, count - at) }, (_, index) => ({ number: at + index, text: RAIN }));
    await server.triggerBatch(batch.map((data) => ({ channel, name: 'drop', data })));
  }
  await isHeard(count);
  for (const page of pages) {
    const drops = (await heardBy(page)).filter((each) => each.channel === channel && each.event === 'drop');
    assert.deepEqual(drops.map(({ data }) => data.number), Array.from({ length: count }, (_, index) => index), 'all, once, in order');
    assert(drops.every(({ data }) => data.text === RAIN), 'as they were published');
  }
}
