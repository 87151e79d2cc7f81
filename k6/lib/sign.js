// Signatures of subscriptions, sign-ins and HTTP API requests. HMAC-SHA256, in lower-case hex.

import crypto from 'k6/crypto';

const hmac = (app, text) => crypto.hmac('sha256', app.secret, text, 'hex');

/** Returns `auth` of a subscription. `channelData`: the exact text that is sent with it, if any. */
export function signChannel(app, socketId, channel, channelData) {
  const text = channelData === undefined ? `${socketId}:${channel}` : `${socketId}:${channel}:${channelData}`;
  return `${app.key}:${hmac(app, text)}`;
}

/** Returns `auth` of a sign-in. `userData`: the exact text that is sent with it. */
export function signUser(app, socketId, userData) {
  return `${app.key}:${hmac(app, `${socketId}::user::${userData}`)}`;
}

/**
 * Returns the query of a signed request, encoded for the URL.
 *
 * `path`: starts with `/apps`, without a prefix of a balancer. `params`: the request's own parameters, not encoded.
 * `body`: the exact text, empty if there is none. `now`: in seconds.
 */
export function signRequest(app, method, path, params, body, now) {
  const all = { auth_key: app.key, auth_timestamp: `${now}`, auth_version: '1.0' };
  if (body !== '') all.body_md5 = crypto.md5(body, 'hex');
  for (const [name, value] of Object.entries(params)) all[name.toLowerCase()] = value;
  const names = Object.keys(all).sort();
  const signed = names.map((name) => `${name}=${all[name]}`).join('&');
  const query = names.map((name) => `${name}=${encodeURIComponent(all[name])}`).join('&');
  return `${query}&auth_signature=${hmac(app, `${method}\n${path}\n${signed}`)}`;
}
