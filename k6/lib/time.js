// Waiting and pacing.

import { clearTimeout, setTimeout } from 'k6/timers';
import * as metrics from './metrics.js';

/** A timer with a `stop`. When k6 stops one, it runs the next one too early: hence the look at the clock. */
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

/** What the promise comes to, or an error that names what did not come. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = after(ms, () => reject(new Error(`${what}: not within ${ms} ms`)));
  });
  return Promise.race([promise, late]).finally(() => timer.stop());
}

/** Asks again and again; returns whether the answer became yes in time. */
export async function eventually(ms, interval, isSo) {
  const until = Date.now() + ms;
  while (!(await isSo())) {
    if (Date.now() >= until) return false;
    await pause(interval);
  }
  return true;
}

/**
 * Calls `action(i)` so many times per second, one after the other. A call that takes too long delays the next ones; they
 * are made up for, and how late they were is in `carillon_publish_lateness`, unless it is not about publishing.
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
