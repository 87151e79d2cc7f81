// The clinic example: changes at the desk appear at the doctor's panel and on the patient's phone, and vice versa.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { PHONE, apiOf, expectFits, launch, expectNoText, open, expectText, startCarillon, startExample, startProxy, tabTo, expectUnchanged } from './harness.mjs';

const file = { after };
const carillon = await startCarillon(file);
const clinic = await startExample(file, 'clinic', carillon);
const browser = await launch(file);

const lane = (name) => `[data-lane=${name}]`;
const press = (page, label) => page.getByRole('button', { name: label, exact: true }).click();

/** Opens a registrar's panel and a doctor's panel, connected over `transport`. */
async function panels(t, { example = clinic, doctor = 'brenner', transport = 'Live over WebSocket' } = {}) {
  const [desk, practice] = await Promise.all([
    open(t, browser, `${example.url}/registrar`),
    open(t, browser, `${example.url}/doctor/${doctor}`),
  ]);
  await Promise.all([expectText(desk, '#live', transport), expectText(practice, '#live', transport)]);
  return [desk, practice];
}

test('an appointment moves between desk and doctor, with the queue and the log', async (t) => {
  const [desk, practice] = await panels(t);

  await desk.getByLabel('Patient').fill('Zoë <b>Quist</b>');
  await desk.getByLabel('Doctor', { exact: true }).selectOption('Dr. Ada Brenner');
  await desk.getByLabel('Time').fill('11:40');
  await desk.getByLabel('Complaint').fill('Sore throat');
  await press(desk, 'Create');
  await expectText(practice, `${lane('scheduled')} li`, 'Zoë <b>Quist</b>');

  await press(desk, 'Check in: Zoë <b>Quist</b>');
  await expectText(practice, `${lane('checked_in')} li`, /No\. 3\s*Zoë/);
  const link = await desk.getByRole('link', { name: /Zoë/ }).getAttribute('href');
  const patient = await open(t, browser, clinic.url + link, { viewport: PHONE });
  await expectText(patient, '#live', 'Live');
  await expectText(patient, '#ticket', '2 before you');

  await press(practice, 'Start: Lena Fischer');
  await expectText(desk, `${lane('in_progress')} li`, 'Lena Fischer');
  await expectText(desk, `${lane('checked_in')} li`, /No\. 2\s*Dr\. Ada Brenner\s*Zoë/);
  await expectText(patient, '#ticket', '1 before you');

  await press(practice, 'Finish: Lena Fischer');
  await expectText(desk, `${lane('done')} li`, /Finished[\s\S]*Lena Fischer/);

  await press(desk, 'Cancel: Tomás Oliveira');
  await desk.getByLabel('Reason').fill('Went home');
  await press(desk, 'Cancel the appointment');
  await expectText(practice, `${lane('done')} li`, 'Cancelled: Went home');
  await expectText(practice, '#log li', /Tomás Oliveira Checked in → Cancelled\s*Noor \(registrar\): Went home/);
  await expectText(practice, '#log li', /^\d\d:\d\d:\d\d/);
  await expectText(patient, '#ticket', 'You are next');

  await press(practice, 'Start: Zoë <b>Quist</b>');
  await expectText(patient, '#ticket', 'Please come in');
  await expectFits(patient);
  await expectUnchanged(desk, practice, patient);
});

test('the server checks changes of appointments and subscriptions', async () => {
  const desk = await apiOf(clinic, { role: 'registrar' });
  const doctor = await apiOf(clinic, { role: 'doctor', id: 'sato' });
  const made = await desk.post('/api/appointments', { patient: 'Ivo Rehn', doctor: 'sato', time: '16:00', complaint: 'Back pain' });
  const { id, patient } = made.items[0];
  const act = (who, action, body) => who.post(`/api/appointments/${id}/${action}`, body);

  assert.equal((await act(doctor, 'start')).status, 409, 'the patient is not checked in');
  assert.equal((await act(desk, 'check-in')).status, 200);
  assert.equal((await act(desk, 'start')).status, 403, 'only a doctor may start');
  assert.equal((await act(desk, 'cancel', { reason: ' ' })).fields.reason, 'The reason is missing.');
  assert.equal((await act(doctor, 'start')).status, 200);
  assert.equal((await act(doctor, 'finish')).status, 200);
  const again = await act(doctor, 'start');
  assert.deepEqual([again.status, again.message], [409, 'The appointment of Ivo Rehn is finished and cannot be started.']);
  const clash = await desk.post('/api/appointments', { patient: 'Uma Rao', doctor: 'sato', time: '16:00', complaint: 'Cough' });
  assert.deepEqual([clash.status, clash.fields.time], [422, 'Dr. Miguel Sato has an appointment at 16:00.']);

  assert.equal(await desk.authorizationStatus('private-appointments'), 200);
  assert.equal(await doctor.authorizationStatus('private-appointments'), 403);
  assert.equal(await doctor.authorizationStatus('private-doctor.sato'), 200);
  assert.equal(await doctor.authorizationStatus('private-doctor.brenner'), 403);
  assert.equal(await doctor.authorizationStatus(`private-patient.${patient.id}`), 403);
  assert.equal(await desk.authorizationStatus('private-appointments', { Authorization: 'Bearer e30.forged' }), 403);
});

test('an appointment can be cancelled with the keyboard only', async (t) => {
  const [desk, practice] = await panels(t, { doctor: 'sato' });
  const button = '[aria-label="Cancel: Owen Clarke"]';
  await tabTo(desk, button);
  await desk.keyboard.press('Enter');
  await expectText(desk, '#cancel', 'Owen Clarke');
  await desk.keyboard.press('Escape');
  await expectNoText(desk, '#cancel', 'Owen Clarke');
  await tabTo(desk, button);
  await desk.keyboard.press('Enter');
  await desk.keyboard.type('No');
  await desk.keyboard.press('Enter');
  await expectText(desk, '.field-problem', 'The reason needs at least 3 characters.');
  await desk.keyboard.type(' transport today');
  await desk.keyboard.press('Enter');
  await expectText(practice, `${lane('done')} li`, 'Cancelled: No transport today');
});

test('a rejected change is reported visibly and shows the current state', async (t) => {
  // The example's server publishes through the proxy; its pages connect directly.
  const proxy = await startProxy(t, carillon);
  const example = await startExample(t, 'clinic', proxy, { VITE_REVERB_PORT: String(carillon.port) });
  const [desk, practice] = await panels(t, { example });
  await proxy.stop();
  const cancels = async (page, patient) => {
    await press(page, `Cancel: ${patient}`);
    await page.getByLabel('Reason').fill('Does not come');
    await press(page, 'Cancel the appointment');
  };

  await press(practice, 'Start: Lena Fischer');
  await expectText(practice, `${lane('in_progress')} li`, 'Lena Fischer');
  await cancels(desk, 'Lena Fischer');
  await expectText(desk, '.toast', 'The appointment of Lena Fischer is in progress and cannot be cancelled.');
  assert.equal(await desk.locator('#cancel').isVisible(), false, 'the dialog does not cover the message');
  await expectText(desk, `${lane('in_progress')} li`, 'Lena Fischer');
  await desk.locator('.toast[data-kind=problem]').getByRole('button').click();

  await cancels(practice, 'Jonas Weber');
  await expectText(practice, `${lane('done')} li`, 'Jonas Weber');
  await press(desk, 'Check in: Jonas Weber');
  await expectText(desk, '.toast', 'The appointment of Jonas Weber is cancelled and cannot be checked in.');
  await expectText(desk, `${lane('done')} li`, 'Jonas Weber');

  await example.stop();
  await cancels(desk, 'Priya Raman');
  await expectText(desk, '.toast', 'The server of this example does not respond.');
  assert.equal(await desk.locator('#cancel').isVisible(), false, 'the dialog does not cover the message');
  await expectUnchanged(desk, practice);
});

test('a restart of the example shows no notifications, and later changes do', async (t) => {
  const example = await startExample(t, 'clinic', carillon);
  const [desk, practice] = await panels(t, { example });
  await example.stop();
  await example.startAgain();
  await press(desk, 'Check in: Priya Raman');
  await expectText(practice, `${lane('checked_in')} li`, 'Priya Raman');
  await press(desk, 'Check in: Jonas Weber');
  await expectText(practice, '.toast', 'Jonas Weber: checked in, by Noor (registrar)');
  assert.equal(await practice.locator('.toast[data-kind=news]').count(), 1, 'earlier appointments cause no notification');
  await expectUnchanged(desk, practice);
});

test('the panels fit on a phone', async (t) => {
  const [desk, practice] = await panels(t);
  for (const page of [desk, practice]) {
    await page.setViewportSize(PHONE);
    await expectFits(page);
  }
});

test('panels report an outage of Carillon and recover missed changes', async (t) => {
  const [desk, practice] = await panels(t, { doctor: 'sato' });
  await carillon.stop();
  for (const page of [desk, practice]) {
    await expectText(page, '#live', 'Offline');
    await expectText(page, '#offline', `Offline: cannot reach ws://127.0.0.1:${carillon.port}, retrying … The server does not respond`);
  }

  await press(practice, 'Start: Amira Haddad');
  await expectText(practice, `${lane('in_progress')} li`, 'Amira Haddad');
  await expectText(practice, '.toast', /^Saved, but not sent to other pages: Carillon at \S+ cannot be reached: connection refused/);
  assert.equal(await desk.locator(`${lane('checked_in')} li`, { hasText: 'Amira Haddad' }).count(), 1, 'the desk did not receive the change');

  await carillon.startAgain();
  for (const page of [desk, practice]) {
    await expectText(page, '#live', 'Live over WebSocket');
    await expectNoText(page, '#offline', 'Offline');
  }
  await expectText(desk, `${lane('in_progress')} li`, 'Amira Haddad');
  await press(practice, 'Finish: Amira Haddad');
  await expectText(desk, `${lane('done')} li`, 'Amira Haddad');
  await expectUnchanged(desk, practice);
});

test('both panels are live over HTTP where WebSockets are refused', async (t) => {
  const example = await startExample(t, 'clinic', await startProxy(t, carillon));
  const [desk, practice] = await panels(t, { example, transport: 'Live over HTTP fallback' });
  await press(desk, 'Check in: Priya Raman');
  await expectText(practice, `${lane('checked_in')} li`, 'Priya Raman');
  await press(practice, 'Start: Lena Fischer');
  await expectText(desk, `${lane('in_progress')} li`, 'Lena Fischer');
  await expectUnchanged(desk, practice);
});
