// A patient's page, for a phone in the waiting room: one appointment, and the number of patients before it.

import Echo from '/vendor/echo.js';
import { Live, connectionOptions, keepFresh } from '/common/live.js';
import { $, api, el, signIn, toast } from '/common/page.js';
import { Store } from '/common/store.js';

const [, role, id] = location.pathname.split('/');
const { config, user, token } = await signIn({ role, id }).catch((error) => {
  toast(error.message, 'problem');
  throw error;
});

const store = new Store();

async function refresh() {
  const state = await api('/api/appointments').catch((error) => void toast(error.message, 'problem'));
  if (!state) return;
  store.snapshot(state);
  draw();
}

await refresh();

const echo = new Echo({ broadcaster: 'reverb', key: config.key, Pusher: window.Pusher, bearerToken: token, ...connectionOptions(config) });
new Live(echo.connector.pusher, config);
const channel = echo.private(`patient.${user.id}`);
keepFresh(channel.subscription, refresh);
channel.listen('.appointment.changed', (event) => {
  if (!store.event(event)) return refresh();
  draw();
});

function draw() {
  const [appointment] = store.items;
  if (!appointment)
    return $('#ticket').replaceChildren(
      el('p', { class: 'big' }, 'Not found'),
      el('p', {}, 'The clinic has started a new day. Please ask at the desk.'),
    );
  const { status, position, doctor, time, log } = appointment;
  const words = {
    scheduled: ['Please check in', `Please go to the desk. Your appointment is at ${time}.`],
    checked_in:
      position === 1 ? ['You are next', 'Please stay close to the door.'] : [`${position - 1} before you`, 'This page updates automatically.'],
    in_progress: ['Please come in', `${doctor.name} is expecting you.`],
    finished: ['All done', 'Get well soon.'],
    cancelled: ['Cancelled', `Reason: ${log.at(-1).why}`],
  }[status];
  return $('#ticket').replaceChildren(
    el('p', { class: 'soft' }, `${user.name}, ${time}, ${doctor.name}`),
    el('p', { class: 'big', data: { status } }, words[0]),
    el('p', {}, words[1]),
  );
}
