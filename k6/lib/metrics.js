// All metrics beyond k6's own. Times are in milliseconds.

import { Counter, Rate, Trend } from 'k6/metrics';

const time = (name) => new Trend(`carillon_${name}`, true);
const count = (name) => new Counter(`carillon_${name}`);

/** Time from the timestamp in an event to its arrival at the socket. Timestamps are whole milliseconds: up to 1 ms too much. */
export const deliveryLatency = time('delivery_latency');
/** Time from opening a socket to `connection_established`. */
export const connectTime = time('connect_time');
/** Time from `pusher:subscribe` to its confirmation. */
export const subscribeTime = time('subscribe_time');
/** Time from the request to the complete response of the HTTP API. */
export const publishTime = time('publish_time');
/** Delay of a request behind its planned time. Shows whether k6 itself was the bottleneck. */
export const publishLateness = time('publish_lateness');
/** Time from the loss of a connection until all of its subscriptions are confirmed again. */
export const reconnectTime = time('reconnect_time');
/** Time from the first change of a wave until the member list of every connection is correct. */
export const presenceTime = time('presence_time');

/** Events that were accepted with 200, or sent by a client. */
export const published = count('published');
/** Events that arrived at a subscription, without repeats. */
export const delivered = count('delivered');
/** Events that were accepted while a subscription existed, and never delivered to it. */
export const lost = count('lost');
/** Events that were delivered to a subscription twice. */
export const doubled = count('doubled');
/** Events that were delivered after one that was published later. */
export const reordered = count('reordered');
/** Events for connections that are not subscribed or were excluded, or with the id of another user. */
export const misdirected = count('misdirected');

/** Requests whose status was not 200. */
export const refused = count('refused');
/** Unexpected `pusher:error` messages. */
export const errors = count('errors');
/** Attempts to connect that ended without `connection_established`. */
export const connectFailures = count('connect_failures');
/** Sockets that were opened again because `connection_established` did not arrive, see `lib/pusher.js`. */
export const ungreeted = new Rate('carillon_ungreeted');
/** Connections that the server closed unexpectedly, with any code except 4200 to 4299. */
export const closed = count('closed');
/** Connections that the server closed with a request to reconnect at once: 4200 to 4299. */
export const drained = count('drained');
/** Connections that did not have all of their subscriptions at the end of the run. */
export const absent = count('absent');

/** Member lists that did not become correct, and changes that do not match the list. */
export const wrongViews = count('wrong_views');
/** Forged signatures that were accepted. */
export const forgeriesAccepted = count('forgeries_accepted');
/** Forged signatures that were refused. */
export const forgeriesRefused = count('forgeries_refused');
/** Slow readers that the server closed. */
export const slowClosed = count('slow_closed');
/** Virtual users that ran to the end. */
export const completed = count('completed');

/** Counters that must be zero. */
export const FAULTS = [lost, doubled, reordered, misdirected, refused, errors, connectFailures, closed, drained, absent, wrongViews];
