// Waiting and pacing.

import { clearTimeout, setTimeout } from 'k6/timers';
import * as metrics from './metrics.js';

/** Starts a timer with a `stop`. After k6 stops a timer, it fires the next one too early, so this function checks the clock. */
export function after(ms, action) {
  const due = Date.now() + ms;
  let id;
  const arm = () => {
    id = setTimeout(() => (Date.now() < due ? arm() : action()), due - Date.now());
  };
  arm();
  return { stop: () => clearTimeout(id) };
}

export const pause = (ms) => new Promise((resolve) => after(ms, resolve));

/** Returns the result of the promise, or throws an error with the description if it takes too long. */
export function within(ms, description, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = after(ms, () => reject(new Error(`${description}: not within ${ms} ms`)));
  });
  return Promise.race([promise, late]).finally(() => timer.stop());
}

/** Polls the condition. Returns whether it became true in time. */
export async function eventually(ms, interval, condition) {
  const until = Date.now() + ms;
  while (!(await condition())) {
    if (Date.now() >= until) return false;
    await pause(interval);
  }
  return true;
}

/**
 * Calls `action(i)` at this rate per second, one call after the other. A slow call delays the next ones, which then follow without a
 * pause. `carillon_publish_lateness` records the delay if `publishes` is set.
 */
export async function atRate({ perSecond, seconds, publishes = true }, action) {
  const begin = Date.now();
  for (let i = 0; i < Math.round(perSecond * seconds); i += 1) {
    const due = begin + (i * 1000) / perSecond;
    const early = due - Date.now();
    if (early > 0) await pause(early);
    if (publishes) metrics.publishLateness.add(Math.max(0, Date.now() - due));
    await action(i);
  }
}
