// Takes the screenshots in docs/examples: every example at desktop width, with some activity.
// `make screenshots` runs it. Names and texts are fixed; times are current.

import { mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { launch, open, expectText, startCarillon, startExample } from './harness.mjs';

const FOLDER = fileURLToPath(new URL('../../docs/examples/', import.meta.url));
const BYTES_MAX = 200 * 1024;

const cleanups = [];
const owner = { after: (end) => cleanups.unshift(end) };

const press = (page, label) => page.getByRole('button', { name: label, exact: true }).click();

const PICTURES = {
  async clinic(visit) {
    const [desk, practice] = [await visit('/registrar'), await visit('/doctor/brenner')];
    await press(practice, 'Start: Lena Fischer');
    await press(desk, 'Check in: Priya Raman');
    await press(desk, 'Cancel: Mei Tanaka');
    await desk.getByLabel('Reason').fill('Asked for another day');
    await press(desk, 'Cancel the appointment');
    await expectText(desk, '[data-lane=in_progress]', 'Lena Fischer');
    await expectText(desk, '[data-lane=done]', 'Mei Tanaka');
    await press(desk, 'Close this message');
    return desk;
  },
  async tickets(visit) {
    const [iris, sam] = [await visit('/?as=Iris'), await visit('/?as=Sam')];
    await press(sam, 'Take: VPN drops every few minutes since this morning');
    await expectText(iris, '#tickets', 'with Sam');
    return iris;
  },
  async chat(visit) {
    const [ana, ben, cleo] = [await visit('/?as=Ana'), await visit('/?as=Ben Okoro'), await visit('/?as=Cleo')];
    const sendMessage = async (page, words) => {
      await page.locator('#text').fill(words);
      await page.keyboard.press('Enter');
      await expectText(ana, '#messages', words);
    };
    await sendMessage(ben, 'Morning! Is the new list the one for March?');
    await sendMessage(ana, 'It is. @Ben Okoro please notify the shops');
    await ben.locator('#rooms button').nth(1).click();
    await ben.locator('#text').fill('There is cake, @Ana');
    await ben.keyboard.press('Enter');
    await expectText(ana, '#unread', '1');
    await ben.locator('#rooms button').nth(0).click();
    await expectText(ana, '#people', 'Ben Okoro');
    await cleo.locator('#text').pressSequentially('And');
    await expectText(ana, '#typing', 'Cleo is typing');
    return ana;
  },
  async 'sync-progress'(visit) {
    const [ana, ben] = [await visit('/?as=Ana&company=alder'), await visit('/?as=Ben&company=alder')];
    const begin = async (page, records) => {
      await page.getByLabel('Records').fill(String(records));
      await press(page, 'Start a sync');
    };
    await begin(ben, 400);
    await expectText(ana, '#past', '400 of 400');
    await begin(ben, 9_000);
    await expectText(ben, '#percent', '1 %');
    await press(ben, 'Cancel the sync');
    await expectText(ana, '#past', 'cancelled by Ben');
    await begin(ana, 1_200);
    await expectText(ana, '#percent', /^(4|5|6)\d %/);
    return ana;
  },
};

try {
  mkdirSync(FOLDER, { recursive: true });
  const carillon = await startCarillon(owner);
  // Chromium formats time fields in the browser's language, and Debian installs only one. This feature selects the page's language.
  const browser = await launch(owner, ['--enable-blink-features=LangAttributeAwareFormControlUI']);
  for (const [name, prepare] of Object.entries(PICTURES)) {
    const { url } = await startExample(owner, name, carillon);
    const page = await prepare(async (path) => {
      const opened = await open(owner, browser, url + path, { colorScheme: 'light', locale: 'en-GB' });
      await expectText(opened, '#live', 'Live over WebSocket');
      return opened;
    });
    const path = `${FOLDER}${name}.png`;
    await page.screenshot({ path });
    const { size } = statSync(path);
    if (size > BYTES_MAX) throw new Error(`${path} has ${size} bytes, more than ${BYTES_MAX}`);
    console.log(`${name}: ${Math.round(size / 1024)} KiB`);
  }
} finally {
  for (const end of cleanups) await end();
}
