// Connections open at an even rate, stay open, and receive an event now and then. Measures the cost of connecting as their number
// grows, and checks that open connections still receive all events.

import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate } from '../lib/time.js';

/** Connections per channel. The number is small, so that there are always events, but not to all connections at once. */
const TOGETHER = 50;
/** Time between two events of a channel. */
const INTERVAL_S = 2;

const sizes = {
  smoke: { vus: 2, connections: 100, rampSeconds: 3, seconds: 2 },
  load: { vus: 8, connections: 500, rampSeconds: 60, seconds: 60 },
  stress: { vus: 16, connections: 500, rampSeconds: 30, seconds: 60 },
  soak: { vus: 4, connections: 500, rampSeconds: 300, seconds: 3600 },
};
const { size, options } = plan('connect_ramp', sizes, {
  lasts: ({ rampSeconds, seconds }) => rampSeconds + seconds,
  thresholds: () => ({
    carillon_connect_time: atMost(100, 500),
    carillon_subscribe_time: atMost(100, 500),
  }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const rows = Array.from({ length: Math.ceil(size.connections / TOGETHER) }, (_, number) => room.stream(room.channel(`row-${number}`)));
  await room.connect(size.connections, (index) => [rows[index % rows.length]], { overSeconds: size.rampSeconds });
  await atRate({ perSecond: rows.length / INTERVAL_S, seconds: size.seconds }, (i) => room.publish(rows[i % rows.length]));
  await room.finish();
}
