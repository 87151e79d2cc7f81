// Members of one presence channel come and go in waves, some on two connections, some by leaving the channel and some by
// leaving altogether. After each wave every member's own view, and the list of the HTTP API, must be who is there; and
// nobody who stays misses an event meanwhile.

import * as api from '../lib/api.js';
import * as metrics from '../lib/metrics.js';
import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate, eventually } from '../lib/time.js';

/** How long views may take to become right. */
const PATIENCE_MS = 10000;

// Residents and half of the guests are users; a channel has 100 at most.
const sizes = {
  smoke: { vus: 2, residents: 10, guests: 20, waves: 5, perSecond: 10, seconds: 5 },
  load: { vus: 3, residents: 20, guests: 30, waves: 60, perSecond: 5, seconds: 60 },
  stress: { vus: 6, residents: 30, guests: 60, waves: 60, perSecond: 5, seconds: 60 },
  soak: { vus: 2, residents: 20, guests: 30, waves: 1800, perSecond: 2, seconds: 3600 },
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
  const guests = Array.from({ length: size.guests }, (_, number) => ({
    // Two guests are one user on two connections.
    seat: seat(`guest-${Math.floor(number / 2)}`),
    connection: room.add(() => []),
    isIn: false,
  }));

  const talk = atRate(size, () => room.publish(lobby));
  const pace = { perSecond: size.waves / size.seconds, seconds: size.seconds, publishes: false };
  const churn = atRate(pace, async (wave) => {
    const began = Date.now();
    await Promise.all(guests.filter(() => Math.random() < 0.5).map((guest) => (guest.isIn ? leave(guest, wave) : come(guest))));
    const present = [...residents, ...guests.filter(({ isIn }) => isIn).map(({ connection }) => connection)];
    const wrong = await wrongViews(lobby.channel, present);
    if (wrong > 0) metrics.wrongViews.add(wrong, { why: 'not right in time' });
    else metrics.presenceTime.add(Date.now() - began);
  });
  await Promise.all([talk, churn]);
  await room.judge();
}

async function come(guest) {
  guest.isIn = true;
  if (!guest.connection.isConnected) await guest.connection.open();
  await guest.connection.subscribe(guest.seat.channel, guest.seat.member);
}

async function leave(guest, wave) {
  guest.isIn = false;
  guest.connection.unsubscribe(guest.seat.channel);
  if (wave % 2 === 1) await guest.connection.close();
}

/** Waits until all see exactly those who are there; comes to how many do not. */
async function wrongViews(channel, present) {
  const expected = [...new Set(present.map((connection) => connection.subscriptions.get(channel).member.id))].sort().join();
  const isWrong = (ids) => ids === undefined || [...ids].sort().join() !== expected;
  const wrong = () => present.filter((connection) => isWrong(connection.subscriptions.get(channel).members.keys())).length;
  await eventually(PATIENCE_MS, 10, () => wrong() === 0);
  const isListed = await eventually(PATIENCE_MS, 50, async () => !isWrong(await api.users(channel)));
  return wrong() + (isListed ? 0 : 1);
}
