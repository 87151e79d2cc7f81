// The panels of the registrar and of a doctor: the same board, with what each may do.

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
const TONES = { scheduled: 'blue', checked_in: 'amber', in_progress: 'green', finished: 'grey', cancelled: 'red' };

const [, role, id] = location.pathname.split('/');
const { config, user, token } = await signIn({ role, id }).catch((error) => {
  toast(error.message, 'problem');
  throw error;
});
const registrar = user.role === 'registrar';
$('#who').textContent = user.name;
document.title = `${user.name} · Clinic`;

const store = new Store(tell);
let begun = false;

/** Fetches everything this panel may see. It runs after each subscription: whatever was missed while away is in it. */
async function refresh() {
  const state = await api('/api/appointments').catch((error) => void toast(error.message, 'problem'));
  if (!state) return;
  begun = state.run === store.run;
  store.snapshot(state);
  begun = true;
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

/** Says what others did, to those who look elsewhere. The first snapshot is no news, nor is that of a server that has begun anew. */
function tell(item, before) {
  if (!begun || item.log.at(-1).who === user.name || before?.status === item.status) return;
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
      scheduled: 'Nobody else is expected.',
      checked_in: 'Nobody waits.',
      in_progress: 'No appointment is running.',
      done: 'None so far.',
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

/** What this user may do next. The server enforces the same rules; here they only decide which buttons there are. */
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
  const answer = await act(button, () => api(`/api/appointments/${item.id}/${action}`, {}));
  if (answer) await changed(answer, item.id);
  else await refused(item.id);
}

/** Takes the answer to one's own request, which may come before its event, after it, or alone; keeps the focus on the card. */
async function changed({ run, items }, id) {
  if (items.every((item) => store.event({ run, item }))) draw();
  else await refresh();
  focusOn(id);
}

/** A refusal means that somebody was faster; this shows what they did. */
async function refused(id) {
  await refresh();
  focusOn(id);
}

/** Puts the focus on the card of an appointment, wherever it has moved to. */
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
    const answer = await api('/api/appointments', values);
    await changed(answer, answer.items[0].id);
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
  const answer = await api(`/api/appointments/${cancelled.id}/cancel`, values).catch((error) => {
    if (error.fields?.reason) throw error;
    // What is said outside an open dialog is behind it: covered, not read out, and out of reach.
    $('#cancel').close();
    refused(cancelled.id);
    throw error;
  });
  $('#cancel').close();
  await changed(answer, cancelled.id);
});
