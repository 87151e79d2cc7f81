// The chat: who is here, who is typing, and who is told of a mention.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { PHONE, apiOf, fits, launch, missing, open, sees, startCarillon, startExample, startProxy, tabTo, unchanged } from './harness.mjs';

const file = { after };
const carillon = await startCarillon(file);
const chat = await startExample(file, 'chat', carillon);
const browser = await launch(file);

const says = async (page, words) => {
  await page.locator('#text').fill(words);
  await page.keyboard.press('Enter');
};
const room = (page, name) => page.locator('#rooms').getByRole('button', { name }).click();

async function people(t, names, { example = chat, transport = 'Live over WebSocket' } = {}) {
  const pages = await Promise.all(names.map((name) => open(t, browser, `${example.url}/?as=${name}`)));
  for (const page of pages) {
    await sees(page, '#live', transport);
    for (const name of names) await sees(page, '#people li', name);
  }
  return pages;
}

test('people come, type, speak and leave, and the others see it', async (t) => {
  const [ana, ben] = await people(t, ['Ana', 'Ben']);
  const cleo = await open(t, browser, `${chat.url}/?as=Cleo`);
  await sees(ana, '#comings', 'Cleo has joined.');
  await sees(cleo, '#people li', 'Ben');

  await ben.locator('#text').pressSequentially('Hi');
  await sees(ana, '#typing', 'Ben is typing …');
  await says(ben, 'Good <i>morning</i>');
  await sees(ana, '#messages li', /Ben[\s\S]*Good <i>morning<\/i>/);
  await missing(ana, '#typing', 'Ben is typing');

  await cleo.context().close();
  await sees(ana, '#comings', 'Cleo has left.');
  await missing(ana, '#people li', 'Cleo');
  await unchanged(ana, ben);
});

test('a mention makes a toast and a badge, in every window of that person and for nobody else', async (t) => {
  const [dora, eli] = await people(t, ['Dora', 'Eli']);
  const second = await open(t, browser, `${chat.url}/?as=Dora`);
  await sees(second, '#live', 'Live');
  await room(eli, 'kitchen');
  await missing(dora, '#people li', 'Eli');
  await says(eli, '@Dora the kettle boils, @Doranel does not exist');

  for (const page of [dora, second]) {
    await sees(page, '.toast', 'Eli mentioned you in kitchen: @Dora the kettle boils');
    await sees(page, '#unread', '1');
    assert.equal(await page.title(), '(1) Chat');
  }
  assert.equal(await eli.locator('#unread').isVisible(), false, 'nobody is told of what they said');

  await dora.locator('#bell').click();
  await dora.getByRole('button', { name: /the kettle boils/ }).click();
  await sees(dora, '#messages li mark', '@Dora');
  await dora.locator('#bell').click();
  await dora.getByRole('button', { name: 'Mark as read' }).click();
  await missing(second, '#unread', '1');
  await unchanged(dora, second, eli);
});

test('nobody hears what is meant for somebody else', async () => {
  const [ana, ben] = [await apiOf(chat, { name: 'Ana' }), await apiOf(chat, { name: 'Ben' })];
  assert.equal(await ana.mayHear(`private-App.Models.User.${ana.user.id}`), 200);
  assert.equal(await ana.mayHear(`private-App.Models.User.${ben.user.id}`), 403);
  assert.equal(await ana.mayHear('presence-room.general'), 200);
  assert.equal(await ana.mayHear('presence-room.board'), 403);
  assert.equal((await ana.post('/api/rooms/board', { text: 'hello' })).status, 404);
  assert.equal((await ana.post('/api/rooms/general', { text: 'x'.repeat(501) })).status, 422);
});

test('a message is written in another room by keyboard alone', async (t) => {
  const [finn, gil] = await people(t, ['Finn', 'Gil']);
  await room(gil, 'projects');
  await tabTo(finn, '#rooms li:nth-child(3) button');
  await finn.keyboard.press('Enter');
  await sees(finn, '#people li', 'Gil');
  await tabTo(finn, '#people button');
  await finn.keyboard.press('Enter');
  await finn.keyboard.type('look at this');
  await finn.keyboard.press('Enter');
  await sees(gil, '#messages li', '@Gil look at this');
  await sees(gil, '#unread', '1');
  await tabTo(gil, '#bell');
  await gil.keyboard.press('Enter');
  await sees(gil, '#inbox', '@Gil look at this');
  await gil.keyboard.press('Escape');
  await missing(gil, '#inbox', '@Gil look at this');
});

test('the chat fits a phone', async (t) => {
  const [ana] = await people(t, ['Ana', 'Ben']);
  await ana.setViewportSize(PHONE);
  await fits(ana);
  await ana.locator('#bell').click();
  await fits(ana);
});

test('Carillon is away and comes back: said in words, and made up for', async (t) => {
  const [hal, ida] = await people(t, ['Hal', 'Ida']);
  await carillon.stop();
  for (const page of [hal, ida]) {
    await sees(page, '#offline', `Offline: cannot reach ws://127.0.0.1:${carillon.port}, retrying … The server does not respond`);
  }
  await says(ida, 'Can you hear me, @Hal?');
  await sees(ida, '#messages li', 'Can you hear me');
  await sees(ida, '.toast', 'Saved, but not sent to other pages');
  assert.equal(await hal.locator('#messages li', { hasText: 'Can you hear me' }).count(), 0);

  await carillon.again();
  for (const page of [hal, ida]) await sees(page, '#live', 'Live over WebSocket');
  await sees(hal, '#messages li', 'Can you hear me, @Hal?');
  await sees(hal, '#unread', '1');
  for (const page of [hal, ida]) for (const name of ['Hal', 'Ida']) await sees(page, '#people li', name);
  await says(hal, 'Now I do');
  await sees(ida, '#messages li', 'Now I do');
  await unchanged(hal, ida);
});

test('a room that could not be signed for is not complained about once it is left', async (t) => {
  const example = await startExample(t, 'chat', carillon);
  const [lea] = await people(t, ['Lea'], { example });
  await example.stop();
  await carillon.stop();
  await sees(lea, '#offline', 'Offline');
  await carillon.again();
  await sees(lea, '.toast', 'must sign for presence-room.general');
  await room(lea, 'kitchen');
  await sees(lea, '.toast', 'must sign for presence-room.kitchen');
  await missing(lea, '.toast', 'must sign for presence-room.general');
  await example.again();
  await missing(lea, '.toast', 'No live updates');
  await sees(lea, '#people li', 'Lea');
  await unchanged(lea);
});

test('where WebSockets are refused, people meet, type and are told over HTTP', async (t) => {
  const behind = await startExample(t, 'chat', await startProxy(t, carillon));
  const [jan, kim] = await people(t, ['Jan', 'Kim'], { example: behind, transport: 'Live over HTTP fallback' });
  await kim.locator('#text').pressSequentially('Hm');
  await sees(jan, '#typing', 'Kim is typing …');
  await says(kim, 'Are you there, @Jan?');
  await sees(jan, '#messages li', 'Are you there, @Jan?');
  await sees(jan, '.toast', 'Kim mentioned you');
  await unchanged(jan, kim);
});
