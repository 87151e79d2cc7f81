// Everything that is measured beside k6's own metrics, in one place. Times are in milliseconds.

import { Counter, Rate, Trend } from 'k6/metrics';

const time = (name) => new Trend(`carillon_${name}`, true);
const count = (name) => new Counter(`carillon_${name}`);

/** From the stamp in an event to its arrival at the socket. Stamps are whole milliseconds: up to 1 ms too much. */
export const deliveryLatency = time('delivery_latency');
/** From dialling to `connection_established`. */
export const connectTime = time('connect_time');
/** From `pusher:subscribe` to its answer. */
export const subscribeTime = time('subscribe_time');
/** From the request to the whole answer of the HTTP API. */
export const publishTime = time('publish_time');
/** How much later than planned a request was sent: whether k6 itself was the limit. */
export const publishLateness = time('publish_lateness');
/** From the loss of a connection until everything that it was subscribed to is confirmed again. */
export const reconnectTime = time('reconnect_time');
/** From the first change of a wave until every member's own view is right. */
export const presenceTime = time('presence_time');

/** Events that were accepted with 200, or sent by a client. */
export const published = count('published');
/** Events that arrived at a subscription, repeats not included. */
export const delivered = count('delivered');
/** Accepted while a subscription stood, and never delivered to it. */
export const lost = count('lost');
/** Delivered to a subscription again. */
export const doubled = count('doubled');
/** Delivered after one that was published later. */
export const reordered = count('reordered');
/** Delivered to a connection that is not subscribed, that was to be left out, or in another's name. */
export const misdirected = count('misdirected');

/** Requests that were not answered with 200. */
export const refused = count('refused');
/** `pusher:error` messages that nobody provoked. */
export const errors = count('errors');
/** Attempts to connect that did not come to `connection_established`. */
export const connectFailures = count('connect_failures');
/** Sockets that opened and were dialled again, since their `connection_established` did not come: see `lib/pusher.js`. */
export const ungreeted = new Rate('carillon_ungreeted');
/** Connections that ended although neither side meant them to: any close by the server but 4200 to 4299. */
export const closed = count('closed');
/** Connections that the server told to reconnect at once: 4200 to 4299. */
export const drained = count('drained');
/** Connections that were not back, with all of their subscriptions, when everything was judged. */
export const absent = count('absent');

/** Lists of members that did not become right, and changes that do not fit the list. */
export const wrongViews = count('wrong_views');
/** Forged signatures that were let in. */
export const forgeriesAccepted = count('forgeries_accepted');
/** Forged signatures that were turned away. */
export const forgeriesRefused = count('forgeries_refused');
/** Slow readers that the server closed. */
export const slowClosed = count('slow_closed');
/** Virtual users that came to their verdict. */
export const judged = count('judged');

/** What must not happen, ever. */
export const FAULTS = [lost, doubled, reordered, misdirected, refused, errors, connectFailures, closed, drained, absent, wrongViews];
