// Some subscribers stop reading while events go on: the others must not feel it, and the server must not keep for the slow
// ones what they do not take, but close them.
//
// Every virtual user of k6 reads its sockets in the background, however busy its script is, but for one module: `k6/ws`
// hands over one message at a time and reads the next only when the script is done with it. A slow reader here is a
// `k6/ws` socket whose handler sleeps, so that its system's buffers fill, then those of the server's system (some 4 MB),
// then the server's own. To fill them soon, a channel that only slow readers hear is flooded with large events.

import exec from 'k6/execution';
import { sleep } from 'k6';
import ws from 'k6/ws';
import { subscriptionCount, triggerBatch } from '../lib/api.js';
import * as metrics from '../lib/metrics.js';
import { plan } from '../lib/plan.js';
import { Room } from '../lib/room.js';
import { APP, GATEWAYS } from '../lib/target.js';
import { atRate, eventually } from '../lib/time.js';

const FLOOD_BYTES = 10000;
const BATCH = 10;
/** After it has woken, until a slow reader must have seen its end. */
const AFTERMATH_MS = 20000;

// `seconds`: of flooding. It must fill all buffers between server and reader, proxies' included.
const sizes = {
  smoke: { connections: 50, slow: 2, perSecond: 10, batchesPerSecond: 20, seconds: 8 },
  load: { connections: 250, slow: 10, perSecond: 10, batchesPerSecond: 10, seconds: 30 },
  stress: { connections: 500, slow: 30, perSecond: 10, batchesPerSecond: 10, seconds: 60 },
  soak: { connections: 250, slow: 10, perSecond: 2, batchesPerSecond: 1, seconds: 3600 },
};
const { size, options } = plan('slow_consumer', sizes, {
  thresholds: ({ slow }) => ({ carillon_slow_closed: [`count==${slow}`] }),
  also: ({ slow }) => ({ slow_readers: { exec: 'slowReader', vus: slow } }),
});
export { options };
export { handleSummary } from '../lib/summary.js';

/** The room in which readers and slow readers meet. */
export function setup() {
  return { name: Date.now().toString(36) };
}

export default async function ({ name }) {
  const room = new Room(name);
  const news = room.stream(room.channel('news'));
  const flood = room.channel('flood');
  await room.connect(size.connections, () => [news]);
  const areThere = await eventually(20000, 100, async () => (await subscriptionCount(flood)) === size.slow);
  if (!areThere) throw new Error('the slow readers did not come');
  const event = { name: 'flood', channel: flood, data: JSON.stringify('x'.repeat(FLOOD_BYTES)) };
  await Promise.all([
    atRate(size, () => room.publish(news)),
    atRate({ perSecond: size.batchesPerSecond, seconds: size.seconds }, () => triggerBatch(Array(BATCH).fill(event))),
  ]);
  await room.judge();
}

export function slowReader({ name }) {
  const url = `${GATEWAYS[exec.scenario.iterationInTest % GATEWAYS.length]}/app/${APP.key}?protocol=7&client=js&version=8.6.0`;
  let isAsleep = false;
  let isLeaving = false;
  ws.connect(url, { tags: { name: 'slow socket' } }, (socket) => {
    const subscribe = (channel) => socket.send(JSON.stringify({ event: 'pusher:subscribe', data: { auth: '', channel: `${channel}-${name}` } }));
    socket.on('message', (text) => {
      if (text.includes('pusher:connection_established')) {
        subscribe('news');
        subscribe('flood');
      } else if (!isAsleep && text.includes('"event":"flood"')) {
        isAsleep = true;
        sleep(size.seconds);
        socket.setTimeout(() => {
          isLeaving = true;
          socket.close();
        }, AFTERMATH_MS);
      }
    });
    socket.on('close', (code) => {
      // A full socket rarely has room for the server's close frame, so the code says little.
      if (isAsleep && !isLeaving) metrics.slowClosed.add(1, { code: `${code}` });
    });
  });
}
