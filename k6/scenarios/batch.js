// Batches of ten events, the maximum of one request. Several events go to the same channel and must arrive in the order of the batch.

import { atMost, plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { atRate } from '../lib/time.js';

const BATCH = 10;
const SUBSCRIBERS = 2;

const sizes = {
  smoke: { vus: 2, channels: 4, perSecond: 20, seconds: 5 },
  load: { vus: 4, channels: 20, perSecond: 50, seconds: 60 },
  stress: { vus: 4, channels: 50, perSecond: 100, seconds: 60 },
  soak: { vus: 2, channels: 20, perSecond: 5, seconds: 3600 },
};
const { size, options } = plan('batch', sizes, {
  thresholds: () => ({ carillon_publish_time: atMost(50, 200) }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

export default async function () {
  const room = new Room();
  const streams = Array.from({ length: size.channels }, (_, number) => room.stream(room.channel(`item-${number}`)));
  await room.connect(SUBSCRIBERS * streams.length, (index) => [streams[index % streams.length]]);
  await atRate(size, (i) => {
    // Every other event of a batch goes to the same channel.
    const first = streams[i % streams.length];
    const batch = Array.from({ length: BATCH }, (_, at) => (at % 2 === 0 ? first : streams[(i * BATCH + at) % streams.length]));
    return room.publishBatch(batch);
  });
  await room.finish();
}
