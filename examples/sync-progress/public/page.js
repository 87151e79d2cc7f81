// The progress of a company's syncs, and two functions for the console, as people check such a set-up by hand.

import Echo from '/vendor/echo.js';
import { Live, connectionOptions, keepFresh, transportOf } from '/common/live.js';
import { $, act, api, arrange, askWho, clock, clockWithSeconds, el, form, toast } from '/common/page.js';
import { Store } from '/common/store.js';

/** Lines in the list of events. */
const EVENTS_MAX = 30;

const { config, user, token } = await askWho();
$('#who').textContent = `${user.name}, ${user.company_name}`;
$('#own').textContent = user.company;
$('#other').textContent = user.company === 'alder' ? 'birch' : 'alder';

const jobs = new Store((job, before) => {
  // `sync.finished` is said once, and lost to who is away. Then the job itself says so, when it is fetched.
  if (before?.state === 'running' && job.state === 'finished' && job.by.id === user.id) tellFinished(job);
});

/** Said twice, by the job and by `sync.finished`, it is still one note. */
function tellFinished({ records }) {
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

// The socket is signed in as this person: what is meant for one user needs no channel.
echo.connector.signin();
pusher.user.bind('sync.finished', tellFinished);

// === in the console ===

/** How this page is connected, and what it hears. */
window.getWebSocketState = () => ({
  state: pusher.connection.state,
  transport: transportOf(pusher),
  socketId: pusher.connection.socket_id ?? null,
  address: live.address,
  channels: pusher.allChannels().map(({ name, subscribed }) => ({ name, subscribed })),
});

/** Subscribes to a channel by its name on the wire. Resolves once it is subscribed; says in words why it is not. */
window.subscribeToChannel = (name) =>
  new Promise((settle, refuse) => {
    const channel = pusher.subscribe(name);
    const say = (words) => (console.info(words), words);
    if (channel.subscribed) {
      settle(say(`Subscribed to ${name} already.`));
      return;
    }
    const succeeded = () => done(settle, say(`Subscribed to ${name}. Its events appear on the page.`));
    const failed = ({ status, error }) => {
      pusher.unsubscribe(name);
      const reason = status === 403 ? `${user.name} may not hear it` : (error ?? 'the connection was refused');
      done(refuse, new Error(`Not subscribed to ${name}: ${reason}${status ? ` (${status})` : ''}.`));
    };
    const done = (end, result) => {
      channel.unbind('pusher:subscription_succeeded', succeeded);
      channel.unbind('pusher:subscription_error', failed);
      end(result);
    };
    channel.bind('pusher:subscription_succeeded', succeeded);
    channel.bind('pusher:subscription_error', failed);
    if (pusher.connection.state !== 'connected') say(`Not connected yet (${pusher.connection.state}); ${name} follows.`);
  });

let serial = 0;

/** Shows that an event has come. Progress comes often, so it has one line, which counts. */
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
  const answer = await act(button, () => api(`/api/syncs/${id}/cancel`, {}));
  if (answer) await take(answer);
  // A refusal means that it has ended already; this shows how.
  else await refresh();
  $('#records').focus();
}

form($('#begin'), async ({ records }) => {
  const answer = await api('/api/syncs', { records: Number(records) }).catch((error) => {
    // One is running that this page has not heard of.
    if (error.status === 409) refresh();
    throw error;
  });
  await take(answer);
  $('#now button')?.focus();
});
