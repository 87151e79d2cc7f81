// All connections close at once and reconnect at once, repeatedly, like after a network outage. Measures the time until all are
// subscribed again, and checks that they then receive all events.

import * as metrics from '../lib/metrics.js';
import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate, within } from '../lib/time.js';

const PATIENCE_MS = 30000;

const sizes = {
  smoke: { vus: 2, connections: 100, waves: 3, perSecond: 10, seconds: 3 },
  load: { vus: 4, connections: 250, waves: 10, perSecond: 4, seconds: 60 },
  stress: { vus: 8, connections: 400, waves: 20, perSecond: 4, seconds: 60 },
  soak: { vus: 4, connections: 250, waves: 600, perSecond: 2, seconds: 3600 },
};
const { size, options } = plan('reconnect_storm', sizes, {
  lasts: ({ waves, seconds }) => seconds + 5 * waves,
  thresholds: () => ({
    carillon_reconnect_time: atMost(1000, 3000),
    // Reconnected clients receive events while others still connect.
    carillon_delivery_latency: atMost(250, 1000),
  }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const news = room.stream(room.channel('news'));
  const orders = room.stream(room.channel('private-orders'));
  const connections = await room.connect(size.connections, () => [news, orders]);
  const pace = { perSecond: size.perSecond, seconds: size.seconds / size.waves };
  for (let wave = 0; wave < size.waves; wave += 1) {
    await atRate(pace, (i) => room.publish(i % 2 === 0 ? news : orders));
    await room.settle();
    await within(PATIENCE_MS, 'closing', Promise.all(connections.map((connection) => connection.close())));
    const began = Date.now();
    const back = (connection) => connection.open().then(() => metrics.reconnectTime.add(Date.now() - began));
    await within(PATIENCE_MS, 'reconnecting', Promise.all(connections.map(back)));
  }
  await atRate(pace, () => room.publish(news));
  await room.finish();
}
