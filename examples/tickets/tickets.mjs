// Requests to a help desk, their allowed state changes, and the figures about all of them. Publishes nothing.

import { Problem, text } from '../common/server.mjs';

export const PRIORITIES = ['low', 'normal', 'high', 'urgent'];

const ACTIONS = {
  take: { from: ['open'], to: 'in_progress', words: 'taken' },
  resolve: { from: ['in_progress'], to: 'resolved', words: 'resolved' },
  reopen: { from: ['resolved'], to: 'open', words: 'reopened' },
};

const WORDS = { open: 'open', in_progress: 'in progress', resolved: 'resolved' };

const TICKETS_MAX = 500;

export class Tickets {
  #all = new Map();
  #changes = 0;

  get items() {
    return [...this.#all.values()];
  }

  /** Figures of all tickets. Their version counts changes, so that a page keeps the latest figures. */
  get figures() {
    const { items } = this;
    const count = (matches) => items.filter(matches).length;
    const minutes = items
      .filter(({ resolved }) => resolved)
      .map(({ created, resolved }) => (new Date(resolved) - new Date(created)) / 60_000);
    minutes.sort((a, b) => a - b);
    return {
      id: 'figures',
      version: this.#changes,
      open: count(({ status }) => status === 'open'),
      in_progress: count(({ status }) => status === 'in_progress'),
      resolved: count(({ status }) => status === 'resolved'),
      median_minutes: minutes.length > 0 ? Math.round(minutes[Math.floor(minutes.length / 2)]) : null,
      waiting: Object.fromEntries(
        PRIORITIES.map((priority) => [priority, count((one) => one.priority === priority && one.status !== 'resolved')]),
      ),
    };
  }

  create(user, body, created = new Date()) {
    if (this.#all.size >= TICKETS_MAX) throw new Problem(409, `The desk has at most ${TICKETS_MAX} requests.`);
    const subject = text(body, 'subject', 'The subject', { min: 5, max: 100 });
    if (!PRIORITIES.includes(body.priority)) throw new Problem(422, 'This priority does not exist.', { priority: 'Choose a priority.' });
    const ticket = {
      id: this.#all.size + 1,
      version: 0,
      subject,
      requester: user.name,
      priority: body.priority,
      status: 'open',
      assignee: null,
      created: created.toISOString(),
      resolved: null,
    };
    this.#all.set(ticket.id, ticket);
    return this.#changed(ticket);
  }

  act(user, id, action, now = new Date()) {
    const ticket = this.#all.get(Number(id));
    const rule = Object.hasOwn(ACTIONS, action) ? ACTIONS[action] : null;
    if (!ticket || !rule) throw new Problem(404, 'This request or action does not exist.');
    if (!rule.from.includes(ticket.status)) {
      const by = ticket.assignee ? `, by ${ticket.assignee}` : '';
      throw new Problem(409, `Request ${ticket.id} is ${WORDS[ticket.status]}${by}, and cannot be ${rule.words}.`);
    }
    ticket.status = rule.to;
    ticket.assignee = rule.to === 'open' ? null : user.name;
    ticket.resolved = rule.to === 'resolved' ? now.toISOString() : null;
    return this.#changed(ticket);
  }

  #changed(ticket) {
    this.#changes += 1;
    ticket.version += 1;
    return ticket;
  }
}

/** Adds requests of a working day. Each line: minutes ago, requester, priority, subject, agent, minutes until resolved. */
export function beginDay(tickets) {
  const day = [
    [214, 'Greta Lind', 'normal', 'New laptop does not find the office printer', 'Sam', 35],
    [180, 'Paolo Ricci', 'high', 'Payroll export ends with an empty file', 'Iris', 71],
    [150, 'Hana Kim', 'low', 'Please add me to the design mailing list', 'Sam', 12],
    [95, 'Luis Ortega', 'urgent', 'Card reader at gate 3 rejects every badge', 'Iris', null],
    [62, 'Ruth Adeyemi', 'normal', 'Calendar shows meetings one hour late', 'Sam', null],
    [41, 'Ben Archer', 'high', 'VPN drops every few minutes since this morning', null, null],
    [17, 'Maja Novak', 'normal', 'Cannot open scanned invoices on my phone', null, null],
    [6, 'Felix Braun', 'low', 'A second monitor for the reception', null, null],
  ];
  const ago = (minutes) => new Date(Date.now() - minutes * 60_000);
  for (const [minutes, requester, priority, subject, agent, after] of day) {
    const { id } = tickets.create({ name: requester }, { subject, priority }, ago(minutes));
    if (agent) tickets.act({ name: agent }, id, 'take');
    if (after) tickets.act({ name: agent }, id, 'resolve', ago(minutes - after));
  }
}
