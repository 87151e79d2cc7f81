// Single events of all sizes through the HTTP API, several requests at a time, to a few subscribers each: what a publish
// costs, that a connection can be left out of it, and that answers count subscriptions.

import { check } from 'k6';
import { subscriptionCount } from '../lib/api.js';
import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate, eventually } from '../lib/time.js';

/** The last is the most that an event may have. */
const BYTES = [100, 1000, 10240];
const SUBSCRIBERS = 2;

const sizes = {
  smoke: { vus: 2, lanes: 4, perSecond: 20, seconds: 5 },
  load: { vus: 4, lanes: 4, perSecond: 25, seconds: 60 },
  stress: { vus: 6, lanes: 8, perSecond: 20, seconds: 60 },
  soak: { vus: 2, lanes: 4, perSecond: 10, seconds: 3600 },
};
const { size, options } = plan('publish', sizes, {
  thresholds: () => ({
    carillon_publish_time: atMost(50, 200),
    checks: ['rate==1'],
  }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  // A lane is a channel with one request at a time, so that its events have an order.
  const lanes = Array.from({ length: size.lanes }, (_, number) => room.stream(room.channel(`lane-${number}`)));
  await room.connect(SUBSCRIBERS * lanes.length, (index) => [lanes[index % lanes.length]]);
  // Gateways tell counts once a second.
  const isCounted = async () => (await Promise.all(lanes.map(({ channel }) => subscriptionCount(channel)))).every((count) => count === SUBSCRIBERS);
  check(await eventually(10000, 100, isCounted), { 'the API counts all subscriptions': (it) => it });
  await Promise.all(lanes.map((lane, number) => atRate(size, (i) => publish(room, lane, number, i))));
  await room.judge();
}

async function publish(room, lane, number, i) {
  const bytes = BYTES[i % BYTES.length];
  const answer = await room.publish(lane, {
    bytes,
    except: i % 10 === 9 ? room.connections[number] : undefined,
    info: i % 10 === 4 ? 'subscription_count' : undefined,
  });
  if (i % 10 !== 4 || answer.status !== 200) return;
  const { channels } = answer.json();
  check(channels, { 'answers count subscriptions': (counted) => counted[lane.channel].subscription_count === SUBSCRIBERS });
}
