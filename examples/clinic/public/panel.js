// The panels of the registrar and of a doctor: the same board, with different actions.

import Echo from '/vendor/echo.js';
import { Live, connectionOptions, keepFresh } from '/common/live.js';
import { $, act, api, arrange, clockWithSeconds, el, form, signIn, toast } from '/common/page.js';
import { Store } from '/common/store.js';

const STATUS = {
  scheduled: 'Scheduled',
  checked_in: 'Checked in',
  in_progress: 'In progress',
  finished: 'Finished',
  cancelled: 'Cancelled',
};
const TONES = { scheduled: 'blue', checked_in: 'amber', in_progress: 'green', finished: 'gray', cancelled: 'red' };

const [, role, id] = location.pathname.split('/');
const { config, user, token } = await signIn({ role, id }).catch((error) => {
  toast(error.message, 'problem');
  throw error;
});
const registrar = user.role === 'registrar';
$('#who').textContent = user.name;
document.title = `${user.name} · Clinic`;

const store = new Store(notify);
let started = false;

/** Fetches all appointments of this panel. Runs after each subscription, and so recovers missed events. */
async function refresh() {
  const state = await api('/api/appointments').catch((error) => void toast(error.message, 'problem'));
  if (!state) return;
  started = state.run === store.run;
  store.snapshot(state);
  started = true;
  arrange(
    $('#doctor'),
    state.doctors,
    (doctor) => el('option', { value: doctor.id }, doctor.name),
    (doctor) => doctor.name,
  );
  draw();
}

await refresh();

// === live ===

const echo = new Echo({ broadcaster: 'reverb', key: config.key, Pusher: window.Pusher, bearerToken: token, ...connectionOptions(config) });
new Live(echo.connector.pusher, config);
const channel = echo.private(registrar ? 'appointments' : `doctor.${user.id}`);
keepFresh(channel.subscription, refresh);
channel.listen('.appointment.changed', (event) => {
  if (!store.event(event)) return refresh();
  draw();
});

/** Shows a toast about changes by other users. The first snapshot shows none, nor does the first one after a server restart. */
function notify(item, before) {
  if (!started || item.log.at(-1).who === user.name || before?.status === item.status) return;
  const { who, why } = item.log.at(-1);
  toast(`${item.patient.name}: ${STATUS[item.status].toLowerCase()}, by ${who}${why ? `. Reason: ${why}` : ''}`);
}

// === the board ===

function draw() {
  const items = store.items;
  const lane = (name, chosen) => {
    const list = $(`[data-lane=${name}]`);
    arrange(list, chosen, card, (item) => item.version);
    $('.count', list.parentElement).textContent = chosen.length;
    list.dataset.empty = {
      scheduled: 'No more patients are expected.',
      checked_in: 'No patients are waiting.',
      in_progress: 'No appointment is in progress.',
      done: 'None yet.',
    }[name];
  };
  const byTime = (a, b) => a.time.localeCompare(b.time) || a.id - b.id;
  lane('scheduled', items.filter(({ status }) => status === 'scheduled').sort(byTime));
  lane(
    'checked_in',
    items
      .filter(({ status }) => status === 'checked_in')
      .sort((a, b) => a.doctor.name.localeCompare(b.doctor.name) || a.position - b.position),
  );
  lane('in_progress', items.filter(({ status }) => status === 'in_progress').sort(byTime));
  lane(
    'done',
    items.filter(({ status }) => status === 'finished' || status === 'cancelled').sort((a, b) => last(b).serial - last(a).serial),
  );

  const entries = items.flatMap((item) => item.log.map((entry) => ({ ...entry, id: entry.serial, patient: item.patient.name })));
  arrange($('#log'), entries.sort((a, b) => b.serial - a.serial).slice(0, 40), logEntry, () => '');
}

function last(item) {
  return item.log.at(-1);
}

function card(item) {
  const place = item.status === 'checked_in' && el('span', { class: 'place number' }, `No. ${item.position}`);
  const ended =
    (item.status === 'finished' || item.status === 'cancelled') &&
    el('span', { class: 'badge', data: { tone: TONES[item.status] } }, STATUS[item.status]);
  return el(
    'li',
    { class: 'appointment', data: { status: item.status } },
    el(
      'div',
      { class: 'row' },
      el('time', { class: 'soft' }, item.time),
      place || ended,
      registrar && el('span', { class: 'soft fine push' }, item.doctor.name),
    ),
    el(
      'h3',
      {},
      registrar
        ? el('a', { href: `/patient/${item.patient.id}`, target: '_blank', title: 'The page of this patient' }, item.patient.name)
        : item.patient.name,
    ),
    el('p', { class: 'fine soft' }, item.status === 'cancelled' ? `Cancelled: ${last(item).why}` : item.complaint),
    el('div', { class: 'row actions' }, ...buttons(item)),
  );
}

/** Returns buttons for the user's next actions. The server enforces the same rules. */
function buttons(item) {
  const button = (action, label, style = '') =>
    el(
      'button',
      {
        type: 'button',
        class: `small ${style}`,
        'aria-label': `${label}: ${item.patient.name}`,
        onclick: ({ currentTarget }) => perform(currentTarget, item, action),
      },
      label,
    );
  const cancel = () =>
    el(
      'button',
      { type: 'button', class: 'small danger', 'aria-label': `Cancel: ${item.patient.name}`, onclick: () => askReason(item) },
      'Cancel …',
    );
  if (registrar) {
    if (item.status === 'scheduled') return [button('check-in', 'Check in', 'primary'), cancel()];
    if (item.status === 'checked_in') return [cancel()];
  } else {
    if (item.status === 'scheduled') return [cancel()];
    if (item.status === 'checked_in') return [button('start', 'Start', 'primary'), cancel()];
    if (item.status === 'in_progress') return [button('finish', 'Finish', 'primary')];
  }
  return [];
}

async function perform(button, item, action) {
  const result = await act(button, () => api(`/api/appointments/${item.id}/${action}`, {}));
  if (result) await changed(result, item.id);
  else await refused(item.id);
}

/** Applies the response to the user's own request, which may arrive before or after its event. Keeps the focus on the card. */
async function changed({ run, items }, id) {
  if (items.every((item) => store.event({ run, item }))) draw();
  else await refresh();
  focusOn(id);
}

/** Fetches again after a refusal, because another user was faster. */
async function refused(id) {
  await refresh();
  focusOn(id);
}

/** Moves the focus to the card of an appointment. */
function focusOn(id) {
  const moved = $(`.board [data-key="${id}"], .done [data-key="${id}"]`);
  if (!moved || moved.contains(document.activeElement)) return;
  const target = $('button, a', moved) ?? moved;
  if (target === moved) moved.tabIndex = -1;
  target.focus();
}

function logEntry({ at, who, from, to, why, patient }) {
  const change = from ? `${STATUS[from]} → ${STATUS[to]}` : STATUS[to];
  return el(
    'li',
    {},
    el('time', { dateTime: at, class: 'soft fine' }, clockWithSeconds(at)),
    el('div', {}, el('p', {}, el('strong', {}, patient), ` ${change}`), el('p', { class: 'soft fine' }, why ? `${who}: ${why}` : who)),
  );
}

// === forms ===

if (registrar) {
  $('#create').hidden = false;
  form($('#create form'), async (values) => {
    const result = await api('/api/appointments', values);
    await changed(result, result.items[0].id);
    $('#create form').reset();
  });
}

let cancelled = null;

function askReason(item) {
  cancelled = item;
  $('#cancel-title').textContent = `Cancel the appointment of ${item.patient.name}`;
  $('#cancel form').reset();
  $('#cancel').showModal();
}

$('#keep').addEventListener('click', () => $('#cancel').close());
form($('#cancel form'), async (values) => {
  const result = await api(`/api/appointments/${cancelled.id}/cancel`, values).catch((error) => {
    if (error.fields?.reason) throw error;
    // Toasts are behind an open dialog, where they are covered and cannot be read out or reached.
    $('#cancel').close();
    refused(cancelled.id);
    throw error;
  });
  $('#cancel').close();
  await changed(result, cancelled.id);
});
