// Takes the pictures of docs/examples: every example at desktop width, with something going on in it.
// `make screenshots` runs it. Names and texts are fixed, clocks are those of the moment.

import { mkdirSync, statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { launch, open, sees, startCarillon, startExample } from './harness.mjs';

const FOLDER = fileURLToPath(new URL('../../docs/examples/', import.meta.url));
const BYTES_MAX = 200 * 1024;

const endings = [];
const owner = { after: (end) => endings.unshift(end) };

const press = (page, label) => page.getByRole('button', { name: label, exact: true }).click();

const PICTURES = {
  async clinic(visit) {
    const [desk, practice] = [await visit('/registrar'), await visit('/doctor/brenner')];
    await press(practice, 'Start: Lena Fischer');
    await press(desk, 'Check in: Priya Raman');
    await press(desk, 'Cancel: Mei Tanaka');
    await desk.getByLabel('Reason').fill('Asked for another day');
    await press(desk, 'Cancel the appointment');
    await sees(desk, '[data-lane=in_progress]', 'Lena Fischer');
    await sees(desk, '[data-lane=done]', 'Mei Tanaka');
    await press(desk, 'Close this message');
    return desk;
  },
  async tickets(visit) {
    const [iris, sam] = [await visit('/?as=Iris'), await visit('/?as=Sam')];
    await press(sam, 'Take: VPN drops every few minutes since this morning');
    await sees(iris, '#tickets', 'with Sam');
    return iris;
  },
  async chat(visit) {
    const [ana, ben, cleo] = [await visit('/?as=Ana'), await visit('/?as=Ben Okoro'), await visit('/?as=Cleo')];
    const says = async (page, words) => {
      await page.locator('#text').fill(words);
      await page.keyboard.press('Enter');
      await sees(ana, '#messages', words);
    };
    await says(ben, 'Morning! Is the new list the one for March?');
    await says(ana, 'It is. @Ben Okoro please tell the shops');
    await ben.locator('#rooms button').nth(1).click();
    await ben.locator('#text').fill('There is cake, @Ana');
    await ben.keyboard.press('Enter');
    await sees(ana, '#unread', '1');
    await ben.locator('#rooms button').nth(0).click();
    await sees(ana, '#people', 'Ben Okoro');
    await cleo.locator('#text').pressSequentially('And');
    await sees(ana, '#typing', 'Cleo is typing');
    return ana;
  },
  async 'sync-progress'(visit) {
    const [ana, ben] = [await visit('/?as=Ana&company=alder'), await visit('/?as=Ben&company=alder')];
    const begin = async (page, records) => {
      await page.getByLabel('Records').fill(String(records));
      await press(page, 'Start a sync');
    };
    await begin(ben, 400);
    await sees(ana, '#past', '400 of 400');
    await begin(ben, 9_000);
    await sees(ben, '#percent', '1 %');
    await press(ben, 'Cancel the sync');
    await sees(ana, '#past', 'cancelled by Ben');
    await begin(ana, 1_200);
    await sees(ana, '#percent', /^(4|5|6)\d %/);
    return ana;
  },
};

try {
  mkdirSync(FOLDER, { recursive: true });
  const carillon = await startCarillon(owner);
  // Fields of a time are written in the browser's language, of which Debian installs one, and with this in that of the page.
  const browser = await launch(owner, ['--enable-blink-features=LangAttributeAwareFormControlUI']);
  for (const [name, prepare] of Object.entries(PICTURES)) {
    const { url } = await startExample(owner, name, carillon);
    const page = await prepare(async (path) => {
      const opened = await open(owner, browser, url + path, { colorScheme: 'light', locale: 'en-GB' });
      await sees(opened, '#live', 'Live over WebSocket');
      return opened;
    });
    const path = `${FOLDER}${name}.png`;
    await page.screenshot({ path });
    const { size } = statSync(path);
    if (size > BYTES_MAX) throw new Error(`${path} has ${size} bytes, more than ${BYTES_MAX}`);
    console.log(`${name}: ${Math.round(size / 1024)} KiB`);
  }
} finally {
  for (const end of endings) await end();
}
