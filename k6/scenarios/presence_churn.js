// Members of one presence channel join and leave in waves, some on two connections. Some unsubscribe, and some close the connection.
// After each wave the member list of every connection, and that of the HTTP API, must be correct. Members that stay must receive all
// events.

import * as api from '../lib/api.js';
import * as metrics from '../lib/metrics.js';
import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate, eventually } from '../lib/time.js';

/** Time limit for member lists to become correct. */
const PATIENCE_MS = 10000;

// Residents and half of the visitors are users. A channel has at most 100.
const sizes = {
  smoke: { vus: 2, residents: 10, visitors: 20, waves: 5, perSecond: 10, seconds: 5 },
  load: { vus: 3, residents: 20, visitors: 30, waves: 60, perSecond: 5, seconds: 60 },
  stress: { vus: 6, residents: 30, visitors: 60, waves: 60, perSecond: 5, seconds: 60 },
  soak: { vus: 2, residents: 20, visitors: 30, waves: 1800, perSecond: 2, seconds: 3600 },
};
const { size, options } = plan('presence_churn', sizes, {
  thresholds: () => ({ carillon_presence_time: atMost(500, 1500) }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const lobby = room.stream(room.channel('presence-lobby'));
  const seat = (id) => ({ channel: lobby.channel, member: { id, info: { name: `This is ${id}` } } });
  const residents = await room.connect(size.residents, (index) => [seat(`resident-${index}`)]);
  const visitors = Array.from({ length: size.visitors }, (_, number) => ({
    // Two visitors are one user on two connections.
    seat: seat(`visitor-${Math.floor(number / 2)}`),
    connection: room.add(() => []),
    isMember: false,
  }));

  const talk = atRate(size, () => room.publish(lobby));
  const pace = { perSecond: size.waves / size.seconds, seconds: size.seconds, publishes: false };
  const churn = atRate(pace, async (wave) => {
    const began = Date.now();
    await Promise.all(visitors.filter(() => Math.random() < 0.5).map((visitor) => (visitor.isMember ? leave(visitor, wave) : join(visitor))));
    const present = [...residents, ...visitors.filter(({ isMember }) => isMember).map(({ connection }) => connection)];
    const wrong = await wrongViews(lobby.channel, present);
    if (wrong > 0) metrics.wrongViews.add(wrong, { why: 'not correct in time' });
    else metrics.presenceTime.add(Date.now() - began);
  });
  await Promise.all([talk, churn]);
  await room.finish();
}

async function join(visitor) {
  visitor.isMember = true;
  if (!visitor.connection.isConnected) await visitor.connection.open();
  await visitor.connection.subscribe(visitor.seat.channel, visitor.seat.member);
}

async function leave(visitor, wave) {
  visitor.isMember = false;
  visitor.connection.unsubscribe(visitor.seat.channel);
  if (wave % 2 === 1) await visitor.connection.close();
}

/** Waits until all member lists are correct. Returns the number of wrong ones. */
async function wrongViews(channel, present) {
  const expected = [...new Set(present.map((connection) => connection.subscriptions.get(channel).member.id))].sort().join();
  const isWrong = (ids) => ids === undefined || [...ids].sort().join() !== expected;
  const wrong = () => present.filter((connection) => isWrong(connection.subscriptions.get(channel).members.keys())).length;
  await eventually(PATIENCE_MS, 10, () => wrong() === 0);
  const isListed = await eventually(PATIENCE_MS, 50, async () => !isWrong(await api.users(channel)));
  return wrong() + (isListed ? 0 : 1);
}
