// Checks without a server: signatures against those that Pusher publishes, actions after close codes, and the detection of lost,
// doubled and reordered events.

import { check } from 'k6';
import { afterClose } from './lib/pusher.js';
import { signChannel, signRequest, signUser } from './lib/sign.js';
import { DOUBLED, FRESH, MISDIRECTED, REORDERED, Stream, Track } from './lib/stream.js';

export const options = { thresholds: { checks: ['rate==1'] } };

const APP = { id: '3', key: '278d425bdf160c739803', secret: '7ad3773142a6692b25b8' };
const SOCKET = '1234.1234';
const NOW = 1353088179;

function is(actual, expected, description) {
  const isSame = JSON.stringify(actual) === JSON.stringify(expected);
  if (!isSame) console.error(`${description}: ${JSON.stringify(actual)} is not ${JSON.stringify(expected)}`);
  check(isSame, { [description]: (it) => it });
}

function signatures() {
  const channel = (name, data, digest) => is(signChannel(APP, SOCKET, name, data), `${APP.key}:${digest}`, `signature of ${name}, ${data}`);
  channel('private-foobar', undefined, '58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4');
  channel('presence-foobar', '{"user_id":10,"user_info":{"name":"Mr. Channels"}}', '31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80');
  channel('private-encrypted-foobar', undefined, 'e6a18892d037c5d5e76a2265df4f086ffc38631605530dfd214aa5bff495f533');
  channel('presence-foobar', '{"user_id":"1","user_info":{"name":"Zoë"}}', '4574f765b5bad63fb42fe0fdf8294ab8c40f1fff5679518c007725dcd931996e');
  const user = signUser(APP, SOCKET, '{"id":"12345"}');
  is(user, `${APP.key}:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba`, 'signature of a user');

  const request = (method, path, params, body, digest) => {
    const query = signRequest(APP, method, path, params, body, NOW);
    is(query.slice(query.lastIndexOf('=') + 1), digest, `signature of ${method} ${path}`);
  };
  const event = '{"name":"foo","channels":["project-3"],"data":"{\\"some\\":\\"data\\"}"}';
  const batch = '{"batch":[{"name":"e1","data":"\\"x\\"","channel":"a"},{"name":"e2","data":"{}","channel":"b","socket_id":"1234.1234"}]}';
  const both = { info: 'user_count,subscription_count' };
  request('POST', '/apps/3/events', {}, event, 'da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c');
  request('POST', '/apps/3/batch_events', {}, batch, 'b7ea78865358f2acbb5308a2d349dcab3c4dc5501a07840394c6a6d9a310190f');
  request('GET', '/apps/3/channels/presence-foobar', both, '', '377ee9260ea002a70c0d40cd887d55cb36db9f7f821297f5efacbcce66be356d');
  request('GET', '/some/resource', { Name: 'Something else' }, '', '6a6e31f72a2adcd41d7457906558236d4a3d880aa6b57a0eb81ecddad9584fe6');
}

function closeCodes() {
  const cases = { 1000: 'back off', 1006: 'back off', 4000: 'refused', 4009: 'refused', 4100: 'back off', 4199: 'back off', 4200: 'retry', 4299: 'retry', 4301: 'refused' };
  for (const [code, expected] of Object.entries(cases)) is(afterClose(Number(code)), expected, `after ${code}`);
}

/** Publishes `events` on a stream after `before` earlier ones. `refused` events are not accepted. Then `arrivals` arrive. */
function arrive({ before = 0, events, refused = [], excluded = [], arrivals }) {
  const stream = new Stream('s', ['c']);
  for (let i = 0; i < before; i += 1) stream.begin();
  const track = new Track(stream, SOCKET);
  for (let i = before; i < before + events; i += 1) {
    const sequence = stream.begin(excluded.includes(i) ? SOCKET : undefined);
    if (!refused.includes(sequence)) stream.accepted(sequence);
  }
  return { track, verdicts: arrivals.map((sequence) => track.arrived(sequence)) };
}

function counting() {
  const expect = (description, plan, verdicts, lost) => {
    const { track, verdicts: actual } = arrive(plan);
    is([actual, track.lost()], [verdicts, lost], description);
  };
  expect('all events arrive in order', { events: 3, arrivals: [0, 1, 2] }, [FRESH, FRESH, FRESH], 0);
  expect('one event in the middle is lost', { events: 3, arrivals: [0, 2] }, [FRESH, FRESH], 1);
  expect('the last events are lost', { events: 3, arrivals: [0] }, [FRESH], 2);
  expect('all events are lost', { events: 3, arrivals: [] }, [], 3);
  expect('one event is doubled', { events: 2, arrivals: [0, 0, 1, 0] }, [FRESH, DOUBLED, FRESH, DOUBLED], 0);
  expect('two events are swapped', { events: 3, arrivals: [0, 2, 1] }, [FRESH, FRESH, REORDERED], 0);
  expect('one event is late and then doubled', { events: 3, arrivals: [2, 0, 0, 1] }, [FRESH, REORDERED, DOUBLED, REORDERED], 0);
  expect('a refused event is not expected', { events: 3, refused: [1, 2], arrivals: [0] }, [FRESH], 0);
  expect('a refused event may arrive', { events: 2, refused: [1], arrivals: [0, 1] }, [FRESH, FRESH], 0);
  expect('an excluded connection misses nothing', { events: 3, excluded: [1, 2], arrivals: [0] }, [FRESH], 0);
  expect('an excluded connection must not receive the event', { events: 2, excluded: [1], arrivals: [0, 1] }, [FRESH, MISDIRECTED], 0);
  expect('an earlier event is not expected', { before: 2, events: 1, arrivals: [2] }, [FRESH], 0);
  expect('an earlier event may arrive', { before: 2, events: 1, arrivals: [1, 2] }, [FRESH, FRESH], 0);
  expect('earlier events are ordered', { before: 2, events: 1, arrivals: [1, 0] }, [FRESH, REORDERED], 1);
  expect('an earlier event arrives only once', { before: 2, events: 1, arrivals: [1, 1, 2] }, [FRESH, DOUBLED, FRESH], 0);

  const { track } = arrive({ events: 2, arrivals: [0] });
  is(track.lost(Date.now()), 0, 'an event in flight when the connection ended is not expected');
  is(track.lost(Date.now() + 3000), 1, 'an event accepted long before the connection ended is expected');
}

export default function () {
  signatures();
  closeCodes();
  counting();
}
