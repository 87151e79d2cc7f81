// What every test file here stands on: a running Carillon, official clients pointed at it, and ways to wait for what they hear.
// Two modes. By default each test file starts its own `carillon up` on free ports and stops it with SIGTERM, which must end in exit
// code 0. With SERVER_HOST, SERVER_PORT and APP_ID, APP_KEY, APP_SECRET set, the tests use a server that is already running, and
// those that need a process or an app of their own are skipped. Names of channels and users are unique per test, so test files can
// share one server.
// Nothing sleeps: a test waits for an event with a deadline, and proves silence with a marker event that is sent afterwards.

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

/** How long the process may take to print its banner, or to leave after SIGTERM. */
const PROCESS_DEADLINE_MS = 20_000;

/** The key of all encrypted channels in these tests (protocol reference 10). */
export const ENCRYPTION_KEY = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=';

/**
 * What clients connect over: `ws`, or one of the transports that pusher-js falls back to. Only the raw sockets of a test are always
 * WebSockets.
 */
const TRANSPORT = process.env.TRANSPORT ?? 'ws';
assert(['ws', 'xhr_streaming', 'xhr_polling'].includes(TRANSPORT), `TRANSPORT names no transport: ${TRANSPORT}`);

/** Test option: skip unless clients connect over WebSockets, which this test is about. */
export const needsWebSockets = TRANSPORT === 'ws' ? {} : { skip: 'is about WebSockets' };

/** Whether what one client sends arrives in order. Over HTTP each message is a request, and one may overtake another. */
export const sendsInOrder = TRANSPORT === 'ws';

/** True when these tests start and stop their own server; false against one that is already running. */
export const ownsProcess = process.env.SERVER_HOST === undefined;

/**
 * The apps of the test configuration. Ids are digits because the Python library refuses any other; a string of digits also shows
 * that a configuration value which looks like a number stays a string.
 *
 * `app` has defaults, `counting` sends subscription counts, `strict` admits one origin and two connections, and no client events,
 * `random` has a key as `openssl rand -base64 32` makes them.
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
    throw new Error(`SERVER_HOST is set, so these must be set too: ${missing.join(', ')}`);
  }
  return { id: process.env.APP_ID, key: process.env.APP_KEY, secret: process.env.APP_SECRET };
}

/** Test option: skip unless the tests own the server process. */
export const needsProcess = ownsProcess ? {} : { skip: 'needs a server process of its own' };

/** Test option: skip unless the server is a cluster that these tests start. */
export const needsCluster = process.env.BINARY_IN_CLUSTER && ownsProcess ? {} : { skip: 'needs a cluster of its own' };

/** Test option: skip unless the server has the named app of the test configuration. */
export function needsApp(name) {
  return APPS[name] ? {} : { skip: `needs the app \`${name}\` of the test configuration` };
}

// === the server ===

/** The server of one test file: started now, stopped after its last test, with its exit code checked. */
export async function serve() {
  if (!ownsProcess) {
    return new Carillon(process.env.SERVER_HOST, Number(process.env.SERVER_PORT), null);
  }
  const carillon = await start();
  after(() => carillon.stop());
  return carillon;
}

/**
 * Starts `carillon up` and resolves once it has printed both addresses. The caller stops it.
 *
 * `port`: 0 for any free one; a restart test passes the port that it got first. `configuration`: TOML instead of the usual.
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
    throw new Error(`carillon ended before it was up (${JSON.stringify(how)}):\n${output}`);
  });
  try {
    const { host, port: bound, adminPort } = await within(
      Promise.race([addresses, ended]),
      () => `the start banner of carillon; it printed:\n${output}`,
      PROCESS_DEADLINE_MS,
    );
    ended.catch(() => {});
    return new Carillon(host, bound, { child, exited, adminPort, output: () => output });
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
}

/** The environment for a child, without variables that the server would read as settings. */
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

  /** Base URL of the public port. */
  get url() {
    return `http://${this.host}:${this.port}`;
  }

  /** Base URL of the admin listener; only of a server started here. */
  get adminUrl() {
    return `http://${this.host}:${this.#process.adminPort}`;
  }

  /** Stops the server as an operator would; it must leave by itself, with exit code 0. */
  async stop() {
    const { code, signal } = await this.kill('SIGTERM');
    assert.deepEqual({ code, signal }, { code: 0, signal: null }, `carillon should end cleanly:\n${this.#process.output()}`);
  }

  /** Restarts a cluster's gateways one after the other, or its publishers; resolves with when each was told (ms since 1970). */
  async roll(role = 'gateway') {
    const { child, output } = this.#process;
    const rolled = new Promise((settle) => child.stdout.on('data', () => /^rolled$/m.test(output()) && settle()));
    child.kill(role === 'gateway' ? 'SIGUSR2' : 'SIGUSR1');
    await within(rolled, () => `each ${role} to be back:\n${output()}`, 2 * PROCESS_DEADLINE_MS);
    return [...output().matchAll(new RegExp(`^leaving ${role} (\\d+)$`, 'gm'))].map(([, told]) => Number(told));
  }

  /** Sends `signal` to the server's process and resolves with how it ended. */
  async kill(signal) {
    const { child, exited } = this.#process;
    child.kill(signal);
    try {
      return await within(exited, () => `carillon to leave after ${signal}`, PROCESS_DEADLINE_MS);
    } catch (error) {
      child.kill('SIGKILL');
      throw error;
    }
  }

  /** An instance of the official Node server library for one app. */
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
   * A pusher-js client that disconnects when the test `t` ends. It connects at once; await `connected(client)` where it matters.
   *
   * `user`: `{ id, info, watchlist }` for presence and sign-in. `authorize(socketId, channel)` replaces the signer for channels,
   * `authenticate(socketId)` the one for sign-in. `library`: another release of pusher-js.
   */
  client(t, { app = 'app', library = Pusher, options = {}, ...signing } = {}) {
    const client = new library(APPS[app]?.key ?? app, this.#options(app, signing, { cluster: '', ...options }));
    return this.#watch(t, client);
  }

  /**
   * A Laravel Echo with a pusher-js client inside, which disconnects when the test ends; options as for `client`.
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

  /** A plain WebSocket for what the client libraries hide: exact frames, close codes, subprotocols. */
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
      // pusher-js prefers this one, so it is left out where a test brings the older form of its own.
      ...(!('authorizer' in options || 'authEndpoint' in options) && {
        channelAuthorization: { customHandler: ({ socketId, channelName }, done) => answer(done, () => sign(socketId, channelName)) },
      }),
      userAuthentication: { customHandler: ({ socketId }, done) => answer(done, () => identify(socketId)) },
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

function answer(done, sign) {
  let signed;
  try {
    signed = sign();
  } catch (error) {
    return done(error, null);
  }
  return done(null, signed);
}

/** From now until `t` ends, pusher-js in Node connects with this `Origin` header, as a browser on that page would. */
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

/** The arguments of the next `event` on anything with pusher-js' `bind`: a channel, a connection, a user, a watchlist. */
export function nextCall(target, event, ms = DEADLINE_MS) {
  let listener;
  const called = new Promise((settle) => {
    listener = (...args) => settle(args);
    target.bind(event, listener);
  });
  const where = target.name ?? target.constructor.name;
  return within(called, () => `\`${event}\` on ${where}`, ms).finally(() => target.unbind(event, listener));
}

/** The data of the next `event`; as `nextCall`. Bind before what causes it. */
export function next(target, event, ms = DEADLINE_MS) {
  const called = nextCall(target, event, ms).then(([data]) => data);
  called.catch(() => {});
  return called;
}

/** The next frame of a client's connection that `matches`, decoded by pusher-js; `connection` sees every frame, internal ones too. */
export function nextFrame(client, matches, what = 'a certain frame') {
  let listener;
  const seen = new Promise((settle) => {
    listener = (frame) => matches(frame) && settle(frame);
    client.connection.bind('message', listener);
  });
  const found = within(seen, () => `${what}; errors so far: ${JSON.stringify(client.errors)}`);
  return found.finally(() => client.connection.unbind('message', listener));
}

/** The next `pusher:error` frame of a client, its `{ code, message }`. */
export async function nextError(client) {
  const { data } = await nextFrame(client, (frame) => frame.event === 'pusher:error', 'pusher:error');
  return data;
}

/** A list that grows with each event on the target, in order, as `{ event, data }`. */
export function record(target) {
  const seen = [];
  target.bind_global((event, data) => seen.push({ event, data }));
  return seen;
}

/** Resolves with the client once it is connected. */
export async function connected(client, ms = DEADLINE_MS) {
  if (client.connection.state !== 'connected') {
    const waiting = nextCall(client.connection, 'connected', ms);
    await waiting.catch((error) => {
      throw new Error(`${error.message}; state ${client.connection.state}, errors ${JSON.stringify(client.errors)}`);
    });
  }
  return client;
}

/** Resolves with the channel once its subscription has succeeded. */
export async function joined(channel) {
  if (!channel.subscribed) await next(channel, 'pusher:subscription_succeeded');
  return channel;
}

/** Subscribes and waits for success. */
export async function subscribe(client, name) {
  return joined(client.subscribe(name));
}

/** Requests that carry messages of clients and are not answered yet. */
const sending = new Set();
const createSocketRequest = Pusher.Runtime.createSocketRequest;
Pusher.Runtime.createSocketRequest = (method, url) => {
  const request = createSocketRequest.call(Pusher.Runtime, method, url);
  if (/\/xhr_send\?/.test(url)) {
    const answered = new Promise((settle) => request.bind('finished', settle)).finally(() => sending.delete(answered));
    sending.add(answered);
  }
  return request;
};

/** Resolves once the server has handled everything that this client sent before: a `pusher:ping` and its pong. */
export async function settled(client) {
  await connected(client);
  await within(Promise.all(sending), () => 'the server to take what clients sent');
  const pong = nextFrame(client, (frame) => frame.event === 'pusher:pong', 'pusher:pong');
  client.connection.send_event('pusher:ping', {});
  await pong;
}

/** Publishes a marker on each channel object's name and waits until each has received it: all that came before has arrived. */
export async function marked(sender, ...channels) {
  const names = [...new Set(channels.map((channel) => channel.name))];
  const arrivals = channels.map((channel) => next(channel, 'marker'));
  for (const name of names) await sender.trigger(name, 'marker', {});
  await Promise.all(arrivals);
}

/** Events of a recorded list without the library's own and without markers. */
export function without(seen, ...events) {
  return seen.filter(({ event }) => !event.startsWith('pusher:') && event !== 'marker' && !events.includes(event));
}

// === small things ===

/** `prefix` with a suffix that no other test has. */
export function unique(prefix) {
  return `${prefix}-${randomBytes(5).toString('hex')}`;
}

/** The JSON body of a response of the Node server library. */
export const body = async (response) => (await response).json();
