// Long jobs, one at a time per company. They simulate the comparison of records with a remote stock list, in phases, with a timer. This
// module publishes nothing: it calls `report(job)` for each change that pages should show.

import { Problem } from '../common/server.mjs';

export const COMPANIES = { alder: 'Alder Logistics', birch: 'Birch Foods' };

const PHASES = [
  { until: 0.3, words: 'Reading the stock list' },
  { until: 0.75, words: 'Comparing records' },
  { until: 1, words: 'Writing changes' },
];

/** Interval of reports. Four per second look smooth, regardless of the number of records. */
const TICK_MS = 250;
const RECORDS_PER_TICK = 50;

const RECORDS_MAX = 100_000;
const JOBS_MAX = 20;

export class Syncs {
  #jobs = new Map();
  #timers = new Map();
  #report;
  #next = 1;

  constructor(report) {
    this.#report = report;
  }

  /** Returns the jobs of one company, latest first. */
  of(company) {
    return [...this.#jobs.values()].filter((job) => job.company === company).reverse();
  }

  start(user, body) {
    const records = Number(body.records);
    if (!Number.isInteger(records) || records < 1 || records > RECORDS_MAX) {
      const words = `Choose from 1 to ${RECORDS_MAX.toLocaleString('en')} records.`;
      throw new Problem(422, words, { records: words });
    }
    const mine = this.of(user.company);
    const running = mine.find(({ state }) => state === 'running');
    if (running) throw new Problem(409, `A sync of ${COMPANIES[user.company]} is running, started by ${running.by.name}.`);
    if (mine.length >= JOBS_MAX) this.#jobs.delete(mine.at(-1).id);

    const job = {
      id: this.#next,
      version: 1,
      company: user.company,
      by: { id: user.id, name: user.name },
      state: 'running',
      phase: PHASES[0].words,
      done: 0,
      records,
      started: new Date().toISOString(),
      ended: null,
      ended_by: null,
    };
    this.#next += 1;
    this.#jobs.set(job.id, job);
    this.#timers.set(
      job.id,
      setInterval(() => this.#work(job), TICK_MS),
    );
    return job;
  }

  cancel(user, id) {
    const job = this.of(user.company).find((one) => one.id === Number(id));
    if (!job) throw new Problem(404, 'This sync does not exist.');
    if (job.state !== 'running')
      throw new Problem(409, `The sync has already ${job.state === 'finished' ? 'finished' : 'been cancelled'}.`);
    this.#end(job, 'cancelled', user.name);
    return job;
  }

  #work(job) {
    job.done = Math.min(job.records, job.done + RECORDS_PER_TICK);
    job.phase = PHASES.find(({ until }) => job.done <= until * job.records).words;
    if (job.done === job.records) this.#end(job, 'finished', null);
    else job.version += 1;
    this.#report(job);
  }

  #end(job, state, by) {
    clearInterval(this.#timers.get(job.id));
    this.#timers.delete(job.id);
    Object.assign(job, { state, ended: new Date().toISOString(), ended_by: by, version: job.version + 1 });
  }
}
