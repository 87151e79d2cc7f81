// Tickets: a help desk's list and its figures, the same on every screen.

import { randomUUID } from 'node:crypto';

import { Broadcaster } from '../common/broadcaster.mjs';
import { person, serve } from '../common/server.mjs';
import { Tickets, beginDay } from './tickets.mjs';

const CHANNEL = 'private-tickets';

const broadcaster = new Broadcaster();
const tickets = new Tickets();
beginDay(tickets);

/** Identifies this run of the process, see `common/public/store.js`. */
const run = randomUUID();

async function announce(item) {
  const event = { run, item, figures: tickets.figures };
  return { ...event, notice: await broadcaster.publish([CHANNEL], 'ticket.changed', event) };
}

await serve({
  name: 'tickets',
  port: 3002,
  pages: { '/': 'index.html' },
  broadcaster,
  signIn: person,
  maySubscribe: (user, channel) => channel === CHANNEL,
  routes: {
    'GET /api/tickets': () => ({ run, items: tickets.items, figures: tickets.figures }),
    'POST /api/tickets': ({ user, body }) => announce(tickets.create(user, body)),
    'POST /api/tickets/:id/:action': ({ user, parameters }) => announce(tickets.act(user, parameters.id, parameters.action)),
  },
});
