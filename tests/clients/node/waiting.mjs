// Waiting with a deadline, for everything in this folder.

/** How long an expected event may take. Generous, for loaded machines: only a failing test ever waits this long. */
export const DEADLINE_MS = 10_000;

/** `promise`, or an error that says what was awaited once `ms` have passed. Safe to await late. */
export function within(promise, what, ms = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${typeof what === 'function' ? what() : what}`)), ms);
  });
  const raced = Promise.race([promise, late]).finally(() => clearTimeout(timer));
  raced.catch(() => {});
  return raced;
}
