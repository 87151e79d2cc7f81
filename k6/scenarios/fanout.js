// One channel with many subscribers, on all gateways, and events at a steady rate.

import { plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate } from '../lib/time.js';

const sizes = {
  smoke: { vus: 2, connections: 50, perSecond: 10, seconds: 5, bytes: 200 },
  load: { vus: 2, connections: 250, perSecond: 10, seconds: 60, bytes: 200 },
  stress: { vus: 4, connections: 500, perSecond: 6, seconds: 60, bytes: 200 },
  soak: { vus: 2, connections: 250, perSecond: 2, seconds: 3600, bytes: 200 },
};
const { size, options } = plan('fanout', sizes);
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const news = room.stream(room.channel('news'));
  await room.connect(size.connections, () => [news]);
  await atRate(size, () => room.publish(news, size));
  await room.finish();
}
