// The HTTP API: signed requests that do not block the sockets of the same virtual user.

import http from 'k6/http';
import * as metrics from './metrics.js';
import { signRequest } from './sign.js';
import { APP, PUBLISHERS } from './target.js';

let turn = 0;

/** Sends a signed request. `forge`: changes the request after it was signed, to test refusals. */
async function send(method, path, params, body, forge = (request) => request) {
  const full = `/apps/${APP.id}${path}`;
  const now = Math.floor(Date.now() / 1000);
  const { query, content } = forge({ query: signRequest(APP, method, full, params, body, now), content: body });
  turn += 1;
  const url = `${PUBLISHERS[turn % PUBLISHERS.length]}${full}?${query}`;
  // A name per endpoint. Otherwise k6 creates a series for every signature.
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

/** Returns the number of subscriptions of a channel. */
export async function subscriptionCount(channel) {
  const response = await send('GET', `/channels/${channel}`, { info: 'subscription_count' }, '');
  return response.status === 200 ? response.json().subscription_count || 0 : undefined;
}

/** Returns the ids of a presence channel's users, sorted. */
export async function users(channel) {
  const response = await send('GET', `/channels/${channel}/users`, {}, '');
  if (response.status !== 200) return undefined;
  return response.json().users.map(({ id }) => id).sort();
}

/** Publishes with an invalid request. Returns the status. */
export async function triggerForged(channel, data, forge) {
  const body = JSON.stringify({ name: 'forged', channels: [channel], data });
  return (await send('POST', '/events', {}, body, forge)).status;
}

async function timed(request) {
  const response = await request;
  metrics.publishTime.add(response.timings.duration);
  if (response.status !== 200) {
    metrics.refused.add(1, { status: `${response.status}` });
    console.error(`refused with ${response.status}: ${response.body || response.error}`);
  }
  return response;
}
