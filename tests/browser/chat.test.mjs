// The chat example: members, typing indicators, messages and mentions.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { PHONE, apiOf, expectFits, launch, expectNoText, open, expectText, startCarillon, startExample, startProxy, tabTo, expectUnchanged } from './harness.mjs';

const file = { after };
const carillon = await startCarillon(file);
const chat = await startExample(file, 'chat', carillon);
const browser = await launch(file);

const sendMessage = async (page, words) => {
  await page.locator('#text').fill(words);
  await page.keyboard.press('Enter');
};
const room = (page, name) => page.locator('#rooms').getByRole('button', { name }).click();

async function people(t, names, { example = chat, transport = 'Live over WebSocket' } = {}) {
  const pages = await Promise.all(names.map((name) => open(t, browser, `${example.url}/?as=${name}`)));
  for (const page of pages) {
    await expectText(page, '#live', transport);
    for (const name of names) await expectText(page, '#people li', name);
  }
  return pages;
}

test('joins, typing, messages and leaves appear on other pages', async (t) => {
  const [ana, ben] = await people(t, ['Ana', 'Ben']);
  const cleo = await open(t, browser, `${chat.url}/?as=Cleo`);
  await expectText(ana, '#comings', 'Cleo has joined.');
  await expectText(cleo, '#people li', 'Ben');

  await ben.locator('#text').pressSequentially('Hi');
  await expectText(ana, '#typing', 'Ben is typing …');
  await sendMessage(ben, 'Good <i>morning</i>');
  await expectText(ana, '#messages li', /Ben[\s\S]*Good <i>morning<\/i>/);
  await expectNoText(ana, '#typing', 'Ben is typing');

  await cleo.context().close();
  await expectText(ana, '#comings', 'Cleo has left.');
  await expectNoText(ana, '#people li', 'Cleo');
  await expectUnchanged(ana, ben);
});

test('a mention shows a toast and a badge in every window of that person only', async (t) => {
  const [dora, eli] = await people(t, ['Dora', 'Eli']);
  const second = await open(t, browser, `${chat.url}/?as=Dora`);
  await expectText(second, '#live', 'Live');
  await room(eli, 'kitchen');
  await expectNoText(dora, '#people li', 'Eli');
  await sendMessage(eli, '@Dora the kettle boils, @Doranel does not exist');

  for (const page of [dora, second]) {
    await expectText(page, '.toast', 'Eli mentioned you in kitchen: @Dora the kettle boils');
    await expectText(page, '#unread', '1');
    assert.equal(await page.title(), '(1) Chat');
  }
  assert.equal(await eli.locator('#unread').isVisible(), false, 'the author has no notification');

  await dora.locator('#bell').click();
  await dora.getByRole('button', { name: /the kettle boils/ }).click();
  await expectText(dora, '#messages li mark', '@Dora');
  await dora.locator('#bell').click();
  await dora.getByRole('button', { name: 'Mark as read' }).click();
  await expectNoText(second, '#unread', '1');
  await expectUnchanged(dora, second, eli);
});

test('the server does not authorize channels of other users', async () => {
  const [ana, ben] = [await apiOf(chat, { name: 'Ana' }), await apiOf(chat, { name: 'Ben' })];
  assert.equal(await ana.authorizationStatus(`private-App.Models.User.${ana.user.id}`), 200);
  assert.equal(await ana.authorizationStatus(`private-App.Models.User.${ben.user.id}`), 403);
  assert.equal(await ana.authorizationStatus('presence-room.general'), 200);
  assert.equal(await ana.authorizationStatus('presence-room.board'), 403);
  assert.equal((await ana.post('/api/rooms/board', { text: 'hello' })).status, 404);
  assert.equal((await ana.post('/api/rooms/general', { text: 'x'.repeat(501) })).status, 422);
});

test('a message can be sent to another room with the keyboard only', async (t) => {
  const [finn, gil] = await people(t, ['Finn', 'Gil']);
  await room(gil, 'projects');
  await tabTo(finn, '#rooms li:nth-child(3) button');
  await finn.keyboard.press('Enter');
  await expectText(finn, '#people li', 'Gil');
  await tabTo(finn, '#people button');
  await finn.keyboard.press('Enter');
  await finn.keyboard.type('look at this');
  await finn.keyboard.press('Enter');
  await expectText(gil, '#messages li', '@Gil look at this');
  await expectText(gil, '#unread', '1');
  await tabTo(gil, '#bell');
  await gil.keyboard.press('Enter');
  await expectText(gil, '#inbox', '@Gil look at this');
  await gil.keyboard.press('Escape');
  await expectNoText(gil, '#inbox', '@Gil look at this');
});

test('the chat fits on a phone', async (t) => {
  const [ana] = await people(t, ['Ana', 'Ben']);
  await ana.setViewportSize(PHONE);
  await expectFits(ana);
  await ana.locator('#bell').click();
  await expectFits(ana);
});

test('pages report an outage of Carillon and recover missed messages', async (t) => {
  const [hal, ida] = await people(t, ['Hal', 'Ida']);
  await carillon.stop();
  for (const page of [hal, ida]) {
    await expectText(page, '#offline', `Offline: cannot reach ws://127.0.0.1:${carillon.port}, retrying … The server does not respond`);
  }
  await sendMessage(ida, 'Did you get this, @Hal?');
  await expectText(ida, '#messages li', 'Did you get this');
  await expectText(ida, '.toast', 'Saved, but not sent to other pages');
  assert.equal(await hal.locator('#messages li', { hasText: 'Did you get this' }).count(), 0);

  await carillon.startAgain();
  for (const page of [hal, ida]) await expectText(page, '#live', 'Live over WebSocket');
  await expectText(hal, '#messages li', 'Did you get this, @Hal?');
  await expectText(hal, '#unread', '1');
  for (const page of [hal, ida]) for (const name of ['Hal', 'Ida']) await expectText(page, '#people li', name);
  await sendMessage(hal, 'Now I do');
  await expectText(ida, '#messages li', 'Now I do');
  await expectUnchanged(hal, ida);
});

test('the warning about an unauthorized room disappears when the room is left', async (t) => {
  const example = await startExample(t, 'chat', carillon);
  const [lea] = await people(t, ['Lea'], { example });
  await example.stop();
  await carillon.stop();
  await expectText(lea, '#offline', 'Offline');
  await carillon.startAgain();
  await expectText(lea, '.toast', 'must sign for presence-room.general');
  await room(lea, 'kitchen');
  await expectText(lea, '.toast', 'must sign for presence-room.kitchen');
  await expectNoText(lea, '.toast', 'must sign for presence-room.general');
  await example.startAgain();
  await expectNoText(lea, '.toast', 'No live updates');
  await expectText(lea, '#people li', 'Lea');
  await expectUnchanged(lea);
});

test('members, typing indicators and mentions work over HTTP where WebSockets are refused', async (t) => {
  const example = await startExample(t, 'chat', await startProxy(t, carillon));
  const [jan, kim] = await people(t, ['Jan', 'Kim'], { example, transport: 'Live over HTTP fallback' });
  await kim.locator('#text').pressSequentially('Hm');
  await expectText(jan, '#typing', 'Kim is typing …');
  await sendMessage(kim, 'Are you there, @Jan?');
  await expectText(jan, '#messages li', 'Are you there, @Jan?');
  await expectText(jan, '.toast', 'Kim mentioned you');
  await expectUnchanged(jan, kim);
});
