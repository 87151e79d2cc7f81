// Thousands of channels with two subscribers each, and events that go to twenty channels at a time. Tests routing: an event for a
// connection that is not subscribed is misdirected.

import { plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate } from '../lib/time.js';

/** Channels per event. The protocol allows 100. */
const TOGETHER = 20;

const sizes = {
  smoke: { vus: 2, channels: 400, connections: 20, perSecond: 20, seconds: 5 },
  load: { vus: 4, channels: 2000, connections: 100, perSecond: 20, seconds: 60 },
  stress: { vus: 4, channels: 5000, connections: 250, perSecond: 50, seconds: 60 },
  soak: { vus: 2, channels: 2000, connections: 100, perSecond: 10, seconds: 3600 },
};
const { size, options } = plan('many_channels', sizes);
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const channels = Array.from({ length: size.channels }, (_, number) => room.channel(`item-${number}`));
  const streams = [];
  for (let at = 0; at < channels.length; at += TOGETHER) streams.push(room.stream(channels.slice(at, at + TOGETHER)));
  // Connections with adjacent numbers share a channel, and are on different gateways.
  const isSubscribed = (index, number) => [index, (index + 1) % size.connections].includes(number % size.connections);
  await room.connect(size.connections, (index) => channels.filter((_, number) => isSubscribed(index, number)).map((channel) => ({ channel })));
  await atRate(size, (i) => room.publish(streams[i % streams.length]));
  await room.finish();
}
