// The progress of a company's syncs, and two console functions for manual checks.

import Echo from '/vendor/echo.js';
import { Live, connectionOptions, keepFresh, transportOf } from '/common/live.js';
import { $, act, api, arrange, askWho, clock, clockWithSeconds, el, form, toast } from '/common/page.js';
import { Store } from '/common/store.js';

/** Maximum length of the event list. */
const EVENTS_MAX = 30;

const { config, user, token } = await askWho();
$('#who').textContent = `${user.name}, ${user.company_name}`;
$('#own').textContent = user.company;
$('#other').textContent = user.company === 'alder' ? 'birch' : 'alder';

const jobs = new Store((job, before) => {
  // `sync.finished` is sent once and does not reach a disconnected page. In that case the fetched job shows that it has finished.
  if (before?.state === 'running' && job.state === 'finished' && job.by.id === user.id) showFinished(job);
});

/** Shows a toast. The job and `sync.finished` may both call this, but equal toasts replace each other. */
function showFinished({ records }) {
  toast(`Your sync of ${records.toLocaleString()} records has finished.`);
}

async function refresh() {
  const state = await api('/api/syncs').catch((error) => void toast(error.message, 'problem'));
  if (!state) return;
  jobs.snapshot(state);
  draw();
}

function take({ run, item }) {
  if (!jobs.event({ run, item })) return refresh();
  return draw();
}

await refresh();

// === live ===

const echo = new Echo({ broadcaster: 'reverb', key: config.key, Pusher: window.Pusher, bearerToken: token, ...connectionOptions(config) });
const { pusher } = echo.connector;
const live = new Live(pusher, config);

const company = echo.private(`company.${user.company}`);
keepFresh(company.subscription, refresh);
company.listen('.sync.progress', take);
pusher.bind_global((event, data) => noteEvent(event, data));

// Signs in on this connection. Events for a single user need no channel.
echo.connector.signin();
pusher.user.bind('sync.finished', showFinished);

// === console functions ===

/** Returns the state of the connection and its subscriptions. */
window.getWebSocketState = () => ({
  state: pusher.connection.state,
  transport: transportOf(pusher),
  socketId: pusher.connection.socket_id ?? null,
  address: live.address,
  channels: pusher.allChannels().map(({ name, subscribed }) => ({ name, subscribed })),
});

/** Subscribes to a channel by its full name. Resolves after the subscription, or rejects with the reason. */
window.subscribeToChannel = (name) =>
  new Promise((settle, refuse) => {
    const channel = pusher.subscribe(name);
    const say = (words) => (console.info(words), words);
    if (channel.subscribed) {
      settle(say(`Already subscribed to ${name}.`));
      return;
    }
    const succeeded = () => done(settle, say(`Subscribed to ${name}. Its events appear on the page.`));
    const failed = ({ status, error }) => {
      pusher.unsubscribe(name);
      const reason = status === 403 ? `${user.name} may not subscribe to it` : (error ?? 'the connection was refused');
      done(refuse, new Error(`Not subscribed to ${name}: ${reason}${status ? ` (${status})` : ''}.`));
    };
    const done = (end, result) => {
      channel.unbind('pusher:subscription_succeeded', succeeded);
      channel.unbind('pusher:subscription_error', failed);
      end(result);
    };
    channel.bind('pusher:subscription_succeeded', succeeded);
    channel.bind('pusher:subscription_error', failed);
    if (pusher.connection.state !== 'connected') say(`Not connected yet (${pusher.connection.state}). The page subscribes to ${name} later.`);
  });

let serial = 0;

/** Lists a received event. Progress events are frequent, so they share one line with a count. */
function noteEvent(event, data) {
  if (event.startsWith('pusher_internal:') || event === 'pusher:pong') return;
  serial += 1;
  const list = $('#events');
  const at = clockWithSeconds(new Date());
  const latest = list.firstElementChild;
  if (event === 'sync.progress' && latest?.dataset.event === event && data?.item?.state === 'running') {
    latest.dataset.count = Number(latest.dataset.count) + 1;
    latest.querySelector('.times').textContent = `× ${latest.dataset.count}`;
    latest.querySelector('time').textContent = at;
    return;
  }
  list.prepend(
    el(
      'li',
      { data: { event, count: 1 } },
      el('time', { class: 'soft' }, at),
      el('code', {}, event),
      el('span', { class: 'times soft number' }),
    ),
  );
  while (list.children.length > EVENTS_MAX) list.lastElementChild.remove();
}

// === progress ===

function draw() {
  const items = jobs.items.sort((a, b) => b.id - a.id);
  const running = items.find(({ state }) => state === 'running');
  drawNow(running);
  arrange($('#past'), items.filter((job) => job !== running).slice(0, 10), ended, ({ version }) => version);
  $('#begin').hidden = Boolean(running);
}

function drawNow(job) {
  const place = $('#now');
  if (!job) {
    const latest = jobs.items.sort((a, b) => b.id - a.id)[0];
    if (place.dataset.job) $('#spoken').textContent = latest ? `The sync is ${latest.state}.` : '';
    delete place.dataset.job;
    if (!$('.idle', place)) place.replaceChildren(el('p', { class: 'soft idle' }, 'No sync is running.'));
    return;
  }
  if (place.dataset.job !== String(job.id)) {
    place.dataset.job = job.id;
    place.replaceChildren(
      el('div', { class: 'row' }, el('p', { class: 'percent number', id: 'percent' }), el('p', { class: 'soft push', id: 'left' })),
      el('progress', { id: 'bar', 'aria-label': 'Progress of the sync', max: 100 }),
      el('div', { class: 'row' }, el('p', { id: 'phase' }), el('p', { class: 'soft number push', id: 'count' })),
      el(
        'div',
        { class: 'row foot' },
        el('p', { class: 'soft fine' }, `Started by ${job.by.name} at ${clock(job.started)}`),
        el(
          'button',
          { type: 'button', class: 'small danger push', onclick: ({ currentTarget }) => cancel(currentTarget, job.id) },
          'Cancel the sync',
        ),
      ),
    );
  }
  const share = Math.floor((100 * job.done) / job.records);
  const seconds = job.done > 0 ? Math.ceil((job.records - job.done) / 200) : null;
  $('#percent').textContent = `${share} %`;
  $('#left').textContent = seconds === null ? '' : `about ${seconds} s left`;
  $('#bar').value = share;
  $('#count').textContent = `${job.done.toLocaleString()} of ${job.records.toLocaleString()} records`;
  if ($('#phase').textContent !== job.phase) {
    $('#phase').textContent = job.phase;
    $('#spoken').textContent = `${job.phase}, ${share} percent done.`;
  }
}

function ended(job) {
  const [words, tone] = job.state === 'finished' ? ['Finished', 'green'] : ['Cancelled', 'red'];
  const by = job.state === 'finished' ? `started by ${job.by.name}` : `cancelled by ${job.ended_by}`;
  return el(
    'li',
    {},
    el('span', { class: 'badge', data: { tone } }, words),
    el('span', { class: 'what' }, `${job.done.toLocaleString()} of ${job.records.toLocaleString()} records, ${by}`),
    el('time', { class: 'soft fine' }, clock(job.ended)),
  );
}

async function cancel(button, id) {
  const result = await act(button, () => api(`/api/syncs/${id}/cancel`, {}));
  if (result) await take(result);
  // After a refusal the sync has already ended. This fetches its state.
  else await refresh();
  $('#records').focus();
}

form($('#begin'), async ({ records }) => {
  const result = await api('/api/syncs', { records: Number(records) }).catch((error) => {
    // A sync is running that this page has not received yet.
    if (error.status === 409) refresh();
    throw error;
  });
  await take(result);
  $('#now button')?.focus();
});
