// The chat: one room at a time, with its members and typing indicators, and an inbox of mentions from all rooms.

import Echo from '/vendor/echo.js';
import { Live, connectionOptions, keepFresh } from '/common/live.js';
import { $, api, arrange, askWho, clock, el, form, initials, toast } from '/common/page.js';
import { Store } from '/common/store.js';

const ROOMS = ['general', 'kitchen', 'projects'];

/** How often a typing member sends a whisper, and how long the indicator is shown. */
const TYPING_EVERY_MS = 2_000;
const TYPING_LASTS_MS = 4_000;

const { config, user, token } = await askWho();
$('#who').textContent = user.name;
$('#bell').hidden = false;

const echo = new Echo({ broadcaster: 'reverb', key: config.key, Pusher: window.Pusher, bearerToken: token, ...connectionOptions(config) });
new Live(echo.connector.pusher, config);

const fetched = (path) => api(path).catch((error) => void toast(error.message, 'problem'));

// === the room ===

let room = null;
let channel = null;
let messages = new Store();
let people = new Map();
const typing = new Map();

function enter(name) {
  if (room) echo.leave(`room.${room}`);
  room = name;
  messages = new Store();
  people = new Map();
  typing.clear();
  $('#room-title').textContent = name;
  $('#comings').textContent = '';
  drawRooms();
  drawMessages();
  drawPeople();
  refreshRoom();

  channel = echo.join(`room.${name}`);
  keepFresh(channel.subscription, refreshRoom);
  channel
    .here((members) => {
      people = new Map(members.map((member) => [member.id, member]));
      drawPeople();
    })
    .joining((member) => {
      people.set(member.id, member);
      drawPeople(`${member.name} has joined.`);
    })
    .leaving((member) => {
      people.delete(member.id);
      stopTyping(member.id);
      drawPeople(`${member.name} has left.`);
    })
    .listen('.message.posted', (event) => {
      if (!messages.event(event)) return refreshRoom();
      stopTyping(event.item.author.id);
      return drawMessages();
    })
    // The sender comes from the `user_id` that the server adds, not from the data, which the sender could forge.
    .listenForWhisper('typing', (data, { user_id: id } = {}) => people.has(id) && startTyping(id));
}

async function refreshRoom() {
  const name = room;
  const state = await fetched(`/api/rooms/${name}`);
  if (!state || room !== name) return;
  messages.snapshot(state);
  drawMessages();
}

function startTyping(id) {
  clearTimeout(typing.get(id));
  typing.set(
    id,
    setTimeout(() => stopTyping(id), TYPING_LASTS_MS),
  );
  drawTyping();
}

function stopTyping(id) {
  clearTimeout(typing.get(id));
  typing.delete(id);
  drawTyping();
}

function drawRooms() {
  const items = ROOMS.map((name) => ({ id: name, unread: notifications.items.filter((one) => one.room === name && !one.read).length }));
  const draw = ({ id, unread }) =>
    el(
      'li',
      {},
      el(
        'button',
        { type: 'button', class: 'quiet room', 'aria-current': id === room && 'true', onclick: () => id !== room && enter(id) },
        el('span', {}, id),
        unread > 0 && el('span', { class: 'unread number' }, unread, el('span', { class: 'visually-hidden' }, ' unread mentions')),
      ),
    );
  arrange($('#rooms'), items, draw, ({ id, unread }) => `${id === room} ${unread}`);
}

function drawMessages() {
  const list = $('#messages');
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 80;
  const items = messages.items.sort((a, b) => a.id - b.id);
  const last = list.lastElementChild?.dataset.key;
  arrange(list, items, message, () => '');
  if (atEnd || (items.at(-1)?.author.id === user.id && list.lastElementChild?.dataset.key !== last)) list.scrollTop = list.scrollHeight;
}

function message({ author, at, text, mentions }) {
  const own = author.id === user.id;
  return el(
    'li',
    { class: own ? 'message own' : 'message' },
    el('span', { class: 'face', 'aria-hidden': 'true' }, initials(author.name)),
    el(
      'div',
      { class: 'bubble' },
      el('p', { class: 'fine' }, el('strong', {}, own ? 'You' : author.name), ' ', el('time', { class: 'soft', dateTime: at }, clock(at))),
      el('p', {}, ...marked(text, mentions)),
    ),
  );
}

/** Returns the text with its mentions highlighted, as text nodes and `mark` elements and never as markup. */
function marked(text, mentions) {
  const names = mentions.map(({ name }) => `@${name}`).sort((a, b) => b.length - a.length);
  if (names.length === 0) return [text];
  const pattern = new RegExp(`(${names.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})`, 'iu');
  return text.split(pattern).map((part, at) => (at % 2 === 1 ? el('mark', {}, part) : part));
}

function drawPeople(words) {
  const items = [...people.values()].sort((a, b) => a.name.localeCompare(b.name));
  const draw = ({ id, name }) =>
    el(
      'li',
      {},
      id === user.id
        ? el('span', { class: 'person' }, el('span', { class: 'face', 'aria-hidden': 'true' }, initials(name)), `${name} (you)`)
        : el(
            'button',
            { type: 'button', class: 'quiet person', title: `Mention ${name}`, onclick: () => mention(name) },
            el('span', { class: 'face', 'aria-hidden': 'true' }, initials(name)),
            name,
          ),
    );
  arrange($('#people'), items, draw, ({ name }) => name);
  $('#count').textContent = items.length || '';
  if (words) $('#comings').textContent = words;
}

function drawTyping() {
  const names = [...typing.keys()].map((id) => people.get(id)?.name).filter(Boolean);
  $('#typing').textContent = names.length === 0 ? '' : `${names.join(' and ')} ${names.length === 1 ? 'is' : 'are'} typing …`;
}

// === the inbox ===

const notifications = new Store((item, before) => {
  if (started && !before && !item.read) toast(`${item.from} mentioned you in ${item.room}: ${item.text}`);
});
let started = false;

async function refreshInbox() {
  const state = await fetched('/api/notifications');
  if (!state) return;
  notifications.snapshot(state);
  started = true;
  drawInbox();
}

function take({ run, items }) {
  for (const item of items) if (!notifications.event({ run, item })) return refreshInbox();
  return drawInbox();
}

function drawInbox() {
  const items = notifications.items.sort((a, b) => b.id - a.id);
  const unread = items.filter(({ read }) => !read).length;
  $('#unread').hidden = unread === 0;
  $('#unread').replaceChildren(String(unread), el('span', { class: 'visually-hidden' }, ' unread'));
  $('#read').hidden = unread === 0;
  document.title = unread > 0 ? `(${unread}) Chat` : 'Chat';
  const draw = (item) =>
    el(
      'li',
      { class: item.read ? 'notification' : 'notification new' },
      el('p', { class: 'fine soft' }, `${item.from} in ${item.room}, ${clock(item.at)}`),
      el('button', { type: 'button', class: 'quiet go', onclick: () => visit(item) }, item.text),
    );
  arrange($('#notifications'), items, draw, ({ version }) => version);
  drawRooms();
}

function visit(item) {
  open(false);
  if (item.room !== room) enter(item.room);
  $('#text').focus();
}

function open(shown) {
  // Removes toasts about mentions: the inbox lists them too, and they would cover it.
  if (shown) for (const news of document.querySelectorAll('#toasts [data-kind=news]')) news.remove();
  $('#inbox').hidden = !shown;
  $('#bell').setAttribute('aria-expanded', String(shown));
}

$('#bell').addEventListener('click', () => open($('#inbox').hidden));
$('#read').addEventListener('click', async () => {
  const result = await api('/api/notifications/read', {}).catch((error) => void toast(error.message, 'problem'));
  if (result) take(result);
  $('#bell').focus();
});
document.addEventListener('keydown', ({ key }) => {
  if (key !== 'Escape' || $('#inbox').hidden) return;
  open(false);
  $('#bell').focus();
});

const inbox = echo.private(`App.Models.User.${user.id}`);
keepFresh(inbox.subscription, refreshInbox);
inbox.notification(({ run, item }) => take({ run, items: [item] }));
inbox.listen('.notifications.read', take);

// === writing ===

let typingSentAt = 0;

$('#text').addEventListener('input', () => {
  if (Date.now() - typingSentAt < TYPING_EVERY_MS || $('#text').value === '') return;
  typingSentAt = Date.now();
  channel.whisper('typing', {});
});

function mention(name) {
  const field = $('#text');
  field.value = `${field.value.trimEnd()} @${name} `.trimStart();
  field.focus();
}

form($('#say'), async ({ text }) => {
  if (text.trim() === '') return;
  const name = room;
  const { run, item } = await api(`/api/rooms/${name}`, { text });
  $('#text').value = '';
  typingSentAt = 0;
  if (room !== name) return;
  if (messages.event({ run, item })) drawMessages();
  else await refreshRoom();
});

refreshInbox();
enter(ROOMS[0]);
$('#text').focus();
