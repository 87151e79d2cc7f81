// The progress of a long job: everyone in the company sees it, the one who started it is told how it ended, and the console says how
// the page is connected.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import {
  PHONE,
  apiOf,
  eventually,
  fits,
  launch,
  missing,
  open,
  sees,
  startCarillon,
  startExample,
  startProxy,
  tabTo,
  unchanged,
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
  for (const page of pages) await sees(page, '#live', transport);
  return pages;
}

test('a job runs on the screens of its company, and its starter is told of the end', async (t) => {
  const [ana, ben] = await colleagues(t, 'alder');
  const other = await open(t, browser, `${sync.url}/?as=Cem&company=birch`);
  await sees(other, '#live', 'Live');

  await begin(ana, 1000);
  await sees(ben, '#now', /Started by Ana/);
  const value = () => ben.locator('#bar').evaluate((bar) => bar.value);
  const first = await value();
  await ben.waitForFunction((before) => document.querySelector('#bar')?.value > before, first);
  await sees(ben, '#past li', '1,000 of 1,000 records, started by Ana');
  await sees(ana, '.toast', 'Your sync of 1,000 records has finished.');
  // The job says so too: that the person was told is seen here alone.
  await sees(ana, '#events li', 'sync.finished');
  // What comes after it shows that nothing more is on its way.
  await begin(ana, 50);
  await sees(ben, '#past li', '50 of 50 records, started by Ana');
  assert.equal(await ben.locator('#events li', { hasText: 'sync.finished' }).count(), 0, 'only who started it is told');
  assert.equal(await ben.locator('.toast').count(), 0, 'only who started it is told');
  await sees(other, '#past:empty', '');
  await sees(other, '#now', 'No sync is running.');
  await unchanged(ana, ben, other);
});

test('a job is cancelled by somebody else, and only one runs at a time', async (t) => {
  const [ana, ben] = await colleagues(t, 'alder');
  const api = await apiOf(sync, { name: 'Ana', company: 'alder' });
  await begin(ana, 50_000);
  await sees(ben, '#percent', /^\d+ %/);
  const second = await api.post('/api/syncs', { records: 10 });
  assert.deepEqual([second.status, second.message], [409, 'A sync of Alder Logistics is running, started by Ana.']);
  await press(ben, 'Cancel the sync');
  await sees(ana, '#past li', /of 50,000 records, cancelled by Ben/);
  await sees(ana, '#now', 'No sync is running.');
  const wrong = await api.post('/api/syncs', { records: 0 });
  assert.deepEqual([wrong.status, wrong.fields.records], [422, 'Choose from 1 to 100,000 records.']);
  assert.equal(await api.mayHear('private-company.alder'), 200);
  assert.equal(await api.mayHear('private-company.birch'), 403);
});

test('who cancels what has been cancelled is told so, and sees by whom', async (t) => {
  // The example's server publishes through this one, its pages connect without it.
  const way = await startProxy(t, carillon);
  const example = await startExample(t, 'sync-progress', way, { VITE_REVERB_PORT: String(carillon.port) });
  const [ana, ben] = await colleagues(t, 'alder', { example });
  await begin(ana, 50_000);
  await sees(ben, '#percent', /^\d+ %/);
  await way.stop();
  await press(ana, 'Cancel the sync');
  await sees(ana, '#past li', 'cancelled by Ana');
  await press(ben, 'Cancel the sync');
  await sees(ben, '.toast', 'The sync has already been cancelled.');
  await sees(ben, '#past li', 'cancelled by Ana');

  await begin(ana, 50_000);
  await sees(ana, '#now', 'Started by Ana');
  await begin(ben, 10);
  await sees(ben, '.toast', 'A sync of Alder Logistics is running, started by Ana.');
  await sees(ben, '#now', 'Started by Ana');
  await unchanged(ana, ben);
});

test('a job is started on a server that has begun anew', async (t) => {
  const example = await startExample(t, 'sync-progress', carillon);
  const [ana, ben] = await colleagues(t, 'alder', { example });
  await example.stop();
  await example.again();
  await begin(ana, 50_000);
  for (const page of [ana, ben]) await sees(page, '#now', 'Started by Ana');
  await ana.waitForFunction(() => document.activeElement.matches('#now button'));
  await unchanged(ana, ben);
});

test('the console says how the page is connected, and subscribes by hand', async (t) => {
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

test('a job is started and cancelled by keyboard alone', async (t) => {
  const [ana, ben] = await colleagues(t, 'birch');
  await tabTo(ana, '#records');
  await ana.keyboard.press('Control+A');
  await ana.keyboard.type('60000');
  await ana.keyboard.press('Enter');
  await sees(ben, '#now', 'Started by Ana');
  await tabTo(ana, '#now button');
  await ana.keyboard.press('Enter');
  await sees(ben, '#past li', /of 60,000 records, cancelled by Ana/);
});

test('the page fits a phone, with a job running', async (t) => {
  const [ana] = await colleagues(t, 'birch');
  await ana.setViewportSize(PHONE);
  await fits(ana);
  await begin(ana, 60_000);
  await sees(ana, '#percent', /^\d+ %/);
  await fits(ana);
  await press(ana, 'Cancel the sync');
});

test('Carillon is away and comes back: the job went on, and the page knows', async (t) => {
  const [ana, ben] = await colleagues(t, 'alder');
  await begin(ana, 2_000);
  await sees(ben, '#percent', /^\d+ %/);
  await carillon.stop();
  for (const page of [ana, ben]) {
    await sees(page, '#offline', `Offline: cannot reach ws://127.0.0.1:${carillon.port}, retrying … The server does not respond`);
  }
  const api = await apiOf(sync, { name: 'Ana', company: 'alder' });
  const free = async () => (await api.post('/api/syncs', { records: 50 })).status === 200;
  await eventually(free, 'the end of the first job, as long as which a second one is refused');
  await sees(ben, '#now', 'Started by Ana');

  await carillon.again();
  for (const page of [ana, ben]) {
    await sees(page, '#live', 'Live over WebSocket');
    await sees(page, '#past li', '2,000 of 2,000 records, started by Ana');
    await missing(page, '#offline', 'Offline');
    if (page === ana) await sees(ana, '.toast', 'Your sync of 2,000 records has finished.');
  }
  assert.equal(await ben.locator('.toast', { hasText: 'Your sync' }).count(), 0, 'only who started it is told');
  // The new socket is signed in as the old one was.
  await begin(ana, 100);
  await sees(ana, '#events li', 'sync.finished');
  await unchanged(ana, ben);
});

test('where WebSockets are refused, who comes back after an outage stays with HTTP', async (t) => {
  const way = await startProxy(t, carillon);
  const behind = await startExample(t, 'sync-progress', way);
  const [ana] = await colleagues(t, 'alder', { example: behind, transport: 'Live over HTTP fallback' });
  await way.stop();
  await sees(ana, '#offline', 'The server does not respond');
  await way.again();
  await sees(ana, '#live', 'Live over HTTP fallback');
  const { socketId } = await ana.evaluate(() => window.getWebSocketState());
  // Takes five seconds; by three a WebSocket would have been tried.
  await begin(ana, 1_000);
  await sees(ana, '#past li', '1,000 of 1,000 records, started by Ana');
  const state = await ana.evaluate(() => window.getWebSocketState());
  assert.deepEqual([state.state, state.socketId], ['connected', socketId]);
  await unchanged(ana);
});

test('where WebSockets are refused, progress comes over HTTP', async (t) => {
  const behind = await startExample(t, 'sync-progress', await startProxy(t, carillon));
  const [ana, ben] = await colleagues(t, 'alder', { example: behind, transport: 'Live over HTTP fallback' });
  const { transport } = await ana.evaluate(() => window.getWebSocketState());
  assert.match(transport, /^xhr_(streaming|polling)$/);
  await begin(ana, 800);
  await sees(ben, '#percent', /^\d+ %/);
  await sees(ben, '#past li', '800 of 800 records, started by Ana');
  await sees(ana, '.toast', 'Your sync of 800 records has finished.');
  await sees(ana, '#events li', 'sync.finished');
  await unchanged(ana, ben);
});
