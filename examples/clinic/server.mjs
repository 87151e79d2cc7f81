// The clinic: a registrar's panel, a doctor's panel, and a page for each patient, with the same appointments.

import { randomUUID } from 'node:crypto';

import { Broadcaster } from '../common/broadcaster.mjs';
import { Problem, serve } from '../common/server.mjs';
import { Appointments, DOCTORS, beginDay } from './appointments.mjs';

const REGISTRAR = { role: 'registrar', id: 'desk', name: 'Noor (registrar)' };

const broadcaster = new Broadcaster();
const appointments = new Appointments();
beginDay(appointments, REGISTRAR);

/** Identifies this run of the process. Versions of an earlier run are not comparable. */
const run = randomUUID();

/** Returns the user of a window. This demo requires no password. A real clinic checks it here. */
function signIn({ role, id }) {
  if (role === 'registrar') return REGISTRAR;
  const person = role === 'doctor' ? DOCTORS.find((doctor) => doctor.id === id) : role === 'patient' ? appointments.patient(id) : null;
  if (!person) throw new Problem(404, `This ${role === 'doctor' ? 'doctor' : 'patient'} does not exist.`);
  return { role, ...person };
}

/** The registrar may subscribe to all appointments, a doctor and a patient to their own. */
function maySubscribe({ role, id }, channel) {
  return channel === (role === 'registrar' ? 'private-appointments' : `private-${role}.${id}`);
}

/** Publishes changed appointments to the registrar, the doctor and the patient: one event on three channels. */
async function announce(changed) {
  const problems = await Promise.all(
    changed.map((item) =>
      broadcaster.publish(
        ['private-appointments', `private-doctor.${item.doctor.id}`, `private-patient.${item.patient.id}`],
        'appointment.changed',
        { run, item },
      ),
    ),
  );
  return { run, items: changed, notice: problems.find(Boolean) };
}

await serve({
  name: 'clinic',
  port: 3001,
  pages: { '/': 'index.html', '/registrar': 'panel.html', '/doctor/:id': 'panel.html', '/patient/:id': 'patient.html' },
  broadcaster,
  signIn,
  maySubscribe,
  routes: {
    'GET /api/appointments': ({ user }) => ({ run, items: appointments.of(user), doctors: DOCTORS }),
    'POST /api/appointments': ({ user, body }) => announce(appointments.create(user, body)),
    'POST /api/appointments/:id/:action': ({ user, body, parameters }) =>
      announce(appointments.act(user, parameters.id, parameters.action, body)),
  },
});
