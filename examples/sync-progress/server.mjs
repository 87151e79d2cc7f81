// Sync progress: a long job tells everyone in a company how far it is, and the person who started it how it ended.

import { randomUUID } from 'node:crypto';

import { Broadcaster } from '../common/broadcaster.mjs';
import { Problem, person, serve } from '../common/server.mjs';
import { COMPANIES, Syncs } from './syncs.mjs';

const broadcaster = new Broadcaster();
const syncs = new Syncs(report);

/** One life of this process; see `common/public/store.js`. */
const run = randomUUID();

const channelOf = (company) => `private-company.${company}`;

/** Nobody waits for this one: the job goes on whether or not anybody can be told. */
async function report(job) {
  const item = { ...job };
  await broadcaster.publish([channelOf(job.company)], 'sync.progress', { run, item });
  if (job.state === 'finished') await broadcaster.tell(job.by.id, 'sync.finished', { id: job.id, records: job.records });
}

async function announce(job) {
  const item = { ...job };
  return { run, item, notice: await broadcaster.publish([channelOf(job.company)], 'sync.progress', { run, item }) };
}

await serve({
  name: 'sync-progress',
  port: 3004,
  pages: { '/': 'index.html' },
  broadcaster,
  signIn: (body) => {
    if (!Object.hasOwn(COMPANIES, body.company)) throw new Problem(422, 'There is no such company.', { company: 'Choose a company.' });
    const { id, name } = person(body);
    return { id: `${body.company}-${id}`, name, company: body.company, company_name: COMPANIES[body.company] };
  },
  mayHear: ({ company }, channel) => channel === channelOf(company),
  identity: ({ id, name }) => ({ id, user_info: { name } }),
  routes: {
    'GET /api/syncs': ({ user }) => ({ run, items: syncs.of(user.company) }),
    'POST /api/syncs': ({ user, body }) => announce(syncs.start(user, body)),
    'POST /api/syncs/:id/cancel': ({ user, parameters }) => announce(syncs.cancel(user, parameters.id)),
  },
});
