// The sync example: all users of a company see the progress of a job, its starter receives a notification of the end, and the console
// reports the connection.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import {
  PHONE,
  apiOf,
  eventually,
  expectFits,
  launch,
  expectNoText,
  open,
  expectText,
  startCarillon,
  startExample,
  startProxy,
  tabTo,
  expectUnchanged,
} from './harness.mjs';

const file = { after };
const carillon = await startCarillon(file);
const sync = await startExample(file, 'sync-progress', carillon);
const browser = await launch(file);

const press = (page, label) => page.getByRole('button', { name: label, exact: true }).click();
const begin = async (page, records) => {
  await page.getByLabel('Records').fill(String(records));
  await press(page, 'Start a sync');
};

async function colleagues(t, company, { example = sync, transport = 'Live over WebSocket' } = {}) {
  const pages = await Promise.all(['Ana', 'Ben'].map((name) => open(t, browser, `${example.url}/?as=${name}&company=${company}`)));
  for (const page of pages) await expectText(page, '#live', transport);
  return pages;
}

test('a job appears on all pages of its company, and its starter is notified of the end', async (t) => {
  const [ana, ben] = await colleagues(t, 'alder');
  const other = await open(t, browser, `${sync.url}/?as=Cem&company=birch`);
  await expectText(other, '#live', 'Live');

  await begin(ana, 1000);
  await expectText(ben, '#now', /Started by Ana/);
  const value = () => ben.locator('#bar').evaluate((bar) => bar.value);
  const first = await value();
  await ben.waitForFunction((before) => document.querySelector('#bar')?.value > before, first);
  await expectText(ben, '#past li', '1,000 of 1,000 records, started by Ana');
  await expectText(ana, '.toast', 'Your sync of 1,000 records has finished.');
  // The job has its own event; this event shows the notification of the person.
  await expectText(ana, '#events li', 'sync.finished');
  // A later job proves that no further event is in flight.
  await begin(ana, 50);
  await expectText(ben, '#past li', '50 of 50 records, started by Ana');
  assert.equal(await ben.locator('#events li', { hasText: 'sync.finished' }).count(), 0, 'only the starter is notified');
  assert.equal(await ben.locator('.toast').count(), 0, 'only the starter is notified');
  await expectText(other, '#past:empty', '');
  await expectText(other, '#now', 'No sync is running.');
  await expectUnchanged(ana, ben, other);
});

test('another user can cancel a job, and only one job runs at a time', async (t) => {
  const [ana, ben] = await colleagues(t, 'alder');
  const api = await apiOf(sync, { name: 'Ana', company: 'alder' });
  await begin(ana, 50_000);
  await expectText(ben, '#percent', /^\d+ %/);
  const second = await api.post('/api/syncs', { records: 10 });
  assert.deepEqual([second.status, second.message], [409, 'A sync of Alder Logistics is running, started by Ana.']);
  await press(ben, 'Cancel the sync');
  await expectText(ana, '#past li', /of 50,000 records, cancelled by Ben/);
  await expectText(ana, '#now', 'No sync is running.');
  const wrong = await api.post('/api/syncs', { records: 0 });
  assert.deepEqual([wrong.status, wrong.fields.records], [422, 'Choose from 1 to 100,000 records.']);
  assert.equal(await api.authorizationStatus('private-company.alder'), 200);
  assert.equal(await api.authorizationStatus('private-company.birch'), 403);
});

test('a second cancellation is rejected and shows the first one', async (t) => {
  // The example's server publishes through the proxy; its pages connect directly.
  const proxy = await startProxy(t, carillon);
  const example = await startExample(t, 'sync-progress', proxy, { VITE_REVERB_PORT: String(carillon.port) });
  const [ana, ben] = await colleagues(t, 'alder', { example });
  await begin(ana, 50_000);
  await expectText(ben, '#percent', /^\d+ %/);
  await proxy.stop();
  await press(ana, 'Cancel the sync');
  await expectText(ana, '#past li', 'cancelled by Ana');
  await press(ben, 'Cancel the sync');
  await expectText(ben, '.toast', 'The sync has already been cancelled.');
  await expectText(ben, '#past li', 'cancelled by Ana');

  await begin(ana, 50_000);
  await expectText(ana, '#now', 'Started by Ana');
  await begin(ben, 10);
  await expectText(ben, '.toast', 'A sync of Alder Logistics is running, started by Ana.');
  await expectText(ben, '#now', 'Started by Ana');
  await expectUnchanged(ana, ben);
});

test('a job can be started after a restart of the example', async (t) => {
  const example = await startExample(t, 'sync-progress', carillon);
  const [ana, ben] = await colleagues(t, 'alder', { example });
  await example.stop();
  await example.startAgain();
  await begin(ana, 50_000);
  for (const page of [ana, ben]) await expectText(page, '#now', 'Started by Ana');
  await ana.waitForFunction(() => document.activeElement.matches('#now button'));
  await expectUnchanged(ana, ben);
});

test('the console reports the connection and can subscribe', async (t) => {
  const [ana] = await colleagues(t, 'alder');
  const state = await ana.evaluate(() => window.getWebSocketState());
  assert.match(state.socketId, /^\d+\.\d+$/);
  assert.deepEqual(state, {
    state: 'connected',
    transport: 'ws',
    socketId: state.socketId,
    address: `ws://127.0.0.1:${carillon.port}`,
    channels: [{ name: 'private-company.alder', subscribed: true }],
  });
  const subscribe = (name) => ana.evaluate((channel) => window.subscribeToChannel(channel).catch((error) => error.message), name);
  assert.equal(await subscribe('news'), 'Subscribed to news. Its events appear on the page.');
  assert.equal(await subscribe('news'), 'Already subscribed to news.');
  assert.equal(await subscribe('private-company.birch'), 'Not subscribed to private-company.birch: Ana may not subscribe to it (403).');
  const names = await ana.evaluate(() => window.getWebSocketState().channels.map(({ name }) => name));
  assert.deepEqual(names, ['private-company.alder', 'news']);
});

test('a job can be started and cancelled with the keyboard only', async (t) => {
  const [ana, ben] = await colleagues(t, 'birch');
  await tabTo(ana, '#records');
  await ana.keyboard.press('Control+A');
  await ana.keyboard.type('60000');
  await ana.keyboard.press('Enter');
  await expectText(ben, '#now', 'Started by Ana');
  await tabTo(ana, '#now button');
  await ana.keyboard.press('Enter');
  await expectText(ben, '#past li', /of 60,000 records, cancelled by Ana/);
});

test('the page fits on a phone while a job runs', async (t) => {
  const [ana] = await colleagues(t, 'birch');
  await ana.setViewportSize(PHONE);
  await expectFits(ana);
  await begin(ana, 60_000);
  await expectText(ana, '#percent', /^\d+ %/);
  await expectFits(ana);
  await press(ana, 'Cancel the sync');
});

test('pages recover the result of a job that finished during an outage of Carillon', async (t) => {
  const [ana, ben] = await colleagues(t, 'alder');
  await begin(ana, 2_000);
  await expectText(ben, '#percent', /^\d+ %/);
  await carillon.stop();
  for (const page of [ana, ben]) {
    await expectText(page, '#offline', `Offline: cannot reach ws://127.0.0.1:${carillon.port}, retrying … The server does not respond`);
  }
  const api = await apiOf(sync, { name: 'Ana', company: 'alder' });
  const free = async () => (await api.post('/api/syncs', { records: 50 })).status === 200;
  await eventually(free, 'the end of the first job, until which a second one is rejected');
  await expectText(ben, '#now', 'Started by Ana');

  await carillon.startAgain();
  for (const page of [ana, ben]) {
    await expectText(page, '#live', 'Live over WebSocket');
    await expectText(page, '#past li', '2,000 of 2,000 records, started by Ana');
    await expectNoText(page, '#offline', 'Offline');
    if (page === ana) await expectText(ana, '.toast', 'Your sync of 2,000 records has finished.');
  }
  assert.equal(await ben.locator('.toast', { hasText: 'Your sync' }).count(), 0, 'only the starter is notified');
  // The new connection is signed in like the old one.
  await begin(ana, 100);
  await expectText(ana, '#events li', 'sync.finished');
  await expectUnchanged(ana, ben);
});

test('a page stays on HTTP after an outage where WebSockets are refused', async (t) => {
  const proxy = await startProxy(t, carillon);
  const example = await startExample(t, 'sync-progress', proxy);
  const [ana] = await colleagues(t, 'alder', { example, transport: 'Live over HTTP fallback' });
  await proxy.stop();
  await expectText(ana, '#offline', 'The server does not respond');
  await proxy.startAgain();
  await expectText(ana, '#live', 'Live over HTTP fallback');
  const { socketId } = await ana.evaluate(() => window.getWebSocketState());
  // The job takes five seconds. pusher-js would try a WebSocket within three.
  await begin(ana, 1_000);
  await expectText(ana, '#past li', '1,000 of 1,000 records, started by Ana');
  const state = await ana.evaluate(() => window.getWebSocketState());
  assert.deepEqual([state.state, state.socketId], ['connected', socketId]);
  await expectUnchanged(ana);
});

test('progress arrives over HTTP where WebSockets are refused', async (t) => {
  const example = await startExample(t, 'sync-progress', await startProxy(t, carillon));
  const [ana, ben] = await colleagues(t, 'alder', { example, transport: 'Live over HTTP fallback' });
  const { transport } = await ana.evaluate(() => window.getWebSocketState());
  assert.match(transport, /^xhr_(streaming|polling)$/);
  await begin(ana, 800);
  await expectText(ben, '#percent', /^\d+ %/);
  await expectText(ben, '#past li', '800 of 800 records, started by Ana');
  await expectText(ana, '.toast', 'Your sync of 800 records has finished.');
  await expectText(ana, '#events li', 'sync.finished');
  await expectUnchanged(ana, ben);
});
