// Private, encrypted, presence and user channels. Valid signatures must be accepted. All kinds of forged ones must be refused, and
// their connections must receive no events. Also covers sign-ins and requests of the HTTP API.

import { triggerForged } from '../lib/api.js';
import * as metrics from '../lib/metrics.js';
import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { signChannel, signUser } from '../lib/sign.js';
import { APP } from '../lib/target.js';
import { atRate, within } from '../lib/time.js';

/** Connections that one virtual user opens per second. */
const COMING = 50;

const sizes = {
  smoke: { vus: 2, connections: 10, perSecond: 10, seconds: 3 },
  load: { vus: 4, connections: 50, perSecond: 10, seconds: 60 },
  stress: { vus: 8, connections: 200, perSecond: 10, seconds: 60 },
  soak: { vus: 4, connections: 50, perSecond: 5, seconds: 3600 },
};

const ATTACKER = { ...APP, secret: `${APP.secret}-guessed` };
const MEMBER = JSON.stringify({ user_id: 'mallory' });
const OTHER = JSON.stringify({ user_id: 'alice' });

/** Forged credentials for the channels of valid connections. */
const FORGED = [
  // No signature, one with another secret, for another socket, for another channel, with another key.
  { name: 'private-orders', forge: () => ({ auth: '' }) },
  { name: 'private-orders', forge: (id, channel) => ({ auth: signChannel(ATTACKER, id, channel) }) },
  { name: 'private-orders', forge: (id, channel) => ({ auth: signChannel(APP, '1.1', channel) }) },
  { name: 'private-orders', forge: (id, channel) => ({ auth: signChannel(APP, id, `${channel}-not`) }) },
  { name: 'private-orders', forge: (id, channel) => ({ auth: signChannel({ ...APP, key: 'other' }, id, channel) }) },
  { name: 'private-encrypted-letters', forge: (id, channel) => ({ auth: signChannel(ATTACKER, id, channel) }) },
  // No member, and a member other than the signed one.
  { name: 'presence-lobby', forge: (id, channel) => ({ auth: signChannel(APP, id, channel) }) },
  { name: 'presence-lobby', forge: (id, channel) => ({ auth: signChannel(APP, id, channel, MEMBER), channel_data: OTHER }) },
];
/** Changes to a request after it was signed: another signature, another body, an old timestamp, another key. */
const FORGED_REQUESTS = [
  (request) => ({ ...request, query: request.query.replace(/.$/, (digit) => (digit === '0' ? '1' : '0')) }),
  (request) => ({ ...request, content: request.content.replace('forged', 'changed') }),
  (request) => ({ ...request, query: request.query.replace(/auth_timestamp=\d+/, 'auth_timestamp=1353088179') }),
  (request) => ({ ...request, query: request.query.replace(`auth_key=${APP.key}`, 'auth_key=other') }),
];

/** Forged subscriptions, a forged sign-in, and a subscription to the channel of another user. */
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
  const valid = await room.connect(size.connections, seats, { overSeconds: size.connections / COMING });
  await Promise.all(valid.map((connection) => connection.signIn(user(connection.index))));

  const attackers = await room.connect(size.connections, () => [], { overSeconds: size.connections / COMING });
  await Promise.all(attackers.map((attacker) => tryAll(room, attacker)));
  for (const forge of FORGED_REQUESTS) verdict((await triggerForged(orders.channel, 'forged', forge)) === 401);

  const all = [orders, letters, lobby, ...own];
  await atRate(size, (i) => room.publish(all[i % all.length]));
  await room.finish();
}

/** Tries all forgeries on one connection, one after the other. The connection stays open, and any event that it receives is misdirected. */
async function tryAll(room, attacker) {
  attacker.provokes = true;
  const victim = `user-0-${room.name}`;
  // The sign-in is first, because its refusal is a `pusher:error` like the refusals of subscriptions that follow.
  await refused(attacker.signIn(victim, signUser(ATTACKER, attacker.socketId, JSON.stringify({ id: victim }))));
  await refused(attacker.subscribe(`#server-to-user-${victim}`));
  for (const { name, forge } of FORGED) {
    const channel = room.channel(name);
    await refused(attacker.subscribe(channel, undefined, forge(attacker.socketId, channel)));
  }
}

async function refused(attempt) {
  try {
    await within(10000, 'a reply', attempt);
    verdict(false);
  } catch (error) {
    // A missing reply is not a refusal.
    verdict(!error.message.includes('not within'));
  }
}

function verdict(wasRefused) {
  (wasRefused ? metrics.forgeriesRefused : metrics.forgeriesAccepted).add(1);
}
