// Common functions of all pages: elements, requests to the example's server, sign-in, and toasts.

/** Creates an element. Children are always text or elements. User input is never parsed as HTML. */
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
 * Shows items as children of `list`, in order. Only changed elements are replaced, so that the focus is kept when other items change.
 * `draw(item)` creates an element. It is called again when `mark(item)` changes.
 */
export function arrange(list, items, draw, mark) {
  const known = new Map([...list.children].map((child) => [child.dataset.key, child]));
  const elements = items.map((item) => {
    const [key, now] = [String(item.id), String(mark(item))];
    const old = known.get(key);
    known.delete(key);
    if (old?.dataset.mark === now) return old;
    const fresh = draw(item);
    Object.assign(fresh.dataset, { key, mark: now });
    if (old) replace(old, fresh);
    return fresh;
  });
  for (const removed of known.values()) removed.remove();
  elements.forEach((element, at) => {
    if (list.children[at] !== element) list.insertBefore(element, list.children[at] ?? null);
  });
}

/** Replaces `old` by `fresh`. Moves the focus to the button with the same name, or else to the item itself. */
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

/** Returns up to two initials of a name. */
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

/** An unsuccessful response of the example's server. `fields` has messages by field of a form. */
export class Refused extends Error {
  constructor(status, { message, fields = {} }) {
    super(message);
    Object.assign(this, { status, fields });
  }
}

/** Calls the example's server: POST with a body, GET without. A notice in the response becomes a toast. */
export async function api(path, body) {
  let response;
  try {
    response = await fetch(path, {
      method: body ? 'POST' : 'GET',
      headers: { ...(body && { 'Content-Type': 'application/json' }), ...(token && { Authorization: `Bearer ${token}` }) },
      body: body && JSON.stringify(body),
    });
  } catch {
    throw new Refused(0, { message: `The server of this example does not respond. Is \`make example-${example}\` still running?` });
  }
  const result = await response.json();
  if (!response.ok) throw new Refused(response.status, result);
  if (result.notice) toast(`Saved, but not sent to other pages: ${result.notice}. They update when Carillon is reachable again.`, 'warning');
  return result;
}

/** Runs the action of a button or a form and disables the button meanwhile. Shows a toast if the server refuses. */
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

/** Sends a form with `send(values)`. Marks the fields that the server refuses, with its messages. */
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

/** Signs in a user in this window. Returns `{ config, user, token }`. */
export async function signIn(who) {
  const config = await api('/config.json');
  example = config.example;
  const session = await api('/session', who);
  token = session.token;
  return { config, ...session };
}

/** Shows `#sign-in` until its form creates a session, then `#app`. The address may name the user instead: `?as=Ana`. */
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

/** Signs in and stores the user for this window only, so that a reload keeps the same user. */
async function enter(who) {
  const session = await signIn(who);
  sessionStorage.setItem('who', JSON.stringify(who));
  return session;
}

// === toasts ===

/** Shows a toast. News disappears after a while; warnings and problems stay until they are closed. Returns the element. */
export function toast(words, kind = 'news') {
  const region = $('#toasts');
  for (const same of region.children) if (same.dataset.words === words) same.remove();
  const item = el('div', { class: 'toast', data: { kind, words } }, el('p', {}, words));
  item.append(
    el('button', { type: 'button', class: 'quiet small', 'aria-label': 'Close this message', onclick: () => item.remove() }, 'Close'),
  );
  region.append(item);
  if (kind === 'news') setTimeout(() => item.remove(), 8_000);
  return item;
}
