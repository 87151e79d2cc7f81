// What the pages of all examples do alike: make elements, ask the example's server, sign in, and say things.

/** Makes an element. Text is always text: nothing here is parsed as HTML, so nothing that a person typed can become markup. */
export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'data') Object.assign(element.dataset, value);
    else if (name === 'class') element.className = value;
    else if (name in element && name !== 'role' && name !== 'list') element[name] = value;
    else element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (selector, within = document) => within.querySelector(selector);

/**
 * Shows a list of items as children of `list`, in order, touching only what differs: the focus stays where it is when something
 * else moves. `draw(item)` makes an element; one is made anew when its `mark(item)` has changed.
 */
export function arrange(list, items, draw, mark) {
  const known = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const wanted = items.map((item) => {
    const [key, now] = [String(item.id), String(mark(item))];
    const old = known.get(key);
    known.delete(key);
    if (old?.dataset.mark === now) return old;
    const fresh = draw(item);
    Object.assign(fresh.dataset, { key, mark: now });
    if (old) replace(old, fresh);
    return fresh;
  });
  for (const gone of known.values()) gone.remove();
  wanted.forEach((element, at) => {
    if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
  });
}

/** Puts `fresh` in the place of `old`, with the focus on the button of the same name, or else on the item itself. */
function replace(old, fresh) {
  const focused = old.contains(document.activeElement) ? document.activeElement : null;
  old.replaceWith(fresh);
  if (!focused) return;
  const same = [...fresh.querySelectorAll('button, input, a')].find((element) => element.textContent === focused.textContent);
  const target = same ?? fresh.querySelector('button, input, a') ?? fresh;
  if (target === fresh) fresh.tabIndex = -1;
  target.focus();
}

export const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
export const clockWithSeconds = (iso) =>
  new Date(iso).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23' });

/** Two letters for a person. */
export const initials = (name) =>
  name
    .replace(/^Dr\.? /, '')
    .split(' ')
    .map((part) => part[0])
    .slice(0, 2)
    .join('')
    .toUpperCase();

// === the example's server ===

let token = null;
let example = 'example';

/** An answer of the example's server other than success; `fields` says what is wrong with which field of a form. */
export class Refused extends Error {
  constructor(status, { message, fields = {} }) {
    super(message);
    Object.assign(this, { status, fields });
  }
}

/** Asks the example's server: POST with a body, GET without. What it says about Carillon being away becomes a toast. */
export async function api(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: body ? 'POST' : 'GET',
      headers: { ...(body && { 'Content-Type': 'application/json' }), ...(token && { Authorization: `Bearer ${token}` }) },
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, { message: `The server of this example does not answer. Is \`make example-${example}\` still running?` });
  }
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, answer);
  if (answer.notice) toast(`Saved, but not told to other pages: ${answer.notice}. They catch up when it is back.`, 'warning');
  return answer;
}

/** Runs what a button or a form does, with the button disabled meanwhile; says in words what went wrong. */
export async function act(button, action) {
  if (button.getAttribute('aria-busy')) return undefined;
  button.setAttribute('aria-busy', 'true');
  try {
    return await action();
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    toast(error.message, 'problem');
    return undefined;
  } finally {
    button.removeAttribute('aria-busy');
  }
}

/** Lets a form be sent with `send(values)`; marks the fields that the server refuses, with its words beside them. */
export function form(element, send) {
  element.noValidate = true;
  element.addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = element.querySelector('[type=submit]');
    if (button.getAttribute('aria-busy')) return;
    for (const field of element.querySelectorAll('[aria-invalid]')) field.removeAttribute('aria-invalid');
    for (const words of element.querySelectorAll('.field-problem')) words.remove();
    button.setAttribute('aria-busy', 'true');
    try {
      await send(Object.fromEntries(new FormData(element)));
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      const marked = Object.entries(error.fields).filter(([name]) => element.elements[name]);
      for (const [name, words] of marked) markField(element.elements[name], words);
      if (marked.length > 0) element.elements[marked[0][0]].focus();
      else toast(error.message, 'problem');
    } finally {
      button.removeAttribute('aria-busy');
    }
  });
}

function markField(field, words) {
  const id = `${field.id || field.name}-problem`;
  field.setAttribute('aria-invalid', 'true');
  field.setAttribute('aria-describedby', id);
  field.after(el('p', { id, class: 'field-problem' }, words));
}

/** Becomes somebody in this window: `{ config, user, token }`. */
export async function signIn(who) {
  const config = await api('/config.json');
  example = config.example;
  const session = await api('/session', who);
  token = session.token;
  return { config, ...session };
}

/** Shows `#sign-in` until its form makes a session, then `#app`. The address may name a person instead: `?as=Ana`. */
export async function askWho() {
  const gate = $('#sign-in');
  const given = new URLSearchParams(location.search);
  const known = given.has('as') ? { ...Object.fromEntries(given), name: given.get('as') } : JSON.parse(sessionStorage.getItem('who'));
  const session =
    (known && (await enter(known).catch((error) => void toast(error.message, 'problem')))) ||
    (await new Promise((settle) => {
      gate.hidden = false;
      $('input', gate).focus();
      form($('form', gate), async (values) => settle(await enter(values)));
    }));
  gate.hidden = true;
  $('#app').hidden = false;
  return session;
}

/** Signs in and remembers it for this window only, so that a reload stays the same person. */
async function enter(who) {
  const session = await signIn(who);
  sessionStorage.setItem('who', JSON.stringify(who));
  return session;
}

// === saying things ===

/** Says something for a while at the edge of the page; warnings and problems stay until they are closed. Returns what to remove. */
export function toast(words, kind = 'news') {
  const region = $('#toasts');
  for (const same of region.children) if (same.dataset.words === words) same.remove();
  const item = el('div', { class: 'toast', data: { kind, words } }, el('p', {}, words));
  item.append(
    el('button', { type: 'button', class: 'quiet small', 'aria-label': 'Close this note', onclick: () => item.remove() }, 'Close'),
  );
  region.append(item);
  if (kind === 'news') setTimeout(() => item.remove(), 8_000);
  return item;
}
