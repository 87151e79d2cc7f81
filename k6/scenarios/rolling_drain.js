// Gateways drain one after the other while events are published. Every client is closed with 4200, reconnects at once, and must
// receive all events that were published while it was subscribed. The protocol does not deliver events to a disconnected client, so
// events between its close and its new subscription do not count.
//
// Another program must send SIGTERM while this runs (`check.sh` does). A run without a drain fails.

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
    // A client may connect to a gateway that is shutting down.
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
  await room.connect(size.connections, seat, { reconnects: true });
  await atRate(size, (i) => room.publish(i % 2 === 0 ? news : lobby));
  await room.finish();
}
