// Waiting with a deadline, for all tests in this folder.

/** The deadline for an expected event. It allows for loaded machines; only failing tests reach it. */
export const DEADLINE_MS = 10_000;

/** Resolves like `promise`, or rejects with `what` in the message after `ms`. An unhandled rejection is not reported. */
export function within(promise, what, ms = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${typeof what === 'function' ? what() : what}`)), ms);
  });
  const raced = Promise.race([promise, late]).finally(() => clearTimeout(timer));
  raced.catch(() => {});
  return raced;
}
