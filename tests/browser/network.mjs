// The network between a page and Carillon: nodes, the nginx of deploy/nginx with optional restrictions on WebSockets and streams, and
// the pages.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { accessSync, constants, cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, request } from 'node:http';
import { createRequire } from 'node:module';
import { createServer as createSocketServer } from 'node:net';
import { join, resolve } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { APP, isListening, eventually, freePort, startProcess, temporaryFolder } from './harness.mjs';

const REPOSITORY = resolve(fileURLToPath(new URL('../..', import.meta.url)));
const EXAMPLES = join(REPOSITORY, 'examples');
const PusherServer = createRequire(join(EXAMPLES, 'package.json'))('pusher');

const LOOPBACK = '127.0.0.1';

/** A test that ends its resources in reverse order. A plain test context ends them in the order of their start. */
export function scenario(name, body) {
  return test(name, async (t) => {
    const cleanups = [];
    t.after(async () => {
      const errors = [];
      for (const end of cleanups.reverse()) await Promise.resolve().then(end).catch((error) => errors.push(error));
      assert.deepEqual(errors, [], 'all resources ended without errors');
    });
    await body({ after: (end) => cleanups.push(end) });
  });
}

// === nodes ===

/**
 * Starts one node and waits until it has printed its addresses: `{ host, port, url, adminUrl, stop(), kill(signal), startAgain() }`.
 *
 * `role` is `up`, or `gateway` or `publisher` with the URL of a `redis`. `server`, `app` and `drain` are lines for these TOML tables.
 */
export async function startNode(owner, { role = 'up', redis, server = '', app = '', drain = 'window = "100ms"' } = {}) {
  const binary = process.env.BINARY_UNDER_TEST ?? join(REPOSITORY, 'target/release/carillon');
  accessSync(binary, constants.X_OK);
  const folder = temporaryFolder(owner);
  const config = join(folder, 'carillon.toml');
  const lines = ['[server]', `host = "${LOOPBACK}"`, server, '[drain]', 'accept = "0s"', drain, '[peers]', `host = "${LOOPBACK}"`];
  lines.push('[[apps]]', `id = "${APP.id}"`, `key = "${APP.key}"`, `secret = "${APP.secret}"`, app);
  writeFileSync(config, lines.join('\n'));

  const node = { host: LOOPBACK };
  let running;
  const start = async (port) => {
    const parameters = [role, '--config', config, '--port', String(port), '--admin-port', '0', ...(redis ? ['--redis', redis] : [])];
    const ready = /^\s*public\s+http:\/\/[^:\s]+:(\d+)[^]*?^\s*admin\s+(http:\/\/\S+)/m;
    running = await startProcess(binary, parameters, { folder, ready });
    node.port = Number(running.ready[1]);
    node.adminUrl = running.ready[2];
    node.url = `http://${LOOPBACK}:${node.port}`;
    await eventually(async () => (await fetch(`${node.adminUrl}/readyz`)).ok, `${role} to be ready`);
  };
  await start(0);
  owner.after(() => running.stop());
  return Object.assign(node, {
    stop: () => running.stop(),
    kill: (signal) => running.kill(signal),
    /** Starts the node on its previous port. */
    startAgain: () => start(node.port),
  });
}

/** Starts an empty Redis. Resolves with its URL. */
export async function startRedis(owner) {
  const folder = temporaryFolder(owner);
  const start = (port) => startProcess('redis-server', ['--port', String(port), '--bind', LOOPBACK, '--save', '', '--dir', folder], { folder });
  const { port } = await onFreePort(owner, start, isListening, 'Redis to listen');
  return `redis://${LOOPBACK}:${port}`;
}

/** Starts a process that needs a port, with another port if the first one is taken. Resolves with `{ port, ...process }`. */
async function onFreePort(owner, start, isUp, what) {
  for (;;) {
    const port = await freePort();
    const started = await start(port);
    let hasExited = false;
    started.exited.then(() => (hasExited = true));
    owner.after(started.stop);
    await eventually(async () => hasExited || (await isUp(port)), what);
    if (!hasExited) return { port, ...started };
  }
}

/** Returns an instance of the official server library for the app of the tests. */
export function sender({ host, port }) {
  return new PusherServer({ appId: APP.id, key: APP.key, secret: APP.secret, host, port, useTLS: false });
}

/** Returns the sum of a metric over some nodes. `labels`, such as `kind="send"`, selects values. */
export async function metric(nodes, name, labels = '') {
  const texts = await Promise.all(nodes.map(async ({ adminUrl }) => (await fetch(`${adminUrl}/metrics`)).text()));
  const values = texts.join('\n').split('\n').filter((line) => line.replace('{', ' ').startsWith(`${name} `) && line.includes(labels));
  return values.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

// === nginx ===

/**
 * A network without restrictions. `webSockets` decides on WebSocket handshakes: `allowed`, `forbidden` (403), `unanswered` (accepted
 * without a response), `reset`. `streams` decides on `xhr_streaming`: `allowed`, `forbidden`, `buffered` (by a proxy until the response
 * ends). `sticky` sends the requests of a session to one node; otherwise nodes alternate.
 */
const OPEN = { webSockets: 'allowed', streams: 'allowed', sticky: true };

/**
 * Starts Debian's nginx with the files of deploy/nginx: `{ host, port, url, setNetwork(network) }`.
 *
 * `gateways` and `publishers` are nodes. `pages` is the server of all other paths. `tls` enables TLS with a self-signed certificate.
 * `setNetwork` changes the network and reloads nginx.
 */
export async function startNginx(owner, { gateways, publishers = gateways, pages, tls = false, network = {} }) {
  const folder = temporaryFolder(owner);
  const silentPort = await startSilentServer(owner);
  if (tls) makeCertificate(folder);
  let generation = 0;
  const write = (port, changes) => {
    generation += 1;
    writeConfiguration(folder, { gateways, publishers, pages, tls, port, silentPort, generation, network: { ...OPEN, ...changes } });
  };
  const start = (port) => {
    write(port, network);
    return startProcess('nginx', ['-e', 'stderr', '-p', folder, '-c', 'nginx.conf', '-g', 'daemon off;'], { folder });
  };
  const isServed = async (port) => (await generationOf(port, tls)) === String(generation);
  const { port, signal } = await onFreePort(owner, start, isServed, 'nginx to serve');
  const scheme = tls ? 'https' : 'http';
  return {
    host: LOOPBACK,
    port,
    url: `${scheme}://${LOOPBACK}:${port}`,
    setNetwork: async (changes) => {
      write(port, changes);
      signal('SIGHUP');
      await eventually(() => isServed(port), 'nginx to serve the new configuration');
    },
  };
}

function writeConfiguration(folder, { gateways, publishers, pages, tls, port, silentPort, generation, network }) {
  cpSync(join(REPOSITORY, 'deploy/nginx'), folder, { recursive: true });
  const listen = (name, text) => writeFileSync(join(folder, `carillon/${name}.conf`), `listen ${text}\n`);
  listen('listen', `${LOOPBACK}:${port}${tls ? ' ssl;\ninclude carillon/tls.conf' : ''};`);
  listen('listen-plain', `unix:${folder}/plain;`);
  listen('listen-status', `unix:${folder}/status;`);

  const edit = (name, ...changes) => {
    const path = join(folder, name);
    let text = readFileSync(path, 'utf8');
    for (const [from, to] of changes) {
      const changed = text.replace(from, to);
      if (changed === text) throw new Error(`deploy/nginx/${name} does not contain ${from}`);
      text = changed;
    }
    writeFileSync(path, text);
  };
  const servers = (nodes) => nodes.map((node) => `    server ${LOOPBACK}:${node.port} max_fails=0;\n`).join('');
  const upstream = (name, nodes) => [new RegExp(`(upstream ${name} \\{[^}]*?)(?: *server .*\\n)+`), `$1${servers(nodes)}`];
  edit('carillon/upstreams.conf', upstream('carillon_gateways', gateways), upstream('carillon_gateways_by_session', gateways));
  edit('carillon/upstreams.conf', upstream('carillon_publishers', publishers));
  if (!network.sticky) edit('carillon/upstreams.conf', [/ *hash \$carillon_session.*\n/, '']);

  const refusals = { forbidden: 'return 403;', unanswered: `proxy_pass http://${LOOPBACK}:${silentPort};`, reset: 'return 444;' };
  const refusal = refusals[network.webSockets];
  if (refusal) edit('carillon/routes.conf', ['proxy_pass http://carillon_gateways;', refusal]);
  if (network.streams === 'forbidden') {
    edit('carillon/routes.conf', ['proxy_pass http://carillon_gateways_by_session;', 'if ($uri ~ xhr_streaming$) { return 403; }\n    $&']);
  }
  if (network.streams === 'buffered') {
    // nginx forwards the chunks of an HTTP/1.1 response even with buffering.
    edit('carillon/proxy.conf', ['proxy_buffering off;', 'proxy_buffering on;\nproxy_ignore_headers X-Accel-Buffering;']);
    edit('carillon/proxy.conf', ['proxy_http_version 1.1;', 'proxy_http_version 1.0;']);
  }
  const application = `include carillon/proxy.conf;\n    proxy_set_header Connection '';\n    proxy_pass ${pages};`;
  edit('carillon/routes.conf', [/(\nlocation \/ \{\s*)return 404;/, `$1${application}`]);
  edit('carillon/routes.conf', [/$(?![^])/, `\nlocation = /generation { return 200 ${generation}; }\n`]);

  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/${kind};`).join('\n');
  edit('conf.d/carillon.conf', ['/var/log/nginx/', `${folder}/`], [/^/, `${temporary}\n`]);
  edit('nginx.conf', ['/var/log/nginx/error.log warn', 'stderr warn'], ['/run/nginx.pid', `${folder}/nginx.pid`]);
  edit('nginx.conf', ['worker_processes auto;', `worker_processes 1;${process.getuid() === 0 ? '\nuser root;' : ''}`]);
  edit('nginx.conf', [/worker_rlimit_nofile.*/, ''], ['worker_connections 65536', 'worker_connections 1024']);
}

/** Starts a server that accepts connections and sends nothing. Returns its port. */
async function startSilentServer(owner) {
  const sockets = new Set();
  const server = createSocketServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket)).resume();
  });
  await new Promise((settle) => server.listen(0, LOOPBACK, settle));
  owner.after(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return server.address().port;
}

function makeCertificate(folder) {
  mkdirSync(join(folder, 'tls'));
  const files = ['-keyout', join(folder, 'tls/privkey.pem'), '-out', join(folder, 'tls/fullchain.pem')];
  const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '1', '-subj', `/CN=${LOOPBACK}`];
  execFileSync('openssl', ['req', '-x509', ...kind, ...files], { stdio: 'pipe' });
}

/** Returns the number of the configuration that nginx serves. Each call opens a connection, since open ones survive a reload. */
async function generationOf(port, tls) {
  const open = tls ? (await import('node:https')).request : request;
  return new Promise((settle) => {
    const sent = open({ host: LOOPBACK, port, path: '/generation', agent: false, rejectUnauthorized: false }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk) => (text += chunk)).on('end', () => settle(text));
    });
    sent.on('error', () => settle(null)).end();
  });
}

// === pages ===

/**
 * Serves `pages/fallback.html` with unmodified pusher-js and Laravel Echo. Authorizes the user in `?user=` at the default paths of
 * pusher-js and Echo. Resolves with the URL.
 */
export async function servePages(owner) {
  const files = {
    '/': ['text/html', join(REPOSITORY, 'tests/browser/pages/fallback.html')],
    '/pusher.js': ['text/javascript', join(EXAMPLES, 'node_modules/pusher-js/dist/web/pusher.js')],
    '/echo.js': ['text/javascript', join(EXAMPLES, 'node_modules/laravel-echo/dist/echo.iife.js')],
  };
  const signer = sender({ host: LOOPBACK, port: 1 });
  const server = createServer(async (request, response) => {
    const url = new URL(request.url, 'http://page');
    const [type, file] = files[url.pathname] ?? [];
    if (file) {
      const user = url.searchParams.get('user');
      const cookie = user ? { 'Set-Cookie': `user=${user}; Path=/` } : {};
      response.writeHead(200, { 'Content-Type': `${type}; charset=utf-8`, ...cookie }).end(readFileSync(file));
    } else if (request.method === 'POST' && ['/pusher/auth', '/broadcasting/auth'].includes(url.pathname)) {
      const body = new URLSearchParams(await read(request));
      const [id, channel] = [/user=(\w+)/.exec(request.headers.cookie)?.[1], body.get('channel_name')];
      const member = channel.startsWith('presence-') ? { user_id: id, user_info: { name: id } } : undefined;
      const answer = JSON.stringify(signer.authorizeChannel(body.get('socket_id'), channel, member));
      response.writeHead(200, { 'Content-Type': 'application/json' }).end(answer);
    } else {
      response.writeHead(404).end();
    }
  });
  await new Promise((settle) => server.listen(0, LOOPBACK, settle));
  owner.after(() => new Promise((settle) => (server.closeAllConnections(), server.close(settle))));
  return `http://${LOOPBACK}:${server.address().port}`;
}

async function read(request) {
  let text = '';
  for await (const chunk of request.setEncoding('utf8')) text += chunk;
  return text;
}
