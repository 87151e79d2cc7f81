// The environment of all test files: a running Carillon, official clients that connect to it, and functions that wait for events.
// There are two modes. By default each test file starts `carillon up` on free ports and stops it with SIGTERM, and the exit code must
// be 0. With SERVER_HOST, SERVER_PORT and APP_ID, APP_KEY, APP_SECRET set, the tests use a running server. Tests that need a separate
// process or app are then skipped. Names of channels and users are unique per test, which lets test files share one server.
// Tests do not sleep. They wait for an event with a deadline, and publish a marker to prove that no event is missing.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { accessSync, constants, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';

import Echo from 'laravel-echo';
import PusherServer from 'pusher';
import Pusher from 'pusher-js';
import WebSocket from 'ws';

import { RawSocket } from './raw_socket.mjs';
import { DEADLINE_MS, within } from './waiting.mjs';

export { DEADLINE_MS, Echo, Pusher, PusherServer, within };

const REPOSITORY = resolve(fileURLToPath(new URL('../../..', import.meta.url)));

/** The deadline for the process to print its banner, and to exit after SIGTERM. */
const PROCESS_DEADLINE_MS = 20_000;

/** The key of all encrypted channels in these tests (protocol reference 10). */
export const ENCRYPTION_KEY = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=';

/**
 * The transport of the clients: `ws`, or an HTTP transport of pusher-js. The raw sockets of a test are always WebSockets.
 */
const TRANSPORT = process.env.TRANSPORT ?? 'ws';
assert(['ws', 'xhr_streaming', 'xhr_polling'].includes(TRANSPORT), `TRANSPORT is not a transport: ${TRANSPORT}`);

/** Test option: skip unless the transport is WebSockets. */
export const needsWebSockets = TRANSPORT === 'ws' ? {} : { skip: 'needs WebSockets' };

/** Whether messages of one client arrive in order. Over HTTP each message is a request, and requests may overtake each other. */
export const sendsInOrder = TRANSPORT === 'ws';

/** Whether these tests start their server. */
export const ownsProcess = process.env.SERVER_HOST === undefined;

/**
 * The apps of the test configuration. Their ids are digits, because the Python library rejects others. They also show that a
 * configuration value of digits stays a string.
 *
 * `app` has defaults. `counting` sends subscription counts. `strict` allows one origin, two connections and no client events. `random`
 * has a key from `openssl rand -base64 32`.
 */
export const APPS = ownsProcess
  ? {
      app: { id: '1001', key: 'app-key', secret: 'app-secret' },
      counting: { id: '1002', key: 'counting-key', secret: 'counting-secret' },
      strict: { id: '1003', key: 'strict-key', secret: 'strict-secret' },
      random: { id: '1004', key: 'MWfOjqT8cbGdjnb+QjvKoK1N/0qkOrPqKJ2rW7Z2aLo=', secret: 'pa$word12+/= ' },
    }
  : { app: appFromEnvironment() };

const CONFIG = `
[server]
host = "127.0.0.1"

[drain]
accept = "0s"
window = "200ms"

[[apps]]
id = "1001"
key = "app-key"
secret = "app-secret"
allowed_origins = ["*"]
client_events = true
subscription_count = false
watchlist = true

[[apps]]
id = "1002"
key = "counting-key"
secret = "counting-secret"
allowed_origins = ["*"]
client_events = true
subscription_count = true
watchlist = false

[[apps]]
id = "1003"
key = "strict-key"
secret = "strict-secret"
allowed_origins = ["good.example"]
client_events = false
subscription_count = false
watchlist = false
[apps.limits]
connections = 2

[[apps]]
id = "1004"
key = "MWfOjqT8cbGdjnb+QjvKoK1N/0qkOrPqKJ2rW7Z2aLo="
secret = "pa$word12+/= "
`;

function appFromEnvironment() {
  const missing = ['SERVER_PORT', 'APP_ID', 'APP_KEY', 'APP_SECRET'].filter((name) => !process.env[name]);
  if (missing.length > 0) {
    throw new Error(`SERVER_HOST needs these variables too: ${missing.join(', ')}`);
  }
  return { id: process.env.APP_ID, key: process.env.APP_KEY, secret: process.env.APP_SECRET };
}

/** Test option: skip unless the tests start their server. */
export const needsProcess = ownsProcess ? {} : { skip: 'needs a server that the tests start' };

/** Test option: skip unless the server is a cluster that these tests start. */
export const needsCluster = process.env.BINARY_IN_CLUSTER && ownsProcess ? {} : { skip: 'needs a cluster that the tests start' };

/** Test option: skip unless the server has the named app of the test configuration. */
export function needsApp(name) {
  return APPS[name] ? {} : { skip: `needs the app \`${name}\` of the test configuration` };
}

// === the server ===

/** Starts the server of one test file, stops it after the last test, and checks its exit code. */
export async function serve() {
  if (!ownsProcess) {
    return new Carillon(process.env.SERVER_HOST, Number(process.env.SERVER_PORT), null);
  }
  const carillon = await start();
  after(() => carillon.stop());
  return carillon;
}

/**
 * Starts `carillon up` and waits until it has printed both addresses. The caller stops it.
 *
 * `port` is 0 for any free port; a restart test passes the earlier port. `configuration` is TOML that replaces the default.
 */
export async function start({ port = 0, configuration = CONFIG } = {}) {
  const binary = process.env.BINARY_UNDER_TEST ?? join(REPOSITORY, 'target/release/carillon');
  try {
    accessSync(binary, constants.X_OK);
  } catch {
    throw new Error(`no executable at ${binary}: build it with \`cargo build --release\`, or set BINARY_UNDER_TEST`);
  }

  const folder = mkdtempSync(join(tmpdir(), 'carillon-clients-'));
  const config = join(folder, 'carillon.toml');
  writeFileSync(config, configuration);
  const child = spawn(binary, ['up', '--config', config, '--port', String(port), '--admin-port', '0'], {
    cwd: folder,
    env: environmentWithoutSettings(),
    stdio: ['ignore', 'pipe', 'pipe'],
  });

  let output = '';
  const exited = new Promise((settle) => {
    child.once('error', (error) => settle({ code: null, signal: null, error }));
    child.once('exit', (code, signal) => settle({ code, signal }));
  }).finally(() => rmSync(folder, { recursive: true, force: true }));

  const addresses = new Promise((settle) => {
    const onOutput = (chunk) => {
      output += chunk;
      const publicly = /^\s*public\s+http:\/\/([^:\s]+):(\d+)/m.exec(output);
      const admin = /^\s*admin\s+http:\/\/([^:\s]+):(\d+)/m.exec(output);
      if (publicly && admin) settle({ host: publicly[1], port: Number(publicly[2]), adminPort: Number(admin[2]) });
    };
    child.stdout.setEncoding('utf8').on('data', onOutput);
    child.stderr.setEncoding('utf8').on('data', (chunk) => (output += chunk));
  });

  const ended = exited.then((how) => {
    throw new Error(`carillon exited during its start (${JSON.stringify(how)}):\n${output}`);
  });
  try {
    const { host, port: bound, adminPort } = await within(
      Promise.race([addresses, ended]),
      () => `the start banner of carillon; its output is:\n${output}`,
      PROCESS_DEADLINE_MS,
    );
    ended.catch(() => {});
    return new Carillon(host, bound, { child, exited, adminPort, output: () => output });
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
}

/** Returns the environment without variables that the server reads as settings. */
function environmentWithoutSettings() {
  const setting = /^(CARILLON_|REVERB_|PUSHER_|REDIS_)/;
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !setting.test(name)));
}

class Carillon {
  #process;

  constructor(host, port, ownProcess) {
    this.host = host;
    this.port = port;
    this.#process = ownProcess;
  }

  /** The base URL of the public port. */
  get url() {
    return `http://${this.host}:${this.port}`;
  }

  /** The base URL of the admin listener; only for a server that the tests start. */
  get adminUrl() {
    return `http://${this.host}:${this.#process.adminPort}`;
  }

  /** Stops the server with SIGTERM. It must exit with code 0. */
  async stop() {
    const { code, signal } = await this.kill('SIGTERM');
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, `carillon exits cleanly:\n${this.#process.output()}`);
  }

  /** Restarts the gateways or publishers of a cluster one by one. Resolves with the times of their signals (ms since 1970). */
  async roll(role = 'gateway') {
    const { child, output } = this.#process;
    const rolled = new Promise((settle) => child.stdout.on('data', () => /^rolled$/m.test(output()) && settle()));
    child.kill(role === 'gateway' ? 'SIGUSR2' : 'SIGUSR1');
    await within(rolled, () => `each ${role} to be restarted:\n${output()}`, 2 * PROCESS_DEADLINE_MS);
    return [...output().matchAll(new RegExp(`^leaving ${role} (\\d+)$`, 'gm'))].map(([, time]) => Number(time));
  }

  /** Sends `signal` to the server and resolves with its exit code and signal. */
  async kill(signal) {
    const { child, exited } = this.#process;
    child.kill(signal);
    try {
      return await within(exited, () => `carillon to exit after ${signal}`, PROCESS_DEADLINE_MS);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  /** Returns an instance of the official Node server library for one app. */
  sender(app = 'app', options = {}) {
    const { id, key, secret } = APPS[app];
    return new PusherServer({
      appId: id,
      key,
      secret,
      host: this.host,
      port: this.port,
      useTLS: false,
      timeout: DEADLINE_MS,
      encryptionMasterKeyBase64: ENCRYPTION_KEY,
      ...options,
    });
  }

  /**
   * Returns a pusher-js client that disconnects when the test `t` ends. It connects at once; use `connected(client)` to wait.
   *
   * `user` is `{ id, info, watchlist }` for presence and sign-in. `authorize(socketId, channel)` replaces the channel signer and
   * `authenticate(socketId)` the user signer. `library` is another release of pusher-js.
   */
  client(t, { app = 'app', library = Pusher, options = {}, ...signing } = {}) {
    const client = new library(APPS[app]?.key ?? app, this.#options(app, signing, { cluster: '', ...options }));
    return this.#watch(t, client);
  }

  /**
   * Returns a Laravel Echo with a pusher-js client, which disconnects when the test ends. The options are those of `client`.
   */
  echo(t, { app = 'app', broadcaster = 'reverb', options = {}, ...signing } = {}) {
    const defaults = {
      broadcaster,
      key: APPS[app].key,
      Pusher,
      enabledTransports: TRANSPORT === 'ws' ? ['ws', 'wss'] : [TRANSPORT],
      ...(broadcaster === 'pusher' && { cluster: 'mt1' }),
      ...options,
    };
    const echo = new Echo(this.#options(app, signing, defaults));
    this.#watch(t, echo.connector.pusher);
    return echo;
  }

  /** Opens a plain WebSocket, for details that the client libraries hide: exact frames, close codes, subprotocols. */
  socket(t, { app = 'app', query = 'protocol=7&client=js&version=8.6.0&flash=false', protocols = [], origin } = {}) {
    const url = `ws://${this.host}:${this.port}/app/${APPS[app]?.key ?? app}?${query}`;
    const socket = new RawSocket(new WebSocket(url, protocols, { origin }));
    t.after(() => socket.terminate());
    return socket;
  }

  #options(app, { user, authorize, authenticate }, options) {
    const signer = APPS[app] ? this.sender(app) : undefined;
    const member = user && { user_id: user.id, user_info: user.info };
    const sign = authorize ?? ((socketId, name) => signer.authorizeChannel(socketId, name, name.startsWith('presence-') ? member : undefined));
    const identify = authenticate ?? ((socketId) => signer.authenticateUser(socketId, { id: user.id, user_info: user.info, watchlist: user.watchlist }));
    return {
      wsHost: this.host,
      wsPort: this.port,
      wssPort: this.port,
      httpHost: this.host,
      httpPort: this.port,
      httpsPort: this.port,
      forceTLS: false,
      enabledTransports: [TRANSPORT],
      // pusher-js prefers this option. It is omitted if a test has the older one.
      ...(!('authorizer' in options || 'authEndpoint' in options) && {
        channelAuthorization: { customHandler: ({ socketId, channelName }, done) => respond(done, () => sign(socketId, channelName)) },
      }),
      userAuthentication: { customHandler: ({ socketId }, done) => respond(done, () => identify(socketId)) },
      ...options,
    };
  }

  #watch(t, client) {
    client.errors = [];
    client.connection.bind('error', (error) => client.errors.push(error));
    t.after(() => client.disconnect());
    return client;
  }
}

function respond(done, sign) {
  let signed;
  try {
    signed = sign();
  } catch (error) {
    return done(error, null);
  }
  return done(null, signed);
}

/** Until `t` ends, pusher-js in Node connects with this `Origin` header, like a browser on that page. */
export function pretendOrigin(t, origin) {
  const original = Pusher.Runtime.getWebSocketAPI;
  Pusher.Runtime.getWebSocketAPI = () =>
    class extends WebSocket {
      constructor(url) {
        super(url, { origin });
      }
    };
  t.after(() => {
    Pusher.Runtime.getWebSocketAPI = original;
  });
}

// === waiting ===

/** Waits for the next `event` on an object with the `bind` of pusher-js, and returns its arguments. */
export function nextCall(target, event, ms = DEADLINE_MS) {
  let listener;
  const called = new Promise((settle) => {
    listener = (...args) => settle(args);
    target.bind(event, listener);
  });
  const where = target.name ?? target.constructor.name;
  return within(called, () => `\`${event}\` on ${where}`, ms).finally(() => target.unbind(event, listener));
}

/** Like `nextCall`, but returns the data of the event. Call it before the action that causes the event. */
export function next(target, event, ms = DEADLINE_MS) {
  const called = nextCall(target, event, ms).then(([data]) => data);
  called.catch(() => {});
  return called;
}

/** Waits for the next frame of a client that `matches`, decoded by pusher-js and including internal events. */
export function nextFrame(client, matches, what = 'a matching frame') {
  let listener;
  const seen = new Promise((settle) => {
    listener = (frame) => matches(frame) && settle(frame);
    client.connection.bind('message', listener);
  });
  const found = within(seen, () => `${what}; errors so far: ${JSON.stringify(client.errors)}`);
  return found.finally(() => client.connection.unbind('message', listener));
}

/** Waits for the next `pusher:error` of a client and returns its `{ code, message }`. */
export async function nextError(client) {
  const { data } = await nextFrame(client, (frame) => frame.event === 'pusher:error', 'pusher:error');
  return data;
}

/** Returns a list to which every event of the target is appended, as `{ event, data }`. */
export function record(target) {
  const seen = [];
  target.bind_global((event, data) => seen.push({ event, data }));
  return seen;
}

/** Waits until the client is connected, and returns it. */
export async function connected(client, ms = DEADLINE_MS) {
  if (client.connection.state !== 'connected') {
    const waiting = nextCall(client.connection, 'connected', ms);
    await waiting.catch((error) => {
      throw new Error(`${error.message}; state ${client.connection.state}, errors ${JSON.stringify(client.errors)}`);
    });
  }
  return client;
}

/** Waits until the subscription has succeeded, and returns the channel. */
export async function joined(channel) {
  if (!channel.subscribed) await next(channel, 'pusher:subscription_succeeded');
  return channel;
}

/** Subscribes to a channel and waits for the confirmation. */
export async function subscribe(client, name) {
  return joined(client.subscribe(name));
}

/** Requests with client messages that have no response yet. */
const sending = new Set();
const createSocketRequest = Pusher.Runtime.createSocketRequest;
Pusher.Runtime.createSocketRequest = (method, url) => {
  const request = createSocketRequest.call(Pusher.Runtime, method, url);
  if (/\/xhr_send\?/.test(url)) {
    const finished = new Promise((settle) => request.bind('finished', settle)).finally(() => sending.delete(finished));
    sending.add(finished);
  }
  return request;
};

/** Waits until the server has handled all earlier messages of a client, by a `pusher:ping` and its pong. */
export async function settled(client) {
  await connected(client);
  await within(Promise.all(sending), () => 'the responses to sent messages');
  const pong = nextFrame(client, (frame) => frame.event === 'pusher:pong', 'pusher:pong');
  client.connection.send_event('pusher:ping', {});
  await pong;
}

/** Publishes a marker on each channel and waits until each channel object receives it. Earlier events have then arrived. */
export async function marked(sender, ...channels) {
  const names = [...new Set(channels.map((channel) => channel.name))];
  const arrivals = channels.map((channel) => next(channel, 'marker'));
  for (const name of names) await sender.trigger(name, 'marker', {});
  await Promise.all(arrivals);
}

/** Returns the events of a recorded list except protocol events, markers and `events`. */
export function without(seen, ...events) {
  return seen.filter(({ event }) => !event.startsWith('pusher:') && event !== 'marker' && !events.includes(event));
}

// === utilities ===

/** Returns `prefix` with a unique suffix. */
export function unique(prefix) {
  return `${prefix}-${randomBytes(5).toString('hex')}`;
}

/** Returns the JSON body of a response of the Node server library. */
export const body = async (response) => (await response).json();
