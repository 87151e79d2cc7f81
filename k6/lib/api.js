// The HTTP API: signed requests that do not block the sockets of the same virtual user.

import http from 'k6/http';
import * as metrics from './metrics.js';
import { signRequest } from './sign.js';
import { APP, PUBLISHERS } from './target.js';

let turn = 0;

/** `forge`: changes the request after it was signed, for those that must be refused. */
async function send(method, path, params, body, forge = (request) => request) {
  const full = `/apps/${APP.id}${path}`;
  const now = Math.floor(Date.now() / 1000);
  const { query, content } = forge({ query: signRequest(APP, method, full, params, body, now), content: body });
  turn += 1;
  const url = `${PUBLISHERS[turn % PUBLISHERS.length]}${full}?${query}`;
  // One name for each endpoint, or k6 keeps metrics of their own for every signature.
  const tags = { name: `${method} /${path.split('/')[1]}` };
  return http.asyncRequest(method, url, content || null, { headers: { 'Content-Type': 'application/json' }, tags });
}

/** Publishes one event to one or more channels. `extra`: `socket_id`, `info`. */
export function trigger(channels, name, data, extra = {}) {
  return timed(send('POST', '/events', {}, JSON.stringify({ name, channels, data, ...extra })));
}

/** Publishes up to ten events, in this order: `{ name, channel, data }`. */
export function triggerBatch(batch) {
  return timed(send('POST', '/batch_events', {}, JSON.stringify({ batch })));
}

/** How many subscriptions a channel has. */
export async function subscriptionCount(channel) {
  const answer = await send('GET', `/channels/${channel}`, { info: 'subscription_count' }, '');
  return answer.status === 200 ? answer.json().subscription_count || 0 : undefined;
}

/** The ids of a presence channel's users, sorted. */
export async function users(channel) {
  const answer = await send('GET', `/channels/${channel}/users`, {}, '');
  if (answer.status !== 200) return undefined;
  return answer.json().users.map(({ id }) => id).sort();
}

/** Publishes with something wrong; comes to the status. */
export async function triggerForged(channel, data, forge) {
  const body = JSON.stringify({ name: 'forged', channels: [channel], data });
  return (await send('POST', '/events', {}, body, forge)).status;
}

async function timed(request) {
  const answer = await request;
  metrics.publishTime.add(answer.timings.duration);
  if (answer.status !== 200) {
    metrics.refused.add(1, { status: `${answer.status}` });
    console.error(`refused with ${answer.status}: ${answer.body || answer.error}`);
  }
  return answer;
}
