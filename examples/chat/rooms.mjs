// Rooms with their messages, users, and the mentions of each user. Contains only the rules and publishes nothing.

import { Problem, text } from '../common/server.mjs';

export const ROOMS = ['general', 'kitchen', 'projects'];

/** Maximum numbers of messages per room, notifications per user, and users. The oldest are removed first. */
const MESSAGES_MAX = 100;
const NOTIFICATIONS_MAX = 30;
const PEOPLE_MAX = 500;

export class Rooms {
  #messages = new Map(ROOMS.map((room) => [room, []]));
  #people = new Map();
  #notifications = new Map();
  #next = 1;

  /** Adds a signed-in user, who can be mentioned from now on. */
  addUser({ id, name }) {
    this.#people.delete(id);
    this.#people.set(id, { id, name });
    if (this.#people.size <= PEOPLE_MAX) return;
    const [oldest] = this.#people.keys();
    this.#people.delete(oldest);
    this.#notifications.delete(oldest);
  }

  messages(room) {
    const messages = this.#messages.get(room);
    if (!messages) throw new Problem(404, 'This room does not exist.');
    return messages;
  }

  /** Adds a message. Returns it, and a notification for each mentioned user. */
  post(author, room, body, at = new Date()) {
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

  /** Marks all notifications of a user as read. Returns the changed ones. */
  read(userId) {
    const unread = this.notifications(userId).filter(({ read }) => !read);
    for (const notification of unread) {
      notification.read = true;
      notification.version += 1;
    }
    return unread;
  }
}

/** Whether the text contains `@Name`, and not only as the start of a longer name. */
function mentioned(words, name) {
  const escaped = name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(`@${escaped}(?![\\p{L}\\p{N}])`, 'iu').test(words);
}

/** Adds initial messages, so that the first user has something to read. */
export function beginTalk(rooms) {
  const ago = (minutes) => new Date(Date.now() - minutes * 60_000);
  const [mara, otis] = [
    { id: 'mara', name: 'Mara' },
    { id: 'otis', name: 'Otis' },
  ];
  rooms.post(mara, 'general', { text: 'Good morning. The new price list is on the shared drive.' }, ago(38));
  rooms.post(otis, 'general', { text: 'Thanks, found it. Page 3 still has the old date, though.' }, ago(31));
  rooms.post(mara, 'general', { text: 'Oh no. I will fix it before ten.' }, ago(29));
  rooms.post(otis, 'kitchen', { text: 'The coffee machine is back from repair.' }, ago(54));
  rooms.post(mara, 'projects', { text: 'Warehouse survey: two sites done, one to go.' }, ago(75));
}
