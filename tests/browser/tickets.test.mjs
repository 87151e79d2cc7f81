// The help desk: one list and its figures on every screen, by whatever transport there is.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { PHONE, apiOf, fits, launch, missing, open, sees, startCarillon, startExample, startProxy, tabTo, unchanged } from './harness.mjs';

const file = { after };
const carillon = await startCarillon(file);
const tickets = await startExample(file, 'tickets', carillon);
const browser = await launch(file);

const figure = (page, name) => page.locator(`[data-figure=${name}]`).innerText().then(Number);
const press = (page, label) => page.getByRole('button', { name: label, exact: true }).click();

async function desks(t, { example = tickets, transport = 'Live over WebSocket' } = {}) {
  const pages = await Promise.all(['Iris', 'Sam'].map((name) => open(t, browser, `${example.url}/?as=${name}`)));
  for (const page of pages) await sees(page, '#live', transport);
  return pages;
}

test('a request and the figures change on both screens', async (t) => {
  const [iris, sam] = await desks(t);
  await sees(iris, '#transport', /^WebSocket$/);
  const [opened, running] = [await figure(sam, 'open'), await figure(sam, 'in_progress')];

  await iris.getByLabel('Subject').fill('<img src=x onerror=alert(1)> does not load');
  await iris.getByLabel('Priority').selectOption('Urgent');
  await press(iris, 'Send');
  await sees(sam, '#tickets li', /<img src=x onerror=alert\(1\)> does not load[\s\S]*Urgent[\s\S]*Open/);
  await sees(sam, '[data-figure=open]', String(opened + 1));

  await press(sam, 'Take: <img src=x onerror=alert(1)> does not load');
  await sees(iris, '#tickets li', /does not load[\s\S]*with Sam/);
  await sees(iris, '[data-figure=open]', String(opened));
  await sees(iris, '[data-figure=in_progress]', String(running + 1));

  await iris.getByRole('radio', { name: 'In progress' }).check();
  await press(iris, 'Resolve: <img src=x onerror=alert(1)> does not load');
  await missing(iris, '#tickets li', 'does not load');
  await sees(sam, '#tickets li', /does not load[\s\S]*resolved by Iris/);
  await sees(sam, '#events', /^[23], the last at/);
  await unchanged(iris, sam);
});

test('who is slower is told so, and sees what the other did', async () => {
  const [iris, sam] = [await apiOf(tickets, { name: 'Iris' }), await apiOf(tickets, { name: 'Sam' })];
  assert.equal((await iris.post('/api/tickets/7/take')).status, 200);
  const late = await sam.post('/api/tickets/7/take');
  assert.deepEqual([late.status, late.message], [409, 'Request 7 is in progress, by Iris, and cannot be taken.']);
  const short = await sam.post('/api/tickets', { subject: 'Help', priority: 'high' });
  assert.deepEqual([short.status, short.fields.subject], [422, 'The subject needs at least 5 characters.']);
  assert.equal(await sam.mayHear('private-tickets'), 200);
  assert.equal(await sam.mayHear('private-salaries'), 403);
  assert.equal(await sam.mayHear('private-tickets', {}), 403, 'not without signing in');
});

test('who signed in at another example has not signed in here', async (t) => {
  const chat = await startExample(t, 'chat', carillon);
  const [here, there] = [await apiOf(tickets, { name: 'Iris' }), await apiOf(chat, { name: 'Iris' })];
  assert.equal(await there.mayHear('presence-room.general'), 200);
  assert.equal(await here.mayHear('private-tickets', there.bearer), 403);
});

test('a name is typed and a request is sent by keyboard alone', async (t) => {
  const [iris] = await desks(t);
  const page = await open(t, browser, tickets.url);
  await sees(page, '#sign-in', 'Sign in');
  await page.keyboard.press('Enter');
  await sees(page, '.field-problem', 'Your name is missing.');
  await page.keyboard.type('Kay');
  await page.keyboard.press('Enter');
  await sees(page, '#live', 'Live');
  await tabTo(page, '#subject');
  await page.keyboard.type('Keyboard without the letter Q');
  await tabTo(page, '#create [type=submit]');
  await page.keyboard.press('Space');
  await sees(iris, '#tickets li', /without the letter Q[\s\S]*Kay/);
  await tabTo(iris, '[aria-label^="Take: Keyboard"]');
  await iris.keyboard.press('Enter');
  await sees(page, '#tickets li', /without the letter Q[\s\S]*with Iris/);
  const focus = await iris.evaluate(() => document.activeElement.getAttribute('aria-label'));
  assert.equal(focus, 'Resolve: Keyboard without the letter Q', 'the focus stays with the request');
});

test('the desk fits a phone', async (t) => {
  const [iris] = await desks(t);
  await iris.setViewportSize(PHONE);
  await fits(iris);
});

test('Carillon is away and comes back: said in words, and made up for', async (t) => {
  const [iris, sam] = await desks(t);
  await carillon.stop();
  for (const page of [iris, sam]) {
    await sees(page, '#offline', `Offline: cannot reach ws://127.0.0.1:${carillon.port}, retrying … The server does not respond`);
  }
  await sees(iris, '#transport', 'none');
  await press(sam, 'Take: VPN drops every few minutes since this morning');
  await sees(sam, '.toast', 'Saved, but not sent to other pages');
  assert.equal(await iris.locator('#tickets li', { hasText: 'VPN drops' }).getByText('not assigned').count(), 1);

  await carillon.again();
  for (const page of [iris, sam]) await sees(page, '#live', 'Live over WebSocket');
  await sees(iris, '#tickets li', /VPN drops[\s\S]*with Sam/);
  assert.equal(await figure(iris, 'open'), await figure(sam, 'open'));
  await unchanged(iris, sam);
});

test('a page that opens while Carillon is away says so, and is live once it is there', async (t) => {
  await carillon.stop();
  const page = await open(t, browser, `${tickets.url}/?as=Lou`);
  await sees(page, '#offline', 'The server does not respond. Is `carillon up` running?');
  await sees(page, '#tickets li', 'Card reader');
  await carillon.again();
  // By whichever transport is first: there was no WebSocket before, to which it would go back.
  await sees(page, '#live', 'Live');
});

test('a page whose key Carillon does not know is refused, and says so', async (t) => {
  const stranger = await startExample(t, 'tickets', carillon, { REVERB_APP_KEY: 'no-such-key' });
  const page = await open(t, browser, `${stranger.url}/?as=Mia`);
  await sees(page, '#live', /^Refused$/);
  await sees(page, '#offline', /^The server refused the connection: .+ \(4001\)\. There are no more retries\./);
  await sees(page, '#tickets li', 'Card reader');
  await unchanged(page);
});

test('what could not be published is told later, to pages that were live all the time', async (t) => {
  // The example's server publishes through this one, its pages connect without it.
  const way = await startProxy(t, carillon);
  const example = await startExample(t, 'tickets', way, { VITE_REVERB_PORT: String(carillon.port) });
  const [iris, sam] = await desks(t, { example });
  await way.stop();
  await press(sam, 'Take: A second monitor for the reception');
  await sees(sam, '.toast', 'They update when Carillon is reachable again.');
  assert.equal(await iris.locator('#tickets li', { hasText: 'A second monitor' }).getByText('not assigned').count(), 1);
  await way.again();
  await sees(iris, '#tickets li', /A second monitor[\s\S]*with Sam/);
  await sees(iris, '#live', 'Live over WebSocket');
  await unchanged(iris, sam);
});

test('a page that reconnects while the example is being restarted says so, and is subscribed later', async (t) => {
  const example = await startExample(t, 'tickets', carillon);
  const [iris, sam] = await desks(t, { example });
  await example.stop();
  await carillon.stop();
  await sees(iris, '#offline', 'Offline');
  await carillon.again();
  await sees(iris, '.toast', 'No live updates: the server of this example must sign for private-tickets, but it does not respond.');
  await example.again();
  await missing(iris, '.toast', 'No live updates');
  await press(sam, 'Take: A second monitor for the reception');
  await sees(iris, '#tickets li', /A second monitor[\s\S]*with Sam/);
  await unchanged(iris, sam);
});

test('where WebSockets are refused, the list is live over HTTP and says which', async (t) => {
  const behind = await startExample(t, 'tickets', await startProxy(t, carillon));
  const [iris, sam] = await desks(t, { example: behind, transport: 'Live over HTTP fallback' });
  await sees(iris, '#transport', /^HTTP (streaming|polling)$/);
  await press(sam, 'Take: A second monitor for the reception');
  await sees(iris, '#tickets li', /A second monitor[\s\S]*with Sam/);
  await unchanged(iris, sam);
});
