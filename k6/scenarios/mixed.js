// The traffic of a whole application: news for all connections, orders for one connection each, a lobby whose members send client
// events, and visitors who connect for a short time.

import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate, pause } from '../lib/time.js';

const VISIT_MS = 1500;
/** Members of the lobby, and the number of them that send client events. */
const MEMBERS = 20;
const TALKERS = 5;
const BATCH = 10;
/** Connections that one virtual user opens per second. */
const COMING = 50;

const sizes = {
  smoke: { vus: 2, connections: 30, perSecond: 5, visitorsPerSecond: 5, seconds: 8 },
  load: { vus: 3, connections: 200, perSecond: 5, visitorsPerSecond: 5, seconds: 120 },
  stress: { vus: 6, connections: 300, perSecond: 5, visitorsPerSecond: 10, seconds: 120 },
  soak: { vus: 3, connections: 100, perSecond: 2, visitorsPerSecond: 2, seconds: 3600 },
};
const { size, options } = plan('mixed', sizes, {
  lasts: ({ connections, seconds }) => connections / COMING + seconds,
  thresholds: () => ({
    carillon_connect_time: atMost(100, 500),
    carillon_publish_time: atMost(50, 200),
  }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const news = room.stream(room.channel('news'));
  const lobby = room.channel('presence-lobby');
  const clientStreams = Array.from({ length: TALKERS }, (_, index) => room.stream(lobby, index));
  const orders = Array.from({ length: size.connections }, (_, index) => room.stream(room.channel(`private-orders-${index}`)));
  const seat = (index) => [news, orders[index], ...(index < MEMBERS ? [{ channel: lobby, member: { id: `user-${index}` } }] : [])];
  await room.connect(size.connections, seat, { overSeconds: size.connections / COMING });

  const { seconds } = size;
  const next = (i) => Array.from({ length: BATCH }, (_, at) => orders[(i * BATCH + at) % orders.length]);
  const visits = [];
  await Promise.all([
    atRate(size, () => room.publish(news)),
    atRate(size, (i) => room.publishBatch(next(i))),
    atRate({ perSecond: 2 * TALKERS, seconds }, (i) => room.sendClientEvent(clientStreams[i % TALKERS])),
    atRate({ perSecond: size.visitorsPerSecond, seconds, publishes: false }, () => {
      visits.push(visit(room, news));
    }),
  ]);
  await Promise.all(visits);
  await room.finish();
}

async function visit(room, news) {
  const visitor = room.add(() => [news]);
  await visitor.open();
  await pause(VISIT_MS);
  await visitor.close();
  room.remove(visitor);
}
