// The desk: a list, its figures, and the transport of the connection. Uses pusher-js without Echo.

import { Live, connectionOptions, keepFresh, transportName } from '/common/live.js';
import { $, act, api, arrange, askWho, clock, clockWithSeconds, el, form, toast } from '/common/page.js';
import { Store } from '/common/store.js';

const STATUS = { open: ['Open', 'blue'], in_progress: ['In progress', 'amber'], resolved: ['Resolved', 'green'] };
const PRIORITY = { urgent: ['Urgent', 'red'], high: ['High', 'amber'], normal: ['Normal', 'gray'], low: ['Low', 'gray'] };
const ORDER = Object.keys(PRIORITY);

const { config, user, token } = await askWho();
$('#who').textContent = user.name;

const tickets = new Store();
const figures = new Store();

/** Applies a snapshot, an event, or the response to the user's own request. */
function take({ run, items, item, figures: latest }) {
  if (items) {
    tickets.snapshot({ run, items });
    figures.snapshot({ run, items: [latest] });
  } else if (!tickets.event({ run, item }) || !figures.event({ run, item: latest })) {
    return refresh();
  }
  draw();
  return undefined;
}

async function refresh() {
  const state = await api('/api/tickets').catch((error) => void toast(error.message, 'problem'));
  if (state) take(state);
}

await refresh();

// === live ===

const pusher = new window.Pusher(config.key, {
  ...connectionOptions(config),
  channelAuthorization: { endpoint: '/broadcasting/auth', transport: 'ajax', headers: { Authorization: `Bearer ${token}` } },
});
new Live(pusher, config, drawConnection);
const channel = pusher.subscribe('private-tickets');
keepFresh(channel, refresh);

let events = 0;
channel.bind('ticket.changed', (event) => {
  events += 1;
  $('#events').textContent = `${events}, the last at ${clockWithSeconds(new Date())}`;
  take(event);
});

let since = null;

function drawConnection() {
  const name = transportName(pusher);
  $('#transport').textContent = name;
  const socket = name === 'none' ? null : pusher.connection.socket_id;
  if (socket === since?.socket) return;
  since = socket && { socket, at: new Date() };
  $('#since').textContent = since ? clockWithSeconds(since.at) : '–';
  $('#socket').textContent = socket ?? '–';
}

const address = new URL(location.href);
if (address.searchParams.get('transport') === 'http') {
  address.searchParams.delete('transport');
  Object.assign($('#switch'), { href: address.href, textContent: 'Connect with WebSockets again' });
} else {
  address.searchParams.set('transport', 'http');
  $('#switch').href = address.href;
}

// === the list ===

function draw() {
  const chosen = $('[name=filter]:checked').value;
  const shown = tickets.items.filter(({ status }) => chosen === 'all' || status === chosen);
  const resolvedLast = (item) => (item.status === 'resolved' ? 1 : 0);
  shown.sort((a, b) => resolvedLast(a) - resolvedLast(b) || ORDER.indexOf(a.priority) - ORDER.indexOf(b.priority) || b.id - a.id);
  arrange($('#tickets'), shown, row, ({ version }) => version);
  $('#none').hidden = shown.length > 0;

  const now = figures.item('figures');
  for (const name of ['open', 'in_progress', 'resolved']) $(`[data-figure=${name}]`).textContent = now[name];
  $('[data-figure=median]').textContent = now.median_minutes === null ? '–' : `${now.median_minutes} min`;
  const most = Math.max(1, ...Object.values(now.waiting));
  const bars = ORDER.map((priority) => ({ id: priority, count: now.waiting[priority] }));
  arrange(
    $('#waiting'),
    bars,
    ({ id, count }) => bar(id, count, most),
    ({ count }) => `${count}/${most}`,
  );
}

function row(item) {
  const [status, tone] = STATUS[item.status];
  const [priority, urgency] = PRIORITY[item.priority];
  const by = item.assignee ? `${item.status === 'resolved' ? 'resolved by' : 'with'} ${item.assignee}` : 'not assigned';
  return el(
    'li',
    { class: 'ticket' },
    el(
      'div',
      { class: 'words' },
      el('h3', {}, item.subject),
      el('p', { class: 'soft fine' }, `No. ${item.id}, ${item.requester}, ${clock(item.created)}; ${by}`),
    ),
    el(
      'div',
      { class: 'row marks' },
      el('span', { class: 'badge', data: { tone: urgency } }, priority),
      el('span', { class: 'badge', data: { tone } }, status),
    ),
    el('div', { class: 'row does' }, next(item)),
  );
}

function next(item) {
  const [action, label] = { open: ['take', 'Take'], in_progress: ['resolve', 'Resolve'], resolved: ['reopen', 'Reopen'] }[item.status];
  const style = item.status === 'resolved' ? 'small' : 'small primary';
  return el(
    'button',
    {
      type: 'button',
      class: style,
      'aria-label': `${label}: ${item.subject}`,
      onclick: ({ currentTarget }) => perform(currentTarget, item.id, action),
    },
    label,
  );
}

async function perform(button, id, action) {
  const result = await act(button, () => api(`/api/tickets/${id}/${action}`, {}));
  if (result) take(result);
  // After a refusal, another user was faster. This fetches the current state.
  else refresh();
}

function bar(priority, count, most) {
  const fill = el('span', { class: 'fill', data: { tone: PRIORITY[priority][1] } });
  fill.style.width = `${(100 * count) / most}%`;
  return el(
    'li',
    {},
    el('span', {}, PRIORITY[priority][0]),
    el('span', { class: 'track', 'aria-hidden': 'true' }, fill),
    el('span', { class: 'number' }, count),
  );
}

for (const choice of document.querySelectorAll('[name=filter]')) choice.addEventListener('change', draw);

form($('#create'), async (values) => {
  take(await api('/api/tickets', values));
  $('#create').reset();
  $('#subject').focus();
});
