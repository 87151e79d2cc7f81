// Some subscribers stop reading while events are published. The other subscribers must not be affected. The server must close slow
// subscribers instead of queueing events for them without a bound.
//
// k6 reads sockets in the background even if a script is busy, except in the module `k6/ws`. That module passes one message at a time
// to the script, and reads the next one when the script is done. A slow reader here is a `k6/ws` socket whose handler sleeps. Its
// kernel's buffers fill, then those of the server's kernel (about 4 MB), then the server's own. To fill them quickly, a channel for
// slow readers only receives many large events.

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
/** Time limit for the close of a slow reader after its sleep. */
const AFTERMATH_MS = 20000;

// `seconds`: duration of the flood. It must fill all buffers between server and reader, including those of proxies.
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

/** Returns the name of the room that readers and slow readers share. */
export function setup() {
  return { name: Date.now().toString(36) };
}

export default async function ({ name }) {
  const room = new Room(name);
  const news = room.stream(room.channel('news'));
  const flood = room.channel('flood');
  await room.connect(size.connections, () => [news]);
  const areSubscribed = await eventually(20000, 100, async () => (await subscriptionCount(flood)) === size.slow);
  if (!areSubscribed) throw new Error('the slow readers did not subscribe in time');
  const event = { name: 'flood', channel: flood, data: JSON.stringify('x'.repeat(FLOOD_BYTES)) };
  await Promise.all([
    atRate(size, () => room.publish(news)),
    atRate({ perSecond: size.batchesPerSecond, seconds: size.seconds }, () => triggerBatch(Array(BATCH).fill(event))),
  ]);
  await room.finish();
}

export function slowReader({ name }) {
  const url = `${GATEWAYS[exec.scenario.iterationInTest % GATEWAYS.length]}/app/${APP.key}?protocol=7&client=js&version=8.6.0`;
  let isSleeping = false;
  let isClosing = false;
  ws.connect(url, { tags: { name: 'slow socket' } }, (socket) => {
    const subscribe = (channel) => socket.send(JSON.stringify({ event: 'pusher:subscribe', data: { auth: '', channel: `${channel}-${name}` } }));
    socket.on('message', (text) => {
      if (text.includes('pusher:connection_established')) {
        subscribe('news');
        subscribe('flood');
      } else if (!isSleeping && text.includes('"event":"flood"')) {
        isSleeping = true;
        sleep(size.seconds);
        socket.setTimeout(() => {
          isClosing = true;
          socket.close();
        }, AFTERMATH_MS);
      }
    });
    socket.on('close', (code) => {
      // A full socket rarely has room for the server's close frame, so the code is not reliable.
      if (isSleeping && !isClosing) metrics.slowClosed.add(1, { code: `${code}` });
    });
  });
}
