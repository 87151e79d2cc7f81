// What every browser test stands on: a Carillon, the server of an example, an nginx that refuses WebSockets, a plain page for tests
// of pusher-js alone, and Chromium.
// Everything starts on free ports from temporary directories and belongs to an `owner`: a test context, or anything else with
// `after(callback)`, which ends it. Processes are ended one by one, never by name.
// Nothing sleeps: a wait names its condition and has a deadline, and its error says what was there instead.

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

/** How long an expected change may take. Longer than the slowest retry of pusher-js that a test meets; only failing tests wait it out. */
export const DEADLINE_MS = 60_000;

/** How long a process may take to be up, or to leave after SIGTERM. */
const PROCESS_DEADLINE_MS = 30_000;

/** The app of every test, with the values that `carillon up` and the examples have when nothing is configured. */
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
 * Starts `carillon up` and resolves once it has printed its address: `{ host, port, url, stop(), again() }`.
 *
 * `stop()` ends it as an operator would, `again()` starts it on the port that it had. `configuration`: TOML instead of the usual.
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

  const { ready, stop, again } = await keep(owner, (before) => {
    const parameters = ['up', '--config', config, '--port', before?.[2] ?? '0', '--admin-port', '0'];
    return startProcess(binary, parameters, { folder, ready: /^\s*public\s+http:\/\/([^:\s]+):(\d+)/m });
  });
  const [, host, port] = ready;
  return { host, port: Number(port), url: `http://${host}:${port}`, stop, again };
}

/**
 * Starts `examples/<name>/server.mjs` on a free port, for a Carillon at `address` (`{ host, port }`, as `startCarillon` and
 * `startProxy` give): `{ url, stop(), again() }`. `environment`: further variables.
 */
export async function startExample(owner, name, address, environment = {}) {
  const folder = join(REPOSITORY, 'examples');
  const { ready, stop, again } = await keep(owner, (before) =>
    startProcess(process.execPath, [join(folder, name, 'server.mjs')], {
      folder,
      ready: /(http:\/\/[^:\s]+:(\d+))/,
      environment: { PORT: before?.[2] ?? '0', REVERB_HOST: address.host, REVERB_PORT: String(address.port), ...environment },
    }),
  );
  return { url: ready[1], stop, again };
}

/**
 * Starts an nginx in front of `carillon`, as a network with a strict proxy is seen by a browser: `{ host, port, url, stop(), again() }`.
 *
 * It passes on everything but WebSockets: requests to upgrade on `/app/` get 403. With `webSockets: true` it passes those on too.
 * `directives`: further lines for its `server` block.
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
  const { stop, again } = await keep(owner, async () => {
    const nginx = await startProcess('nginx', ['-e', 'stderr', '-c', config, '-p', folder], { folder });
    await eventually(() => answers(port), `nginx on port ${port}`, PROCESS_DEADLINE_MS);
    return nginx;
  });
  return { host: '127.0.0.1', port, url: `http://127.0.0.1:${port}`, stop, again };
}

/**
 * Runs what `start` starts until `stop()`, or until its owner is done; `again()` starts it anew, with what it was `ready` with.
 * The owner is told once and now: `after` of `node:test` means whatever test runs when it is called, and `again` is called in one
 * test of many.
 */
async function keep(owner, start) {
  let running = await start();
  const { ready } = running;
  owner.after(() => running.stop());
  const again = async () => {
    running = await start(ready);
  };
  return { ready, stop: () => running.stop(), again };
}

/**
 * Runs a program until `stop()`. With `ready`, a pattern, resolves when what it printed matches; the match is `ready` of the result.
 * `signal(name)` sends it a signal, `kill(name)` also waits for its end; `exited` resolves then in any case.
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
    await within(exited, `${program} to leave after SIGTERM; it printed:\n${output}`, PROCESS_DEADLINE_MS).catch((error) => {
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
    throw new Error(`${program} ended before it was up (${JSON.stringify(how)}):\n${output}`);
  });
  ended.catch(() => {});
  const match = await within(
    Promise.race([matched, ended]),
    () => `${program} to be up; it printed:\n${output}`,
    PROCESS_DEADLINE_MS,
  ).catch((error) => {
    child.kill('SIGKILL');
    throw error;
  });
  const signal = (name) => child.kill(name);
  const kill = (name) => (signal(name), within(exited, `${program} to end after ${name}`, PROCESS_DEADLINE_MS));
  return { ready: match, stop, signal, kill, exited };
}

// === pages ===

/**
 * A page on an origin of its own with nothing but pusher-js as `window.Pusher`, for tests of the client library alone; resolves with
 * its address. `version`: `8.6.0`, the one that the examples use.
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

/** Starts Chromium, headless: Debian's, or the one that `CHROMIUM` names. `parameters`: further ones of its command line. */
export async function launch(owner, parameters = []) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-proxy-server', ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []), ...parameters],
    timeout: DEADLINE_MS,
  });
  owner.after(() => browser.close());
  return browser;
}

/** Opens `url` as another person on another device would: nothing is shared with other pages. `context`: options of Playwright. */
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
  // Gone after a reload, so that `unchanged` can tell.
  await page.evaluate(() => (window.openedByTest = true));
  return page;
}

/** Asserts that the page is the document that was opened: never reloaded, and without an error that nobody caught. */
export async function unchanged(...pages) {
  for (const page of pages) {
    assert.equal(await page.evaluate(() => window.openedByTest), true, 'the page was not reloaded');
    assert.deepEqual(page.failures, [], 'errors of the page');
  }
}

/** Waits until an element that matches `selector` shows `text` (a string, or a pattern); resolves with its locator. */
export async function sees(page, selector, text, ms = DEADLINE_MS) {
  const found = page.locator(selector).filter({ hasText: text, visible: true }).first();
  await found.waitFor({ timeout: ms }).catch(async (error) => {
    const there = await page
      .locator(selector)
      .allInnerTexts()
      .catch(() => ['(the page is gone)']);
    const lines = [...page.failures, ...page.lines.slice(-12)].join('\n  ');
    throw new Error(`waited ${ms} ms for ${text} in \`${selector}\`, which reads ${JSON.stringify(there)}\n  ${lines}`, { cause: error });
  });
  return found;
}

/** Waits until no element that matches `selector` shows `text`. */
export async function missing(page, selector, text, ms = DEADLINE_MS) {
  const found = page.locator(selector).filter({ hasText: text, visible: true });
  await eventually(
    async () => (await found.count()) === 0,
    () => `${text} to leave \`${selector}\``,
    ms,
  );
}

/** Moves the focus with the Tab key until it is on `selector`, and asserts that the focus can be seen there. */
export async function tabTo(page, selector, presses = 120) {
  for (let pressed = 0; pressed < presses; pressed += 1) {
    const focus = await page.evaluate((wanted) => {
      const element = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(element);
      return { there: element.matches(wanted), ring: outlineStyle !== 'none' && parseFloat(outlineWidth) > 0 };
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
export async function fits(page) {
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

/** `promise`, or an error that says what was awaited once `ms` have passed. */
export function within(promise, what, ms = DEADLINE_MS) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms} ms for ${typeof what === 'function' ? what() : what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** The first truthy answer of `check`, asked again and again. */
export async function eventually(check, what, ms = DEADLINE_MS) {
  const deadline = Date.now() + ms;
  for (;;) {
    const answer = await check();
    if (answer) return answer;
    if (Date.now() > deadline) throw new Error(`waited ${ms} ms for ${typeof what === 'function' ? what() : what}`);
    await new Promise((settle) => setTimeout(settle, 50));
  }
}

// === small things ===

/**
 * Signs in at an example's server without a page: `post(path, body)` resolves with `{ status, ...answer }` of its API; `bearer` is the
 * header of its session.
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
    /** The status of an attempt to have a channel signed, as pusher-js asks for it. */
    mayHear: async (channel, headers = bearer) =>
      (await send('/broadcasting/auth', headers, new URLSearchParams({ socket_id: '1.1', channel_name: channel }))).status,
  };
}

/** A folder that is gone when its owner is done. */
export function temporaryFolder(owner) {
  const folder = mkdtempSync(join(tmpdir(), 'carillon-browser-'));
  owner.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A port that nobody listens on. Another process may take it before it is used, which then fails loudly. */
export async function freePort() {
  const server = createSocketServer();
  await new Promise((settle) => server.listen(0, '127.0.0.1', settle));
  const { port } = server.address();
  await new Promise((settle) => server.close(settle));
  return port;
}

/** Whether somebody listens on a port of this machine. */
export function answers(port) {
  return new Promise((settle) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => settle(true)).once('error', () => settle(false));
    socket.once('connect', () => socket.destroy());
  });
}
