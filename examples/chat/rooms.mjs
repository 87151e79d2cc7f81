// Rooms with their messages, the people who have been here, and what each of them was told while looking elsewhere.
// Rules only; it publishes nothing.

import { Problem, text } from '../common/server.mjs';

export const ROOMS = ['general', 'kitchen', 'projects'];

/** Messages kept per room, notifications per person, and people. The oldest go first. */
const MESSAGES_MAX = 100;
const NOTIFICATIONS_MAX = 30;
const PEOPLE_MAX = 500;

export class Rooms {
  #messages = new Map(ROOMS.map((room) => [room, []]));
  #people = new Map();
  #notifications = new Map();
  #next = 1;

  /** Somebody has signed in, and can be mentioned from now on. */
  meet({ id, name }) {
    this.#people.delete(id);
    this.#people.set(id, { id, name });
    if (this.#people.size <= PEOPLE_MAX) return;
    const [oldest] = this.#people.keys();
    this.#people.delete(oldest);
    this.#notifications.delete(oldest);
  }

  messages(room) {
    const messages = this.#messages.get(room);
    if (!messages) throw new Problem(404, 'There is no such room.');
    return messages;
  }

  /** Adds a message; returns it, and a notification for everyone whom it mentions. */
  say(author, room, body, at = new Date()) {
    const messages = this.messages(room);
    const words = text(body, 'text', 'The message', { max: 500 });
    const mentions = [...this.#people.values()].filter(({ id, name }) => id !== author.id && mentioned(words, name));
    const message = {
      id: this.#next,
      version: 1,
      at: at.toISOString(),
      author: { id: author.id, name: author.name },
      text: words,
      mentions: mentions.slice(0, 20),
    };
    this.#next += 1;
    messages.push(message);
    if (messages.length > MESSAGES_MAX) messages.shift();

    const notifications = message.mentions.map(({ id }) => {
      const list = this.notifications(id);
      this.#notifications.set(id, list);
      const notification = { id: message.id, version: 1, room, from: author.name, text: words, at: message.at, read: false };
      list.push(notification);
      if (list.length > NOTIFICATIONS_MAX) list.shift();
      return { userId: id, notification };
    });
    return { message, notifications };
  }

  notifications(userId) {
    return this.#notifications.get(userId) ?? [];
  }

  /** Marks everything as read that a person was told; returns what changed. */
  read(userId) {
    const unread = this.notifications(userId).filter(({ read }) => !read);
    for (const notification of unread) {
      notification.read = true;
      notification.version += 1;
    }
    return unread;
  }
}

/** Whether `@Name` stands in the words, and not only as the beginning of a longer name. */
function mentioned(words, name) {
  const escaped = name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`@${escaped}(?![\\p{L}\\p{N}])`, 'iu').test(words);
}

/** Something to read for the first who comes. */
export function beginTalk(rooms) {
  const ago = (minutes) => new Date(Date.now() - minutes * 60_000);
  const [mara, otis] = [
    { id: 'mara', name: 'Mara' },
    { id: 'otis', name: 'Otis' },
  ];
  rooms.say(mara, 'general', { text: 'Good morning. The new price list is on the shared drive.' }, ago(38));
  rooms.say(otis, 'general', { text: 'Thanks, found it. Page 3 still has the old date, though.' }, ago(31));
  rooms.say(mara, 'general', { text: 'Oh no. I will fix it before ten.' }, ago(29));
  rooms.say(otis, 'kitchen', { text: 'The coffee machine is back from repair.' }, ago(54));
  rooms.say(mara, 'projects', { text: 'Warehouse survey: two sites done, one to go.' }, ago(75));
}
