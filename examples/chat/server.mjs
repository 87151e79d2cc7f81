// Chat: rooms with presence, and private notifications for mentioned users.

import { randomUUID } from 'node:crypto';

import { Broadcaster } from '../common/broadcaster.mjs';
import { person, serve } from '../common/server.mjs';
import { ROOMS, Rooms, beginTalk } from './rooms.mjs';

/** Laravel's event name of every broadcast notification. Echo's `notification()` listens to it. */
const NOTIFICATION = 'Illuminate\\Notifications\\Events\\BroadcastNotificationCreated';

const broadcaster = new Broadcaster();
const rooms = new Rooms();
beginTalk(rooms);

/** Identifies this run of the process, see `common/public/store.js`. */
const run = randomUUID();

const inbox = (userId) => `private-App.Models.User.${userId}`;

async function post({ user, body, parameters: { room } }) {
  const { message, notifications } = rooms.post(user, room, body);
  const problems = await Promise.all([
    broadcaster.publish([`presence-room.${room}`], 'message.posted', { run, item: message }),
    ...notifications.map(({ userId, notification }) =>
      broadcaster.publish([inbox(userId)], NOTIFICATION, { type: 'mention', run, item: notification }),
    ),
  ]);
  return { run, item: message, notice: problems.find(Boolean) };
}

async function read({ user }) {
  const items = rooms.read(user.id);
  // Removes the badge in all windows of this user.
  const notice = items.length > 0 ? await broadcaster.publish([inbox(user.id)], 'notifications.read', { run, items }) : null;
  return { run, items, notice };
}

await serve({
  name: 'chat',
  port: 3003,
  pages: { '/': 'index.html' },
  broadcaster,
  signIn: (body) => {
    const user = person(body);
    rooms.addUser(user);
    return user;
  },
  maySubscribe: (user, channel) => channel === inbox(user.id) || ROOMS.some((room) => channel === `presence-room.${room}`),
  member: ({ id, name }) => ({ user_id: id, user_info: { id, name } }),
  routes: {
    'GET /api/rooms/:room': ({ parameters }) => ({ run, items: rooms.messages(parameters.room) }),
    'POST /api/rooms/:room': post,
    'GET /api/notifications': ({ user }) => ({ run, items: rooms.notifications(user.id) }),
    'POST /api/notifications/read': read,
  },
});
