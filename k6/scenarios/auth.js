// Private, encrypted, presence and user channels with true signatures, which must be let in, and with every kind of forged
// one, which must be turned away and hear nothing. The same for sign-ins and for requests of the HTTP API.

import { triggerForged } from '../lib/api.js';
import * as metrics from '../lib/metrics.js';
import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { signChannel, signUser } from '../lib/sign.js';
import { APP } from '../lib/target.js';
import { atRate, within } from '../lib/time.js';

/** Connections of one virtual user that come per second. */
const COMING = 50;

const sizes = {
  smoke: { vus: 2, connections: 10, perSecond: 10, seconds: 3 },
  load: { vus: 4, connections: 50, perSecond: 10, seconds: 60 },
  stress: { vus: 8, connections: 200, perSecond: 10, seconds: 60 },
  soak: { vus: 4, connections: 50, perSecond: 5, seconds: 3600 },
};

const THIEF = { ...APP, secret: `${APP.secret}-guessed` };
const MEMBER = JSON.stringify({ user_id: 'mallory' });
const OTHER = JSON.stringify({ user_id: 'alice' });

/** What is sent for a subscription to the honest ones' channels. */
const FORGED = [
  // No signature at all, one by another secret, for another socket, for another channel, by another key.
  { name: 'private-orders', forge: () => ({ auth: '' }) },
  { name: 'private-orders', forge: (id, channel) => ({ auth: signChannel(THIEF, id, channel) }) },
  { name: 'private-orders', forge: (id, channel) => ({ auth: signChannel(APP, '1.1', channel) }) },
  { name: 'private-orders', forge: (id, channel) => ({ auth: signChannel(APP, id, `${channel}-not`) }) },
  { name: 'private-orders', forge: (id, channel) => ({ auth: signChannel({ ...APP, key: 'other' }, id, channel) }) },
  { name: 'private-encrypted-letters', forge: (id, channel) => ({ auth: signChannel(THIEF, id, channel) }) },
  // Nobody in particular, and somebody else than was signed.
  { name: 'presence-lobby', forge: (id, channel) => ({ auth: signChannel(APP, id, channel) }) },
  { name: 'presence-lobby', forge: (id, channel) => ({ auth: signChannel(APP, id, channel, MEMBER), channel_data: OTHER }) },
];
/** What becomes of a request after it was signed: another signature, another body, an old one, another key. */
const FORGED_REQUESTS = [
  (request) => ({ ...request, query: request.query.replace(/.$/, (digit) => (digit === '0' ? '1' : '0')) }),
  (request) => ({ ...request, content: request.content.replace('forged', 'changed') }),
  (request) => ({ ...request, query: request.query.replace(/auth_timestamp=\d+/, 'auth_timestamp=1353088179') }),
  (request) => ({ ...request, query: request.query.replace(`auth_key=${APP.key}`, 'auth_key=other') }),
];

/** Those, a sign-in, and a subscription to the channel of a user who is somebody else. */
const KINDS = FORGED.length + 2;
const { size, options } = plan('auth', sizes, {
  lasts: ({ connections, seconds }) => (2 * connections) / COMING + seconds,
  thresholds: ({ vus, connections }) => ({
    carillon_forgeries_accepted: ['count==0'],
    carillon_forgeries_refused: [`count==${vus * (connections * KINDS + FORGED_REQUESTS.length)}`],
    carillon_subscribe_time: atMost(100, 500),
  }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const orders = room.stream(room.channel('private-orders'));
  const letters = room.stream(room.channel('private-encrypted-letters'));
  const lobby = room.stream(room.channel('presence-lobby'));
  const user = (index) => `user-${index}-${room.name}`;
  const own = Array.from({ length: size.connections }, (_, index) => room.stream(`#server-to-user-${user(index)}`));
  const seats = (index) => [orders, letters, { channel: lobby.channel, member: { id: user(index % 100), info: { seat: index } } }];
  const honest = await room.connect(size.connections, seats, { overSeconds: size.connections / COMING });
  await Promise.all(honest.map((connection) => connection.signIn(user(connection.index))));

  const thieves = await room.connect(size.connections, () => [], { overSeconds: size.connections / COMING });
  await Promise.all(thieves.map((thief) => tryAll(room, thief)));
  for (const forge of FORGED_REQUESTS) verdict((await triggerForged(orders.channel, 'forged', forge)) === 401);

  const all = [orders, letters, lobby, ...own];
  await atRate(size, (i) => room.publish(all[i % all.length]));
  await room.judge();
}

/** One connection, all forgeries one after the other. It stays, and hears no event: whatever comes is misdirected. */
async function tryAll(room, thief) {
  thief.provokes = true;
  const victim = `user-0-${room.name}`;
  // First, since the refusal of a sign-in is a `pusher:error` like those that follow refused subscriptions.
  await refused(thief.signIn(victim, signUser(THIEF, thief.socketId, JSON.stringify({ id: victim }))));
  await refused(thief.subscribe(`#server-to-user-${victim}`));
  for (const { name, forge } of FORGED) {
    const channel = room.channel(name);
    await refused(thief.subscribe(channel, undefined, forge(thief.socketId, channel)));
  }
}

async function refused(attempt) {
  try {
    await within(10000, 'an answer', attempt);
    verdict(false);
  } catch (error) {
    // Silence is no refusal.
    verdict(!error.message.includes('not within'));
  }
}

function verdict(wasRefused) {
  (wasRefused ? metrics.forgeriesRefused : metrics.forgeriesAccepted).add(1);
}
