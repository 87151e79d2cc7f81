// Single events of all sizes through the HTTP API, with several requests at a time, to a few subscribers each. Measures the cost of a
// publish, and checks excluded connections and subscription counts in responses.
import { check } from 'k6';
import { subscriptionCount } from '../lib/api.js';
import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate, eventually } from '../lib/time.js';

/** The last size is the maximum of an event. */
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
  // Gateways report counts once a second.
  const isCounted = async () => (await Promise.all(lanes.map(({ channel }) => subscriptionCount(channel)))).every((count) => count === SUBSCRIBERS);
  check(await eventually(10000, 100, isCounted), { 'the API counts all subscriptions': (it) => it });
  await Promise.all(lanes.map((lane, number) => atRate(size, (i) => publish(room, lane, number, i))));
  await room.finish();
}

async function publish(room, lane, number, i) {
  const bytes = BYTES[i % BYTES.length];
  const response = await room.publish(lane, {
    bytes,
    except: i % 10 === 9 ? room.connections[number] : undefined,
    info: i % 10 === 4 ? 'subscription_count' : undefined,
  });
  if (i % 10 !== 4 || response.status !== 200) return;
  const { channels } = response.json();
  check(channels, { 'responses count subscriptions': (counted) => counted[lane.channel].subscription_count === SUBSCRIBERS });
}
