// The clinic: a registrar's panel, a doctor's panel, and a page for each patient, on the same appointments.

import { randomUUID } from 'node:crypto';

import { Broadcaster } from '../common/broadcaster.mjs';
import { Problem, serve } from '../common/server.mjs';
import { Appointments, DOCTORS, beginDay } from './appointments.mjs';

const REGISTRAR = { role: 'registrar', id: 'desk', name: 'Noor (registrar)' };

const broadcaster = new Broadcaster();
const appointments = new Appointments();
beginDay(appointments, REGISTRAR);

/** One life of this process. Versions of an earlier one mean nothing to this one. */
const run = randomUUID();

/** Who a window is. The demo asks for no password; a real clinic does, here. */
function signIn({ role, id }) {
  if (role === 'registrar') return REGISTRAR;
  const person = role === 'doctor' ? DOCTORS.find((doctor) => doctor.id === id) : role === 'patient' ? appointments.patient(id) : null;
  if (!person) throw new Problem(404, `There is no such ${role === 'doctor' ? 'doctor' : 'patient'}.`);
  return { role, ...person };
}

/** The desk hears everything, a doctor and a patient what concerns them. */
function mayHear({ role, id }, channel) {
  return channel === (role === 'registrar' ? 'private-appointments' : `private-${role}.${id}`);
}

/** Tells everyone whom an appointment concerns; one event on three channels. */
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
  mayHear,
  routes: {
    'GET /api/appointments': ({ user }) => ({ run, items: appointments.of(user), doctors: DOCTORS }),
    'POST /api/appointments': ({ user, body }) => announce(appointments.create(user, body)),
    'POST /api/appointments/:id/:action': ({ user, body, parameters }) =>
      announce(appointments.act(user, parameters.id, parameters.action, body)),
  },
});
