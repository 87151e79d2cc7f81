// Gateways are told to leave, one after the other, while events go on. Every client is told to reconnect (4200), does so at
// once, and misses nothing that was published while it was subscribed. The protocol gives nothing to a client that was
// away, so what is published between its close and its new subscription is not counted.
//
// Something else must send the SIGTERM while this runs (`check.sh` does): a run without a drain fails.

import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate } from '../lib/time.js';

const sizes = {
  smoke: { vus: 2, connections: 50, perSecond: 20, seconds: 12 },
  load: { vus: 2, connections: 250, perSecond: 10, seconds: 120 },
  stress: { vus: 4, connections: 500, perSecond: 5, seconds: 120 },
  soak: { vus: 2, connections: 250, perSecond: 2, seconds: 3600 },
};
const { size, options } = plan('rolling_drain', sizes, {
  thresholds: () => ({
    carillon_drained: ['count>0'],
    carillon_reconnect_time: atMost(1000, 3000),
    // A client may dial the gateway that is just leaving.
    carillon_connect_failures: null,
  }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const news = room.stream(room.channel('news'));
  const lobby = room.stream(room.channel('presence-lobby'));
  const seat = (index) => [news, { channel: lobby.channel, member: { id: `user-${index % 50}` } }];
  await room.connect(size.connections, seat, { comesBack: true });
  await atRate(size, (i) => room.publish(i % 2 === 0 ? news : lobby));
  await room.judge();
}
