// Members of a presence channel send client events. All members except the sender must receive each event, in order, with the
// sender's user id.

import { plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate } from '../lib/time.js';

// A connection may send ten events per second.
const sizes = {
  smoke: { vus: 2, connections: 10, perSecond: 5, seconds: 5 },
  load: { vus: 4, connections: 20, perSecond: 2, seconds: 60 },
  stress: { vus: 4, connections: 25, perSecond: 4, seconds: 60 },
  soak: { vus: 4, connections: 15, perSecond: 1, seconds: 3600 },
};
const { size, options } = plan('client_events', sizes);
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const channel = room.channel('presence-talk');
  const clientStreams = Array.from({ length: size.connections }, (_, index) => room.stream(channel, index));
  await room.connect(size.connections, (index) => [{ channel, member: { id: `user-${index}` } }]);
  // The members send in turn, not all at once.
  const pace = { perSecond: size.perSecond * size.connections, seconds: size.seconds };
  await atRate(pace, (i) => room.sendClientEvent(clientStreams[i % clientStreams.length]));
  await room.finish();
}
