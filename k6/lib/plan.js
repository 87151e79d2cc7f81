// Sizes and thresholds of a run.
//
// A scenario defines its sizes by profile. Each number can be set: `-e CONNECTIONS=500` for `connections`.

import * as metrics from './metrics.js';

export const PROFILE = __ENV.PROFILE || 'smoke';

/** Factor for time limits. Smoke runs while the machine builds and tests. */
const PATIENCE = { smoke: 5, load: 1, stress: 10, soak: 1 };
/** Time beyond the planned duration, for connecting, waiting for the last event, and closing. */
const SLACK_S = 60;

/** Returns thresholds: limits of p95 and p99 under ordinary load, in milliseconds. */
export const atMost = (p95, p99) => [`p(95)<${p95 * PATIENCE[PROFILE]}`, `p(99)<${p99 * PATIENCE[PROFILE]}`];

/** The current run, for the report. */
export const current = { scenario: '', profile: PROFILE, size: {} };

/**
 * Returns the size of the selected profile, and k6's options for it.
 *
 * `sizes`: by profile, each with `seconds`, and `vus` unless it is one. `thresholds(size)`: additional thresholds; `null` removes one.
 * `lasts(size)`: duration in seconds. `also(size)`: further k6 scenarios that run at the same time as the default function.
 */
export function plan(scenario, sizes, { thresholds = () => ({}), lasts = ({ seconds }) => seconds, also = () => ({}) } = {}) {
  if (sizes[PROFILE] === undefined) throw new Error(`PROFILE=${PROFILE}: must be one of ${Object.keys(sizes).join(', ')}`);
  const size = { ...sizes[PROFILE] };
  for (const name of Object.keys(size)) {
    const value = __ENV[name.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()];
    if (value === undefined) continue;
    if (!(Number(value) > 0)) throw new Error(`${name}: ${value} is not a positive number`);
    size[name] = Number(value);
  }
  Object.assign(current, { scenario, size });

  const { vus = 1 } = size;
  const all = {
    carillon_delivery_latency: atMost(50, 150),
    carillon_delivered: ['count>0'],
    carillon_ungreeted: ['rate<0.1'],
    carillon_completed: [`count==${vus}`],
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
    // Omits tags that would create one series per request.
    systemTags: ['status', 'method', 'name', 'scenario', 'check', 'error_code'],
  };
  return { size, options };
}
