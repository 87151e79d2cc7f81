// How large a run is, and what it must hold to.
//
// A scenario names its sizes by profile. Every number of them can be set by hand: `-e CONNECTIONS=500` for `connections`.

import * as metrics from './metrics.js';

export const PROFILE = __ENV.PROFILE || 'smoke';

/** Times may be so many times those of an ordinary load: smoke runs beside whatever else a machine builds and tests. */
const PATIENCE = { smoke: 5, load: 1, stress: 10, soak: 1 };
/** Beyond the planned time: connecting, waiting for the last event, closing. */
const SLACK_S = 60;

/** Thresholds: most that 95 and 99 of 100 may take under an ordinary load, in milliseconds. */
export const atMost = (p95, p99) => [`p(95)<${p95 * PATIENCE[PROFILE]}`, `p(99)<${p99 * PATIENCE[PROFILE]}`];

/** What runs, for the report. */
export const current = { scenario: '', profile: PROFILE, size: {} };

/**
 * The size of the chosen profile, and k6's options for it.
 *
 * `sizes`: by profile, each with `seconds`, and `vus` unless it is one. `thresholds(size)`: beyond those of every scenario;
 * `null` lifts one. `lasts(size)`: in seconds. `also(size)`: further scenarios of k6 that run beside the default function.
 */
export function plan(scenario, sizes, { thresholds = () => ({}), lasts = ({ seconds }) => seconds, also = () => ({}) } = {}) {
  if (sizes[PROFILE] === undefined) throw new Error(`PROFILE=${PROFILE}: there are ${Object.keys(sizes).join(', ')}`);
  const size = { ...sizes[PROFILE] };
  for (const name of Object.keys(size)) {
    const value = __ENV[name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()];
    if (value === undefined) continue;
    if (!(Number(value) > 0)) throw new Error(`${name}: ${value} is no size`);
    size[name] = Number(value);
  }
  Object.assign(current, { scenario, size });

  const { vus = 1 } = size;
  const all = {
    carillon_delivery_latency: atMost(50, 150),
    carillon_delivered: ['count>0'],
    carillon_ungreeted: ['rate<0.1'],
    carillon_judged: [`count==${vus}`],
    ...Object.fromEntries(metrics.FAULTS.map(({ name }) => [name, ['count==0']])),
    ...thresholds(size),
  };
  const executor = { executor: 'per-vu-iterations', iterations: 1, gracefulStop: '0s', maxDuration: `${Math.ceil(lasts(size)) + SLACK_S}s` };
  const options = {
    scenarios: {
      [scenario]: { ...executor, vus },
      ...Object.fromEntries(Object.entries(also(size)).map(([name, more]) => [name, { ...executor, ...more }])),
    },
    thresholds: Object.fromEntries(Object.entries(all).filter(([, expressions]) => expressions !== null)),
    summaryTrendStats: ['count', 'min', 'med', 'avg', 'p(90)', 'p(95)', 'p(99)', 'max'],
    // What would make one series of each request.
    systemTags: ['status', 'method', 'name', 'scenario', 'check', 'error_code'],
  };
  return { size, options };
}
