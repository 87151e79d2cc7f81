// The help desk example: one list with its counts on every page, over any transport.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { PHONE, apiOf, expectFits, launch, expectNoText, open, expectText, startCarillon, startExample, startProxy, tabTo, expectUnchanged } from './harness.mjs';

const file = { after };
const carillon = await startCarillon(file);
const tickets = await startExample(file, 'tickets', carillon);
const browser = await launch(file);

const figure = (page, name) => page.locator(`[data-figure=${name}]`).innerText().then(Number);
const press = (page, label) => page.getByRole('button', { name: label, exact: true }).click();

async function desks(t, { example = tickets, transport = 'Live over WebSocket' } = {}) {
  const pages = await Promise.all(['Iris', 'Sam'].map((name) => open(t, browser, `${example.url}/?as=${name}`)));
  for (const page of pages) await expectText(page, '#live', transport);
  return pages;
}

test('a request and the counts change on both pages', async (t) => {
  const [iris, sam] = await desks(t);
  await expectText(iris, '#transport', /^WebSocket$/);
  const [opened, running] = [await figure(sam, 'open'), await figure(sam, 'in_progress')];

  await iris.getByLabel('Subject').fill('<img src=x onerror=alert(1)> does not load');
  await iris.getByLabel('Priority').selectOption('Urgent');
  await press(iris, 'Send');
  await expectText(sam, '#tickets li', /<img src=x onerror=alert\(1\)> does not load[\s\S]*Urgent[\s\S]*Open/);
  await expectText(sam, '[data-figure=open]', String(opened + 1));

  await press(sam, 'Take: <img src=x onerror=alert(1)> does not load');
  await expectText(iris, '#tickets li', /does not load[\s\S]*with Sam/);
  await expectText(iris, '[data-figure=open]', String(opened));
  await expectText(iris, '[data-figure=in_progress]', String(running + 1));

  await iris.getByRole('radio', { name: 'In progress' }).check();
  await press(iris, 'Resolve: <img src=x onerror=alert(1)> does not load');
  await expectNoText(iris, '#tickets li', 'does not load');
  await expectText(sam, '#tickets li', /does not load[\s\S]*resolved by Iris/);
  await expectText(sam, '#events', /^[23], the last at/);
  await expectUnchanged(iris, sam);
});

test('a late change is rejected with the current state', async () => {
  const [iris, sam] = [await apiOf(tickets, { name: 'Iris' }), await apiOf(tickets, { name: 'Sam' })];
  assert.equal((await iris.post('/api/tickets/7/take')).status, 200);
  const late = await sam.post('/api/tickets/7/take');
  assert.deepEqual([late.status, late.message], [409, 'Request 7 is in progress, by Iris, and cannot be taken.']);
  const short = await sam.post('/api/tickets', { subject: 'Help', priority: 'high' });
  assert.deepEqual([short.status, short.fields.subject], [422, 'The subject needs at least 5 characters.']);
  assert.equal(await sam.authorizationStatus('private-tickets'), 200);
  assert.equal(await sam.authorizationStatus('private-salaries'), 403);
  assert.equal(await sam.authorizationStatus('private-tickets', {}), 403, 'without a session');
});

test('a session of another example is not valid', async (t) => {
  const chat = await startExample(t, 'chat', carillon);
  const [here, there] = [await apiOf(tickets, { name: 'Iris' }), await apiOf(chat, { name: 'Iris' })];
  assert.equal(await there.authorizationStatus('presence-room.general'), 200);
  assert.equal(await here.authorizationStatus('private-tickets', there.bearer), 403);
});

test('a user can sign in and send a request with the keyboard only', async (t) => {
  const [iris] = await desks(t);
  const page = await open(t, browser, tickets.url);
  await expectText(page, '#sign-in', 'Sign in');
  await page.keyboard.press('Enter');
  await expectText(page, '.field-problem', 'Your name is missing.');
  await page.keyboard.type('Kay');
  await page.keyboard.press('Enter');
  await expectText(page, '#live', 'Live');
  await tabTo(page, '#subject');
  await page.keyboard.type('Keyboard without the letter Q');
  await tabTo(page, '#create [type=submit]');
  await page.keyboard.press('Space');
  await expectText(iris, '#tickets li', /without the letter Q[\s\S]*Kay/);
  await tabTo(iris, '[aria-label^="Take: Keyboard"]');
  await iris.keyboard.press('Enter');
  await expectText(page, '#tickets li', /without the letter Q[\s\S]*with Iris/);
  const focus = await iris.evaluate(() => document.activeElement.getAttribute('aria-label'));
  assert.equal(focus, 'Resolve: Keyboard without the letter Q', 'the focus stays on the request');
});

test('the desk fits on a phone', async (t) => {
  const [iris] = await desks(t);
  await iris.setViewportSize(PHONE);
  await expectFits(iris);
});

test('pages report an outage of Carillon and recover missed changes', async (t) => {
  const [iris, sam] = await desks(t);
  await carillon.stop();
  for (const page of [iris, sam]) {
    await expectText(page, '#offline', `Offline: cannot reach ws://127.0.0.1:${carillon.port}, retrying … The server does not respond`);
  }
  await expectText(iris, '#transport', 'none');
  await press(sam, 'Take: VPN drops every few minutes since this morning');
  await expectText(sam, '.toast', 'Saved, but not sent to other pages');
  assert.equal(await iris.locator('#tickets li', { hasText: 'VPN drops' }).getByText('not assigned').count(), 1);

  await carillon.startAgain();
  for (const page of [iris, sam]) await expectText(page, '#live', 'Live over WebSocket');
  await expectText(iris, '#tickets li', /VPN drops[\s\S]*with Sam/);
  assert.equal(await figure(iris, 'open'), await figure(sam, 'open'));
  await expectUnchanged(iris, sam);
});

test('a page that opens during an outage of Carillon reports it and connects later', async (t) => {
  await carillon.stop();
  const page = await open(t, browser, `${tickets.url}/?as=Lou`);
  await expectText(page, '#offline', 'The server does not respond. Is `carillon up` running?');
  await expectText(page, '#tickets li', 'Card reader');
  await carillon.startAgain();
  // Any transport may connect first, since there was no earlier WebSocket to prefer.
  await expectText(page, '#live', 'Live');
});

test('a page with an unknown key reports that it is refused', async (t) => {
  const example = await startExample(t, 'tickets', carillon, { REVERB_APP_KEY: 'no-such-key' });
  const page = await open(t, browser, `${example.url}/?as=Mia`);
  await expectText(page, '#live', /^Refused$/);
  await expectText(page, '#offline', /^The server refused the connection: .+ \(4001\)\. There are no more retries\./);
  await expectText(page, '#tickets li', 'Card reader');
  await expectUnchanged(page);
});

test('changes that could not be published reach connected pages later', async (t) => {
  // The example's server publishes through the proxy; its pages connect directly.
  const proxy = await startProxy(t, carillon);
  const example = await startExample(t, 'tickets', proxy, { VITE_REVERB_PORT: String(carillon.port) });
  const [iris, sam] = await desks(t, { example });
  await proxy.stop();
  await press(sam, 'Take: A second monitor for the reception');
  await expectText(sam, '.toast', 'They update when Carillon is reachable again.');
  assert.equal(await iris.locator('#tickets li', { hasText: 'A second monitor' }).getByText('not assigned').count(), 1);
  await proxy.startAgain();
  await expectText(iris, '#tickets li', /A second monitor[\s\S]*with Sam/);
  await expectText(iris, '#live', 'Live over WebSocket');
  await expectUnchanged(iris, sam);
});

test('a page that reconnects while the example is down reports it and subscribes later', async (t) => {
  const example = await startExample(t, 'tickets', carillon);
  const [iris, sam] = await desks(t, { example });
  await example.stop();
  await carillon.stop();
  await expectText(iris, '#offline', 'Offline');
  await carillon.startAgain();
  await expectText(iris, '.toast', 'No live updates: the server of this example must sign for private-tickets, but it does not respond.');
  await example.startAgain();
  await expectNoText(iris, '.toast', 'No live updates');
  await press(sam, 'Take: A second monitor for the reception');
  await expectText(iris, '#tickets li', /A second monitor[\s\S]*with Sam/);
  await expectUnchanged(iris, sam);
});

test('the list is live over HTTP where WebSockets are refused, and shows the transport', async (t) => {
  const example = await startExample(t, 'tickets', await startProxy(t, carillon));
  const [iris, sam] = await desks(t, { example, transport: 'Live over HTTP fallback' });
  await expectText(iris, '#transport', /^HTTP (streaming|polling)$/);
  await press(sam, 'Take: A second monitor for the reception');
  await expectText(iris, '#tickets li', /A second monitor[\s\S]*with Sam/);
  await expectUnchanged(iris, sam);
});
