// The connection from an example's server to Carillon: publishes events and signs subscriptions of browsers.
// It uses the same variables as Laravel. Without any, it matches the defaults of `carillon up`.

const PusherServer = await import('pusher').then(
  (module) => module.default,
  () => {
    console.error('The libraries of the examples are not installed. Run `npm ci --prefix examples` in the root of the repository,');
    console.error('or start an example with make, which installs them: `make example-clinic`.');
    process.exit(1);
  },
);

const env = (name, fallback) => process.env[name] || fallback;

/** The address of Carillon for this server. */
const SERVER = {
  appId: env('REVERB_APP_ID', 'app-id'),
  key: env('REVERB_APP_KEY', 'app-key'),
  secret: env('REVERB_APP_SECRET', 'app-secret'),
  host: env('REVERB_HOST', '127.0.0.1'),
  port: Number(env('REVERB_PORT', '8080')),
  useTLS: env('REVERB_SCHEME', 'http') === 'https',
};

/** The address of Carillon for browsers, which differs behind a proxy. All of these values are public. */
export const BROWSER = {
  key: SERVER.key,
  host: env('VITE_REVERB_HOST', SERVER.host),
  port: Number(env('VITE_REVERB_PORT', String(SERVER.port))),
  tls: env('VITE_REVERB_SCHEME', SERVER.useTLS ? 'https' : 'http') === 'https',
};

/** How long a publish may take before it counts as failed. */
const PUBLISH_TIMEOUT_MS = 3_000;

/** Time between retries for channels that missed an event. */
const RETRY_MS = 2_000;

/** Signs the tokens of the demo's sessions. It is the app's secret, so that no other secret must be configured. */
export const SESSION_SECRET = SERVER.secret;

export class Broadcaster {
  #pusher = new PusherServer({ ...SERVER, timeout: PUBLISH_TIMEOUT_MS });
  /** Channels that missed an event. */
  #missed = new Set();
  #retry = null;

  /** Carillon's address, for display. */
  get address() {
    return `${SERVER.useTLS ? 'https' : 'http'}://${SERVER.host}:${SERVER.port}`;
  }

  /**
   * Publishes one event. A failure is not an error for the caller, whose change is already made: resolves with null or with the reason.
   * Channels that missed an event receive `resync` as soon as Carillon is reachable, and their pages fetch again.
   */
  async publish(channels, event, data) {
    try {
      await this.#pusher.trigger(channels, event, data);
      return null;
    } catch (error) {
      for (const channel of channels) this.#missed.add(channel);
      this.#retry ??= setTimeout(() => this.#resync(), RETRY_MS).unref();
      return this.#words(error);
    }
  }

  /** Publishes an event to all connections of one signed-in user. Resolves like `publish`. */
  async sendToUser(userId, event, data) {
    return this.#pusher.sendToUser(userId, event, data).then(
      () => null,
      (error) => this.#words(error),
    );
  }

  /** Resolves with the reason why Carillon does not serve this application, or null. */
  async trouble() {
    return this.#pusher.get({ path: '/channels' }).then(
      () => null,
      (error) => this.#words(error),
    );
  }

  /** Returns the signature for a subscription. `member` is `{ user_id, user_info }` for a presence channel. */
  authorize(socketId, channel, member) {
    return this.#pusher.authorizeChannel(socketId, channel, member);
  }

  /** Returns the signature for the sign-in of a connection as a user: `{ id, user_info }`. */
  authenticate(socketId, user) {
    return this.#pusher.authenticateUser(socketId, user);
  }

  async #resync() {
    this.#retry = null;
    const channels = [...this.#missed].slice(0, 100);
    try {
      await this.#pusher.trigger(channels, 'resync', {});
      for (const channel of channels) this.#missed.delete(channel);
    } catch {
      // Carillon is still unreachable.
    }
    if (this.#missed.size > 0) this.#retry ??= setTimeout(() => this.#resync(), RETRY_MS).unref();
  }

  #words({ status, body, error, message }) {
    if (status === 401 || status === 404) return `Carillon at ${this.address} refuses this application: ${body}`;
    if (status) return `Carillon at ${this.address} did not accept the event: ${status} ${body}`;
    const causes = { ECONNREFUSED: 'connection refused', ENOTFOUND: 'unknown host', ECONNRESET: 'connection reset' };
    const cause =
      error?.type === 'aborted' ? `no response within ${PUBLISH_TIMEOUT_MS / 1000} s` : (causes[error?.code] ?? error?.message ?? message);
    return `Carillon at ${this.address} cannot be reached: ${cause}`;
  }
}
