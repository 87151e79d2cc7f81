// The clinic: what happens at the desk shows at the doctor's and on the patient's phone, and the other way round.

import assert from 'node:assert/strict';
import { after, test } from 'node:test';

import { PHONE, apiOf, fits, launch, missing, open, sees, startCarillon, startExample, startProxy, tabTo, unchanged } from './harness.mjs';

const file = { after };
const carillon = await startCarillon(file);
const clinic = await startExample(file, 'clinic', carillon);
const browser = await launch(file);

const lane = (name) => `[data-lane=${name}]`;
const press = (page, label) => page.getByRole('button', { name: label, exact: true }).click();

/** A registrar's panel and a doctor's, both live by `transport`. */
async function panels(t, { example = clinic, doctor = 'brenner', transport = 'Live over WebSocket' } = {}) {
  const [desk, practice] = await Promise.all([
    open(t, browser, `${example.url}/registrar`),
    open(t, browser, `${example.url}/doctor/${doctor}`),
  ]);
  await Promise.all([sees(desk, '#live', transport), sees(practice, '#live', transport)]);
  return [desk, practice];
}

test('an appointment goes from desk to doctor and back, with the queue and the log', async (t) => {
  const [desk, practice] = await panels(t);

  await desk.getByLabel('Patient').fill('Zoë <b>Quist</b>');
  await desk.getByLabel('Doctor', { exact: true }).selectOption('Dr. Ada Brenner');
  await desk.getByLabel('Time').fill('11:40');
  await desk.getByLabel('Complaint').fill('Sore throat');
  await press(desk, 'Create');
  await sees(practice, `${lane('scheduled')} li`, 'Zoë <b>Quist</b>');

  await press(desk, 'Check in: Zoë <b>Quist</b>');
  await sees(practice, `${lane('checked_in')} li`, /No\. 3\s*Zoë/);
  const link = await desk.getByRole('link', { name: /Zoë/ }).getAttribute('href');
  const patient = await open(t, browser, clinic.url + link, { viewport: PHONE });
  await sees(patient, '#live', 'Live');
  await sees(patient, '#ticket', '2 before you');

  await press(practice, 'Start: Lena Fischer');
  await sees(desk, `${lane('in_progress')} li`, 'Lena Fischer');
  await sees(desk, `${lane('checked_in')} li`, /No\. 2\s*Dr\. Ada Brenner\s*Zoë/);
  await sees(patient, '#ticket', '1 before you');

  await press(practice, 'Finish: Lena Fischer');
  await sees(desk, `${lane('done')} li`, /Finished[\s\S]*Lena Fischer/);

  await press(desk, 'Cancel: Tomás Oliveira');
  await desk.getByLabel('Reason').fill('Has gone home');
  await press(desk, 'Cancel the appointment');
  await sees(practice, `${lane('done')} li`, 'Cancelled: Has gone home');
  await sees(practice, '#log li', /Tomás Oliveira Checked in → Cancelled\s*Noor \(registrar\): Has gone home/);
  await sees(practice, '#log li', /^\d\d:\d\d:\d\d/);
  await sees(patient, '#ticket', 'You are next');

  await press(practice, 'Start: Zoë <b>Quist</b>');
  await sees(patient, '#ticket', 'Please come in');
  await fits(patient);
  await unchanged(desk, practice, patient);
});

test('the server decides what may become of an appointment, and who may hear of it', async () => {
  const desk = await apiOf(clinic, { role: 'registrar' });
  const doctor = await apiOf(clinic, { role: 'doctor', id: 'sato' });
  const made = await desk.post('/api/appointments', { patient: 'Ivo Rehn', doctor: 'sato', time: '16:00', complaint: 'Back pain' });
  const { id, patient } = made.items[0];
  const act = (who, action, body) => who.post(`/api/appointments/${id}/${action}`, body);

  assert.equal((await act(doctor, 'start')).status, 409, 'not before the patient is there');
  assert.equal((await act(desk, 'check-in')).status, 200);
  assert.equal((await act(desk, 'start')).status, 403, 'only a doctor starts');
  assert.equal((await act(desk, 'cancel', { reason: ' ' })).fields.reason, 'The reason is missing.');
  assert.equal((await act(doctor, 'start')).status, 200);
  assert.equal((await act(doctor, 'finish')).status, 200);
  const again = await act(doctor, 'start');
  assert.deepEqual([again.status, again.message], [409, 'The appointment of Ivo Rehn is finished and cannot be started.']);
  const clash = await desk.post('/api/appointments', { patient: 'Uma Rao', doctor: 'sato', time: '16:00', complaint: 'Cough' });
  assert.deepEqual([clash.status, clash.fields.time], [422, 'Dr. Miguel Sato has an appointment at 16:00.']);

  assert.equal(await desk.mayHear('private-appointments'), 200);
  assert.equal(await doctor.mayHear('private-appointments'), 403);
  assert.equal(await doctor.mayHear('private-doctor.sato'), 200);
  assert.equal(await doctor.mayHear('private-doctor.brenner'), 403);
  assert.equal(await doctor.mayHear(`private-patient.${patient.id}`), 403);
  assert.equal(await desk.mayHear('private-appointments', { Authorization: 'Bearer e30.forged' }), 403);
});

test('an appointment is cancelled by keyboard alone', async (t) => {
  const [desk, practice] = await panels(t, { doctor: 'sato' });
  const button = '[aria-label="Cancel: Owen Clarke"]';
  await tabTo(desk, button);
  await desk.keyboard.press('Enter');
  await sees(desk, '#cancel', 'Owen Clarke');
  await desk.keyboard.press('Escape');
  await missing(desk, '#cancel', 'Owen Clarke');
  await tabTo(desk, button);
  await desk.keyboard.press('Enter');
  await desk.keyboard.type('No');
  await desk.keyboard.press('Enter');
  await sees(desk, '.field-problem', 'The reason needs at least 3 characters.');
  await desk.keyboard.type(' transport today');
  await desk.keyboard.press('Enter');
  await sees(practice, `${lane('done')} li`, 'Cancelled: No transport today');
});

test('a refusal is said where it can be read, and shows what has happened meanwhile', async (t) => {
  // The example's server publishes through this one, its pages connect without it.
  const way = await startProxy(t, carillon);
  const example = await startExample(t, 'clinic', way, { VITE_REVERB_PORT: String(carillon.port) });
  const [desk, practice] = await panels(t, { example });
  await way.stop();
  const cancels = async (page, patient) => {
    await press(page, `Cancel: ${patient}`);
    await page.getByLabel('Reason').fill('Does not come');
    await press(page, 'Cancel the appointment');
  };

  await press(practice, 'Start: Lena Fischer');
  await sees(practice, `${lane('in_progress')} li`, 'Lena Fischer');
  await cancels(desk, 'Lena Fischer');
  await sees(desk, '.toast', 'The appointment of Lena Fischer is in progress and cannot be cancelled.');
  assert.equal(await desk.locator('#cancel').isVisible(), false, 'nothing is in front of it');
  await sees(desk, `${lane('in_progress')} li`, 'Lena Fischer');
  await desk.locator('.toast[data-kind=problem]').getByRole('button').click();

  await cancels(practice, 'Jonas Weber');
  await sees(practice, `${lane('done')} li`, 'Jonas Weber');
  await press(desk, 'Check in: Jonas Weber');
  await sees(desk, '.toast', 'The appointment of Jonas Weber is cancelled and cannot be checked in.');
  await sees(desk, `${lane('done')} li`, 'Jonas Weber');

  await example.stop();
  await cancels(desk, 'Priya Raman');
  await sees(desk, '.toast', 'The server of this example does not respond.');
  assert.equal(await desk.locator('#cancel').isVisible(), false, 'nothing is in front of it');
  await unchanged(desk, practice);
});

test('a server that begins anew is no news, what happens there is', async (t) => {
  const example = await startExample(t, 'clinic', carillon);
  const [desk, practice] = await panels(t, { example });
  await example.stop();
  await example.again();
  await press(desk, 'Check in: Priya Raman');
  await sees(practice, `${lane('checked_in')} li`, 'Priya Raman');
  await press(desk, 'Check in: Jonas Weber');
  await sees(practice, '.toast', 'Jonas Weber: checked in, by Noor (registrar)');
  assert.equal(await practice.locator('.toast[data-kind=news]').count(), 1, 'and nothing of the appointments that were there before');
  await unchanged(desk, practice);
});

test('the panels fit a phone', async (t) => {
  const [desk, practice] = await panels(t);
  for (const page of [desk, practice]) {
    await page.setViewportSize(PHONE);
    await fits(page);
  }
});

test('Carillon is away and comes back: said in words, and made up for', async (t) => {
  const [desk, practice] = await panels(t, { doctor: 'sato' });
  await carillon.stop();
  for (const page of [desk, practice]) {
    await sees(page, '#live', 'Offline');
    await sees(page, '#offline', `Offline: cannot reach ws://127.0.0.1:${carillon.port}, retrying … The server does not respond`);
  }

  await press(practice, 'Start: Amira Haddad');
  await sees(practice, `${lane('in_progress')} li`, 'Amira Haddad');
  await sees(practice, '.toast', /^Saved, but not sent to other pages: Carillon at \S+ cannot be reached: connection refused/);
  assert.equal(await desk.locator(`${lane('checked_in')} li`, { hasText: 'Amira Haddad' }).count(), 1, 'the desk could not hear of it');

  await carillon.again();
  for (const page of [desk, practice]) {
    await sees(page, '#live', 'Live over WebSocket');
    await missing(page, '#offline', 'Offline');
  }
  await sees(desk, `${lane('in_progress')} li`, 'Amira Haddad');
  await press(practice, 'Finish: Amira Haddad');
  await sees(desk, `${lane('done')} li`, 'Amira Haddad');
  await unchanged(desk, practice);
});

test('where WebSockets are refused, both panels are live over HTTP', async (t) => {
  const behind = await startExample(t, 'clinic', await startProxy(t, carillon));
  const [desk, practice] = await panels(t, { example: behind, transport: 'Live over HTTP fallback' });
  await press(desk, 'Check in: Priya Raman');
  await sees(practice, `${lane('checked_in')} li`, 'Priya Raman');
  await press(practice, 'Start: Lena Fischer');
  await sees(desk, `${lane('in_progress')} li`, 'Lena Fischer');
  await unchanged(desk, practice);
});
