// Sync progress: a long job reports its progress to all users of a company, and its end to the user who started it.

import { randomUUID } from 'node:crypto';

import { Broadcaster } from '../common/broadcaster.mjs';
import { Problem, person, serve } from '../common/server.mjs';
import { COMPANIES, Syncs } from './syncs.mjs';

const broadcaster = new Broadcaster();
const syncs = new Syncs(report);

/** Identifies this run of the process, see `common/public/store.js`. */
const run = randomUUID();

const channelOf = (company) => `private-company.${company}`;

/** Publishes the progress of a job. The job does not wait for the result and continues if publishing fails. */
async function report(job) {
  const item = { ...job };
  await broadcaster.publish([channelOf(job.company)], 'sync.progress', { run, item });
  if (job.state === 'finished') await broadcaster.sendToUser(job.by.id, 'sync.finished', { id: job.id, records: job.records });
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
    if (!Object.hasOwn(COMPANIES, body.company)) throw new Problem(422, 'This company does not exist.', { company: 'Choose a company.' });
    const { id, name } = person(body);
    return { id: `${body.company}-${id}`, name, company: body.company, company_name: COMPANIES[body.company] };
  },
  maySubscribe: ({ company }, channel) => channel === channelOf(company),
  identity: ({ id, name }) => ({ id, user_info: { name } }),
  routes: {
    'GET /api/syncs': ({ user }) => ({ run, items: syncs.of(user.company) }),
    'POST /api/syncs': ({ user, body }) => announce(syncs.start(user, body)),
    'POST /api/syncs/:id/cancel': ({ user, parameters }) => announce(syncs.cancel(user, parameters.id)),
  },
});
