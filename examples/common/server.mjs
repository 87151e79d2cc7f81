// The HTTP server of all examples: pages, a JSON API, sessions, and the two endpoints that sign for browsers.
// It does not depend on any example. The example's `maySubscribe` decides which subscriptions it signs.

import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

import { BROWSER, Broadcaster, SESSION_SECRET } from './broadcaster.mjs';

/** Maximum size of a request body. Forms of the examples are far smaller. */
const BODY_BYTES_MAX = 16 * 1024;

const folder = (path) => fileURLToPath(new URL(path, import.meta.url));
const SHARED = folder('./public/');
const VENDOR = {
  '/vendor/pusher.js': folder('../node_modules/pusher-js/dist/web/pusher.min.js'),
  '/vendor/echo.js': folder('../node_modules/laravel-echo/dist/echo.js'),
};

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/** A request that cannot be served, with the status, the message, and the messages of single fields. */
export class Problem extends Error {
  constructor(status, message, fields) {
    super(message);
    Object.assign(this, { status, fields });
  }
}

/**
 * Checks and trims one text field of a form.
 *
 * @throws {Problem} 422 with the message for the field
 */
export function text(body, field, label, { min = 1, max = 80 } = {}) {
  const value = typeof body[field] === 'string' ? body[field].trim().replace(/\s+/g, ' ') : '';
  const wrong =
    value.length === 0 && min > 0
      ? `${label} is missing.`
      : value.length < min
        ? `${label} needs at least ${min} characters.`
        : value.length > max
          ? `${label} may have ${max} characters, not ${value.length}.`
          : null;
  if (wrong) throw new Problem(422, wrong, { [field]: wrong });
  return value;
}

/** Returns the user of a sign-in with a name only. The same name is the same user in all windows. */
export function person(body) {
  const name = text(body, 'name', 'Your name', { min: 2, max: 30 });
  return { id: createHash('sha256').update(name.toLowerCase()).digest('hex').slice(0, 12), name };
}

/**
 * Serves one example until the process exits.
 *
 * `name`: its folder. `port`: the default of `PORT`. `pages`: files of its `public` folder by path.
 * `signIn(body)`: returns the user of a sign-in form. `maySubscribe(user, channel)`: whether to sign for a channel.
 * `member(user)`: `{ user_id, user_info }` in presence channels. `identity(user)`: `{ id, user_info }` for the sign-in of a connection.
 * `routes`: handlers by `METHOD /path/:parameter`, each called with `{ user, body, parameters }`. The result is sent as JSON.
 */
export async function serve({ name, port, pages, signIn, maySubscribe, member, identity, routes, broadcaster = new Broadcaster() }) {
  const own = folder(`../${name}/public/`);
  const table = Object.entries(routes).map(([key, handler]) => {
    const [method, path] = key.split(' ');
    return { method, pattern: new RegExp(`^${path.replace(/:(\w+)/g, '(?<$1>[^/]+)')}$`), handler };
  });

  const fixed = {
    'GET /config.json': () => ({ ...BROWSER, example: name }),
    'POST /session': ({ body }) => {
      const user = signIn(body);
      return { user, token: sign(name, user) };
    },
    'POST /broadcasting/auth': ({ user, body }) => {
      const { socket_id: socketId, channel_name: channel } = body;
      if (!/^\d+\.\d+$/.test(socketId) || typeof channel !== 'string') throw new Problem(400, 'socket_id and channel_name are required');
      if (!maySubscribe(user, channel)) throw new Problem(403, `${user.name} may not subscribe to ${channel}`);
      return broadcaster.authorize(socketId, channel, channel.startsWith('presence-') ? member(user) : undefined);
    },
    'POST /broadcasting/user-auth': ({ user, body }) => {
      if (!identity) throw new Problem(404, 'this example has no user sign-in');
      if (!/^\d+\.\d+$/.test(body.socket_id)) throw new Problem(400, 'socket_id is required');
      return broadcaster.authenticate(body.socket_id, identity(user));
    },
  };

  async function route(request, path) {
    const key = `${request.method} ${path}`;
    const user = verify(name, request.headers.authorization);
    if (fixed[key]) {
      if (path.startsWith('/broadcasting/') && !user) throw new Problem(403, 'sign in first');
      return fixed[key]({ user, body: await readBody(request) });
    }
    for (const { method, pattern, handler } of table) {
      const match = pattern.exec(path);
      if (!match || method !== request.method) continue;
      if (!user) throw new Problem(401, 'Sign in first.');
      return handler({ user, body: await readBody(request), parameters: match.groups ?? {} });
    }
    throw new Problem(404, 'Not found.');
  }

  const server = createServer(async (request, response) => {
    try {
      const path = decodeURIComponent(new URL(request.url, 'http://example').pathname);
      const file = request.method === 'GET' && (VENDOR[path] ?? inside(SHARED, '/common/', path) ?? page(own, pages, path));
      if (file) {
        const content = await readFile(file).catch(() => null);
        if (content) return send(response, 200, content, TYPES[extname(file)]);
      }
      send(response, 200, JSON.stringify((await route(request, path)) ?? {}));
    } catch (error) {
      const known = error instanceof Problem || error instanceof URIError || error.code === 'ERR_INVALID_URL';
      if (!known) console.error(error);
      const { status = known ? 400 : 500, fields } = error;
      const message = known ? error.message : 'The server of the example failed. Its terminal shows the error.';
      send(response, status, JSON.stringify({ message, fields }));
    }
  });

  const host = process.env.HOST || '127.0.0.1';
  server.once('error', (error) => {
    const words = error.code === 'EADDRINUSE' ? `Port ${error.port} is in use. Set PORT to another one.` : error.message;
    console.error(`The example ${name} cannot start: ${words}`);
    process.exit(1);
  });
  await new Promise((settle) => server.listen(Number(process.env.PORT ?? port), host, settle));
  console.log(`The example ${name} is at http://${host}:${server.address().port}`);
  const trouble = await broadcaster.trouble();
  console.log(trouble ? `${trouble}. Start Carillon with \`cargo run --release -- up\`.` : `Carillon at ${broadcaster.address} is reachable.`);
}

function page(own, pages, path) {
  for (const [pattern, file] of Object.entries(pages)) {
    if (new RegExp(`^${pattern.replace(/:\w+/g, '[^/]+')}$`).test(path)) return own + file;
  }
  return inside(own, '/', path);
}

/** Returns the file below `root` for a path with this prefix, unless the path leads outside. */
function inside(root, prefix, path) {
  if (!path.startsWith(prefix)) return undefined;
  const file = resolve(root, path.slice(prefix.length));
  return file.startsWith(resolve(root) + sep) && extname(file) in TYPES ? file : undefined;
}

/** Allows scripts and styles from this server only, and connections to this server and to Carillon. */
const CARILLON_ADDRESSES = ['ws', 'wss', 'http', 'https'].map((scheme) => `${scheme}://${BROWSER.host}:${BROWSER.port}`).join(' ');
const HEADERS = {
  'Cache-Control': 'no-store',
  'Content-Security-Policy': `default-src 'self'; img-src 'self' data:; connect-src 'self' ${CARILLON_ADDRESSES}; frame-ancestors 'none'`,
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'no-referrer',
};

function send(response, status, body, type = 'application/json; charset=utf-8') {
  response.writeHead(status, { ...HEADERS, 'Content-Type': type }).end(body);
}

async function readBody(request) {
  if (request.method === 'GET') return {};
  const chunks = [];
  let bytes = 0;
  for await (const chunk of request) {
    bytes += chunk.length;
    if (bytes > BODY_BYTES_MAX) throw new Problem(413, `A request has at most ${BODY_BYTES_MAX} bytes.`);
    chunks.push(chunk);
  }
  const content = Buffer.concat(chunks).toString('utf8');
  // pusher-js and Echo send forms to the two signing endpoints; the pages send JSON.
  if (request.headers['content-type']?.startsWith('application/x-www-form-urlencoded'))
    return Object.fromEntries(new URLSearchParams(content));
  try {
    const body = JSON.parse(content || '{}');
    if (body && typeof body === 'object') return body;
  } catch {
    // The error is thrown below.
  }
  throw new Problem(400, 'The request is not JSON.');
}

// === sessions ===
// A token is a signed user. It cannot be forged, and stays valid when the server restarts. Pages store it per window, so that two
// windows of one browser can be two users. It is valid only for the example that issued it. A real application uses its own sign-in
// here.

function sign(example, user) {
  const content = Buffer.from(JSON.stringify(user)).toString('base64url');
  return `${content}.${mac(example, content)}`;
}

function verify(example, header) {
  const [, content, signature] = /^Bearer ([\w-]+)\.([\w-]+)$/.exec(header ?? '') ?? [];
  if (!content) return null;
  const [given, right] = [Buffer.from(signature), Buffer.from(mac(example, content))];
  if (given.length !== right.length || !timingSafeEqual(given, right)) return null;
  return JSON.parse(Buffer.from(content, 'base64url').toString('utf8'));
}

function mac(example, content) {
  return createHmac('sha256', `session of the example ${example} ${SESSION_SECRET}`).update(content).digest('base64url');
}
