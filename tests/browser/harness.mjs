// The environment of the browser tests: a Carillon, the server of an example, an nginx that refuses WebSockets, a plain page for tests
// of pusher-js alone, and Chromium.
// Everything starts on free ports from temporary directories. It ends with its `owner`, a test context or another object with
// `after(callback)`. Processes are ended by process id, never by name.
// Tests do not sleep. A wait has a condition and a deadline, and its error reports the actual state.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { accessSync, constants, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, createServer as createSocketServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

const REPOSITORY = resolve(fileURLToPath(new URL('../..', import.meta.url)));

/** The deadline for an expected change. It exceeds the slowest retry of pusher-js in these tests. Only failing tests reach it. */
export const DEADLINE_MS = 60_000;

/** The deadline for a process to start, and to exit after SIGTERM. */
const PROCESS_DEADLINE_MS = 30_000;

/** The app of every test, with the defaults of `carillon up` and of the examples. */
export const APP = { id: 'app-id', key: 'app-key', secret: 'app-secret' };

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };

const CONFIGURATION = `
[server]
host = "127.0.0.1"

[drain]
accept = "0s"
window = "100ms"

[[apps]]
id = "${APP.id}"
key = "${APP.key}"
secret = "${APP.secret}"
`;

// === processes ===

/**
 * Starts `carillon up` and waits until it has printed its address: `{ host, port, url, stop(), startAgain() }`.
 *
 * `stop()` sends SIGTERM. `startAgain()` uses the same port. `configuration` is TOML that replaces the default.
 */
export async function startCarillon(owner, { configuration = CONFIGURATION } = {}) {
  const binary = process.env.BINARY_UNDER_TEST ?? join(REPOSITORY, 'target/release/carillon');
  try {
    accessSync(binary, constants.X_OK);
  } catch {
    throw new Error(`no executable at ${binary}: build it with \`cargo build --release\`, or set BINARY_UNDER_TEST`);
  }
  const folder = temporaryFolder(owner);
  const config = join(folder, 'carillon.toml');
  writeFileSync(config, configuration);

  const { ready, stop, startAgain } = await keepRunning(owner, (before) => {
    const parameters = ['up', '--config', config, '--port', before?.[2] ?? '0', '--admin-port', '0'];
    return startProcess(binary, parameters, { folder, ready: /^\s*public\s+http:\/\/([^:\s]+):(\d+)/m });
  });
  const [, host, port] = ready;
  return { host, port: Number(port), url: `http://${host}:${port}`, stop, startAgain };
}

/**
 * Starts `examples/<name>/server.mjs` on a free port, for a Carillon at `address` (`{ host, port }`, as returned by `startCarillon` and
 * `startProxy`): `{ url, stop(), startAgain() }`. `environment` has further variables.
 */
export async function startExample(owner, name, address, environment = {}) {
  const folder = join(REPOSITORY, 'examples');
  const { ready, stop, startAgain } = await keepRunning(owner, (before) =>
    startProcess(process.execPath, [join(folder, name, 'server.mjs')], {
      folder,
      ready: /(http:\/\/[^:\s]+:(\d+))/,
      environment: { PORT: before?.[2] ?? '0', REVERB_HOST: address.host, REVERB_PORT: String(address.port), ...environment },
    }),
  );
  return { url: ready[1], stop, startAgain };
}

/**
 * Starts an nginx in front of `carillon` that acts like a strict proxy: `{ host, port, url, stop(), startAgain() }`.
 *
 * It forwards all requests but WebSocket handshakes on `/app/`, which get 403. With `webSockets: true`, it forwards these too.
 * `directives` are further lines for its `server` block.
 */
export async function startProxy(owner, carillon, { webSockets = false, directives = '' } = {}) {
  const folder = temporaryFolder(owner);
  const port = await freePort();
  const config = join(folder, 'nginx.conf');
  const upgrades = webSockets
    ? 'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
    : 'if ($http_upgrade) { return 403; }';
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${folder}/${kind};`);
  writeFileSync(
    config,
    `daemon off;
    master_process off;
    pid ${folder}/nginx.pid;
    error_log stderr warn;
    events { worker_connections 512; }
    http {
      access_log off;
      ${temporary.join('\n      ')}
      server {
        listen 127.0.0.1:${port};
        proxy_http_version 1.1;
        proxy_read_timeout 1h;
        proxy_buffering off;
        ${directives}
        location /app/ { ${upgrades} proxy_pass ${carillon.url}; }
        location / { proxy_set_header Connection ""; proxy_pass ${carillon.url}; }
      }
    }`,
  );
  const { stop, startAgain } = await keepRunning(owner, async () => {
    const nginx = await startProcess('nginx', ['-e', 'stderr', '-c', config, '-p', folder], { folder });
    await eventually(() => isListening(port), `nginx on port ${port}`, PROCESS_DEADLINE_MS);
    return nginx;
  });
  return { host: '127.0.0.1', port, url: `http://127.0.0.1:${port}`, stop, startAgain };
}

/**
 * Runs the process of `start` until `stop()` or until its owner ends. `startAgain()` calls `start` again with the first match of `ready`.
 * The owner's callback is registered only here: `after` of `node:test` belongs to the running test, and `startAgain` runs in one test of
 * many.
 */
async function keepRunning(owner, start) {
  let running = await start();
  const { ready } = running;
  owner.after(() => running.stop());
  const startAgain = async () => {
    running = await start(ready);
  };
  return { ready, stop: () => running.stop(), startAgain };
}

/**
 * Runs a program until `stop()`. With the pattern `ready`, waits until its output matches; the match is `ready` of the result.
 * `signal(name)` sends a signal. `kill(name)` also waits for the exit. `exited` resolves after any exit.
 */
export async function startProcess(program, parameters, { folder, ready, environment = {} }) {
  const setting = /^(CARILLON_|REVERB_|VITE_REVERB_|PUSHER_|REDIS_|PORT$|HOST$)/;
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !setting.test(name)));
  const child = spawn(program, parameters, { cwd: folder, env: { ...inherited, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const exited = new Promise((settle) => {
    child.once('error', (error) => settle({ error }));
    child.once('exit', (code, signal) => settle({ code, signal }));
  });
  const stop = async () => {
    if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
    child.kill('SIGTERM');
    await within(exited, `${program} to exit after SIGTERM; its output is:\n${output}`, PROCESS_DEADLINE_MS).catch((error) => {
      child.kill('SIGKILL');
      throw error;
    });
  };

  const matched = new Promise((settle) => {
    const read = (chunk) => {
      output += chunk;
      const match = ready?.exec(output);
      if (match) settle(match);
    };
    child.stdout.setEncoding('utf8').on('data', read);
    child.stderr.setEncoding('utf8').on('data', (chunk) => (output += chunk));
    if (!ready) child.once('spawn', () => settle(null));
  });
  const ended = exited.then((how) => {
    throw new Error(`${program} exited during its start (${JSON.stringify(how)}):\n${output}`);
  });
  ended.catch(() => {});
  const match = await within(
    Promise.race([matched, ended]),
    () => `${program} to start; its output is:\n${output}`,
    PROCESS_DEADLINE_MS,
  ).catch((error) => {
    child.kill('SIGKILL');
    throw error;
  });
  const signal = (name) => child.kill(name);
  const kill = (name) => (signal(name), within(exited, `${program} to exit after ${name}`, PROCESS_DEADLINE_MS));
  return { ready: match, stop, signal, kill, exited };
}

// === pages ===

/**
 * Serves a page on a separate origin with only pusher-js as `window.Pusher`, for tests of the client library alone. Resolves with its
 * address. The version is the one of the examples.
 */
export async function servePlainPage(owner) {
  const library = join(REPOSITORY, 'examples/node_modules/pusher-js/dist/web/pusher.js');
  assert(existsSync(library), 'pusher-js is not installed: run `npm ci` in examples/');
  const files = {
    '/': [
      'text/html',
      '<!doctype html><meta charset="utf-8"><title>plain</title><link rel="icon" href="data:,"><script src="/pusher.js"></script>',
    ],
    '/pusher.js': ['text/javascript', readFileSync(library)],
  };
  const server = createServer((request, response) => {
    const [type, body] = files[request.url] ?? [];
    response.writeHead(body ? 200 : 404, { 'Content-Type': `${type ?? 'text/plain'}; charset=utf-8` }).end(body);
  });
  await new Promise((settle) => server.listen(0, '127.0.0.1', settle));
  owner.after(() => new Promise((settle) => (server.closeAllConnections(), server.close(settle))));
  return `http://127.0.0.1:${server.address().port}/`;
}

/** Starts headless Chromium from Debian, or from `CHROMIUM`. `parameters` are further command-line arguments. */
export async function launch(owner, parameters = []) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-proxy-server', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), ...parameters],
    timeout: DEADLINE_MS,
  });
  owner.after(() => browser.close());
  return browser;
}

/** Opens `url` in a separate browser context, which shares nothing with other pages. `context` has options of Playwright. */
export async function open(owner, browser, url, context = {}) {
  const fresh = await browser.newContext({ viewport: DESKTOP, reducedMotion: 'reduce', ...context });
  owner.after(() => fresh.close());
  const page = await fresh.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.lines = [];
  page.failures = [];
  page.on('console', (message) => page.lines.push(`${message.type()}: ${message.text()}`));
  page.on('pageerror', (error) => page.failures.push(error.stack ?? String(error)));
  await page.goto(url);
  // A reload removes this property, which `expectUnchanged` detects.
  await page.evaluate(() => (window.openedByTest = true));
  return page;
}

/** Asserts that the pages were not reloaded and had no uncaught errors. */
export async function expectUnchanged(...pages) {
  for (const page of pages) {
    assert.equal(await page.evaluate(() => window.openedByTest), true, 'the page was not reloaded');
    assert.deepEqual(page.failures, [], 'errors of the page');
  }
}

/** Waits until an element that matches `selector` contains `text` (a string or a pattern). Resolves with its locator. */
export async function expectText(page, selector, text, ms = DEADLINE_MS) {
  const found = page.locator(selector).filter({ hasText: text, visible: true }).first();
  await found.waitFor({ timeout: ms }).catch(async (error) => {
    const there = await page
      .locator(selector)
      .allInnerTexts()
      .catch(() => ['(the page is closed)']);
    const lines = [...page.failures, ...page.lines.slice(-12)].join('\n  ');
    throw new Error(`waited ${ms} ms for ${text} in \`${selector}\`, which contains ${JSON.stringify(there)}\n  ${lines}`, { cause: error });
  });
  return found;
}

/** Waits until no element that matches `selector` contains `text`. */
export async function expectNoText(page, selector, text, ms = DEADLINE_MS) {
  const found = page.locator(selector).filter({ hasText: text, visible: true });
  await eventually(
    async () => (await found.count()) === 0,
    () => `${text} to disappear from \`${selector}\``,
    ms,
  );
}

/** Presses Tab until the focus is on `selector`. Asserts that the focus is visible. */
export async function tabTo(page, selector, presses = 120) {
  for (let pressed = 0; pressed < presses; pressed += 1) {
    const focus = await page.evaluate((target) => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      return { there: element.matches(target), ring: outlineStyle !== 'none' && parseFloat(outlineWidth) > 0 };
    }, selector);
    if (focus.there) {
      assert(focus.ring, `the focus on \`${selector}\` has a ring`);
      return;
    }
    await page.keyboard.press('Tab');
  }
  assert.fail(`${presses} presses of Tab did not reach \`${selector}\``);
}

/** Asserts that a page is not wider than its window. */
export async function expectFits(page) {
  const {
    content,
    window: width,
    widest,
  } = await page.evaluate(() => {
    const wide = [...document.querySelectorAll('body *')].filter((element) => element.getBoundingClientRect().right > innerWidth + 1);
    const names = wide.map((element) => `${element.tagName.toLowerCase()}.${element.className}`).slice(0, 5);
    return { content: document.documentElement.scrollWidth, window: innerWidth, widest: names };
  });
  assert(content <= width, `the page is ${content} px wide in a window of ${width} px: ${widest.join(', ')}`);
}

// === waiting ===

/** Resolves like `promise`, or rejects with `what` in the message after `ms`. */
export function within(promise, what, ms = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${typeof what === 'function' ? what() : what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Calls `check` repeatedly and resolves with its first truthy result. */
export async function eventually(check, what, ms = DEADLINE_MS) {
  const deadline = Date.now() + ms;
  for (;;) {
    const result = await check();
    if (result) return result;
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms for ${typeof what === 'function' ? what() : what}`);
    await new Promise((settle) => setTimeout(settle, 50));
  }
}

// === utilities ===

/**
 * Signs in at an example's server without a page. `post(path, body)` resolves with the status and the members of the response.
 * `bearer` has the header of its session.
 */
export async function apiOf(example, who) {
  const send = async (path, headers, body) => {
    const response = await fetch(example.url + path, { method: 'POST', headers, body });
    return { status: response.status, ...(await response.json()) };
  };
  const { token, user } = await send('/session', { 'Content-Type': 'application/json' }, JSON.stringify(who));
  const bearer = { Authorization: `Bearer ${token}` };
  return {
    user,
    bearer,
    post: (path, body = {}) => send(path, { ...bearer, 'Content-Type': 'application/json' }, JSON.stringify(body)),
    /** Returns the status of an authorization request for a channel, as pusher-js sends it. */
    authorizationStatus: async (channel, headers = bearer) =>
      (await send('/broadcasting/auth', headers, new URLSearchParams({ socket_id: '1.1', channel_name: channel }))).status,
  };
}

/** Creates a folder that is removed when its owner ends. */
export function temporaryFolder(owner) {
  const folder = mkdtempSync(join(tmpdir(), 'carillon-browser-'));
  owner.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Returns a free port. If another process takes it before its use, the start fails. */
export async function freePort() {
  const server = createSocketServer();
  await new Promise((settle) => server.listen(0, '127.0.0.1', settle));
  const { port } = server.address();
  await new Promise((settle) => server.close(settle));
  return port;
}

/** Returns whether a process listens on a port of this machine. */
export function isListening(port) {
  return new Promise((settle) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => settle(true)).once('error', () => settle(false));
    socket.once('connect', () => socket.destroy());
  });
}
