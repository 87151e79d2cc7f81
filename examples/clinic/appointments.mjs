// The appointments of one day: allowed state changes, the roles that may make them, and each doctor's queue. Contains only the rules
// and publishes nothing. Every method returns the appointments that it changed.

import { randomBytes } from 'node:crypto';

import { Problem, text } from '../common/server.mjs';

export const DOCTORS = [
  { id: 'brenner', name: 'Dr. Ada Brenner' },
  { id: 'sato', name: 'Dr. Miguel Sato' },
];

const WORDS = {
  scheduled: 'scheduled',
  checked_in: 'checked in',
  in_progress: 'in progress',
  finished: 'finished',
  cancelled: 'cancelled',
};

/** Actions, with the states that they start from and the roles that may perform them. */
const ACTIONS = {
  'check-in': { from: ['scheduled'], to: 'checked_in', by: ['registrar'], words: 'checked in' },
  start: { from: ['checked_in'], to: 'in_progress', by: ['doctor'], words: 'started' },
  finish: { from: ['in_progress'], to: 'finished', by: ['doctor'], words: 'finished' },
  cancel: { from: ['scheduled', 'checked_in'], to: 'cancelled', by: ['registrar', 'doctor'], words: 'cancelled' },
};

/** Maximum number of appointments per day. */
const APPOINTMENTS_MAX = 200;

export class Appointments {
  #all = new Map();
  #next = 1;

  /** Returns the appointments that a user may see: all for the registrar, their own for doctors and patients. */
  of({ role, id }) {
    return [...this.#all.values()].filter(
      ({ doctor, patient }) => role === 'registrar' || (role === 'doctor' && doctor.id === id) || (role === 'patient' && patient.id === id),
    );
  }

  patient(id) {
    return [...this.#all.values()].find(({ patient }) => patient.id === id)?.patient;
  }

  /** Creates an appointment from the values of a form. */
  create(user, body) {
    if (user.role !== 'registrar') throw new Problem(403, 'Only the registrar creates appointments.');
    if (this.#all.size >= APPOINTMENTS_MAX) throw new Problem(409, `A day has at most ${APPOINTMENTS_MAX} appointments.`);
    const name = text(body, 'patient', 'The name of the patient', { min: 2, max: 60 });
    const complaint = text(body, 'complaint', 'The complaint', { min: 3, max: 120 });
    const time = text(body, 'time', 'The time');
    if (!/^([01]\d|2[0-3]):[0-5]\d$/.test(time)) throw new Problem(422, 'The time is invalid.', { time: 'Write the time as 14:30.' });
    const doctor = DOCTORS.find(({ id }) => id === body.doctor);
    if (!doctor) throw new Problem(422, 'This doctor does not exist.', { doctor: 'Choose a doctor.' });
    const clash = [...this.#all.values()].find((other) => other.doctor === doctor && other.time === time && other.status !== 'cancelled');
    if (clash)
      throw new Problem(422, `${doctor.name} sees ${clash.patient.name} at ${time}.`, {
        time: `${doctor.name} has an appointment at ${time}.`,
      });
    const appointment = {
      id: this.#next,
      version: 1,
      // This id alone gives access to the patient's page, so it must not be guessable.
      patient: { id: randomBytes(6).toString('hex'), name },
      doctor,
      time,
      complaint,
      status: 'scheduled',
      position: null,
      since: null,
      log: [this.#entry(user, null, 'scheduled', null)],
    };
    this.#next += 1;
    this.#all.set(appointment.id, appointment);
    return [appointment];
  }

  /** Performs an action on an appointment, and updates the queue. */
  act(user, id, action, body = {}) {
    const appointment = this.of(user).find((one) => one.id === Number(id));
    if (!appointment) throw new Problem(404, 'This appointment does not exist.');
    const rule = Object.hasOwn(ACTIONS, action) ? ACTIONS[action] : null;
    if (!rule) throw new Problem(404, 'This action does not exist.');
    if (!rule.by.includes(user.role)) throw new Problem(403, `An appointment is ${rule.words} by the ${rule.by.join(' or the ')}.`);
    if (!rule.from.includes(appointment.status)) {
      throw new Problem(409, `The appointment of ${appointment.patient.name} is ${WORDS[appointment.status]} and cannot be ${rule.words}.`);
    }
    const busy = action === 'start' && this.of(user).find(({ status }) => status === 'in_progress');
    if (busy) throw new Problem(409, `Finish the appointment of ${busy.patient.name} first.`);
    const why = action === 'cancel' ? text(body, 'reason', 'The reason', { min: 3, max: 120 }) : null;

    appointment.log.push(this.#entry(user, appointment.status, rule.to, why));
    appointment.status = rule.to;
    appointment.since = new Date().toISOString();
    return this.#queue(appointment);
  }

  /** Numbers the waiting patients of one doctor in the order of their arrival. */
  #queue(changed) {
    const mine = [...this.#all.values()].filter(({ doctor }) => doctor === changed.doctor);
    const waiting = mine.filter(({ status }) => status === 'checked_in').sort((a, b) => arrival(a) - arrival(b));
    const moved = mine.filter((appointment) => {
      const position = waiting.indexOf(appointment) + 1 || null;
      const differs = position !== appointment.position;
      appointment.position = position;
      return differs || appointment === changed;
    });
    for (const appointment of moved) appointment.version += 1;
    return moved;
  }

  #serial = 0;

  /** Returns a log entry. `at` is for display; `serial` orders entries of the same instant. */
  #entry({ name }, from, to, why) {
    this.#serial += 1;
    return { serial: this.#serial, at: new Date().toISOString(), who: name, from, to, why };
  }
}

const arrival = ({ log }) => log.findLast(({ to }) => to === 'checked_in').serial;

/** Adds the appointments of a morning, so that the panels are not empty. */
export function beginDay(appointments, registrar) {
  const day = [
    ['09:00', 'Lena Fischer', 'brenner', 'Follow-up after surgery'],
    ['09:20', 'Tomás Oliveira', 'brenner', 'Persistent cough'],
    ['09:40', 'Priya Raman', 'brenner', 'Knee pain when climbing stairs'],
    ['10:00', 'Jonas Weber', 'brenner', 'Blood pressure check'],
    ['09:10', 'Amira Haddad', 'sato', 'Vaccination'],
    ['09:30', 'Owen Clarke', 'sato', 'Skin rash on both arms'],
    ['09:50', 'Mei Tanaka', 'sato', 'Headaches for two weeks'],
  ];
  const ids = day.map(([time, patient, doctor, complaint]) => appointments.create(registrar, { time, patient, doctor, complaint })[0].id);
  for (const at of [0, 1, 4]) appointments.act(registrar, ids[at], 'check-in');
}
