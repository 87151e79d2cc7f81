// Connections come at an even pace until all are there, stay, and hear an event each second: what connecting costs as
// their number grows, and whether those who are in still hear everything.

import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate } from '../lib/time.js';

const sizes = {
  smoke: { vus: 2, connections: 100, rampSeconds: 3, seconds: 2 },
  load: { vus: 10, connections: 500, rampSeconds: 60, seconds: 60 },
  stress: { vus: 20, connections: 750, rampSeconds: 60, seconds: 60 },
  soak: { vus: 10, connections: 500, rampSeconds: 300, seconds: 3600 },
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
  const news = room.stream(room.channel('news'));
  await room.connect(size.connections, () => [news], { overSeconds: size.rampSeconds });
  await atRate({ perSecond: 1, seconds: size.seconds }, () => room.publish(news));
  await room.judge();
}
