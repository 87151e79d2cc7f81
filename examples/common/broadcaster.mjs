// What an example's server says to Carillon: it publishes events and signs what browsers may hear.
// The same variables as in Laravel configure it; without any it fits `carillon up` with nothing configured.

const PusherServer = await import('pusher').then(
  (module) => module.default,
  () => {
    console.error('The libraries of the examples are not installed. Run `npm ci --prefix examples` in the root of the repository,');
    console.error('or start an example with make, which does it: `make example-clinic`.');
    process.exit(1);
  },
);

const env = (name, fallback) => process.env[name] || fallback;

/** Where this server finds Carillon. */
const SERVER = {
  appId: env('REVERB_APP_ID', 'app-id'),
  key: env('REVERB_APP_KEY', 'app-key'),
  secret: env('REVERB_APP_SECRET', 'app-secret'),
  host: env('REVERB_HOST', '127.0.0.1'),
  port: Number(env('REVERB_PORT', '8080')),
  useTLS: env('REVERB_SCHEME', 'http') === 'https',
};

/** Where browsers find it: somewhere else when a proxy stands in front. Everything here may be read by anyone. */
export const BROWSER = {
  key: SERVER.key,
  host: env('VITE_REVERB_HOST', SERVER.host),
  port: Number(env('VITE_REVERB_PORT', String(SERVER.port))),
  tls: env('VITE_REVERB_SCHEME', SERVER.useTLS ? 'https' : 'http') === 'https',
};

/** How long a publish may keep a request waiting before it counts as failed. */
const PUBLISH_TIMEOUT_MS = 3_000;

/** How often channels that missed an event are tried again. */
const RETRY_MS = 2_000;

/** Signs tokens of the demo's sessions; the secret of the app serves, so that there is nothing more to configure. */
export const SESSION_SECRET = SERVER.secret;

export class Broadcaster {
  #pusher = new PusherServer({ ...SERVER, timeout: PUBLISH_TIMEOUT_MS });
  /** Channels that did not hear of a change. */
  #untold = new Set();
  #retry = null;

  /** Carillon's address, for people. */
  get address() {
    return `${SERVER.useTLS ? 'https' : 'http'}://${SERVER.host}:${SERVER.port}`;
  }

  /**
   * Publishes one event. A failure is not an error of the caller, whose change is made already: it resolves with null, or with the
   * reason in words. Channels that missed an event hear `resync` as soon as Carillon can be reached, and their pages fetch afresh.
   */
  async publish(channels, event, data) {
    try {
      await this.#pusher.trigger(channels, event, data);
      return null;
    } catch (error) {
      for (const channel of channels) this.#untold.add(channel);
      this.#retry ??= setTimeout(() => this.#tellAgain(), RETRY_MS).unref();
      return this.#words(error);
    }
  }

  /** Publishes an event to one signed-in user, wherever that user is connected; resolves as `publish`. */
  async tell(userId, event, data) {
    return this.#pusher.sendToUser(userId, event, data).then(
      () => null,
      (error) => this.#words(error),
    );
  }

  /** Why Carillon does not serve this application, in words, or null. */
  async trouble() {
    return this.#pusher.get({ path: '/channels' }).then(
      () => null,
      (error) => this.#words(error),
    );
  }

  /** The answer that lets one socket hear a channel; `member` is `{ user_id, user_info }` for a presence channel. */
  authorize(socketId, channel, member) {
    return this.#pusher.authorizeChannel(socketId, channel, member);
  }

  /** The answer that signs one socket in as a user: `{ id, user_info }`. */
  authenticate(socketId, user) {
    return this.#pusher.authenticateUser(socketId, user);
  }

  async #tellAgain() {
    this.#retry = null;
    const channels = [...this.#untold].slice(0, 100);
    try {
      await this.#pusher.trigger(channels, 'resync', {});
      for (const channel of channels) this.#untold.delete(channel);
    } catch {
      // Still away.
    }
    if (this.#untold.size > 0) this.#retry ??= setTimeout(() => this.#tellAgain(), RETRY_MS).unref();
  }

  #words({ status, body, error, message }) {
    if (status === 401 || status === 404) return `Carillon at ${this.address} refuses this application: ${body}`;
    if (status) return `Carillon at ${this.address} did not take the event: ${status} ${body}`;
    const causes = { ECONNREFUSED: 'nothing listens there', ENOTFOUND: 'no such host', ECONNRESET: 'the connection broke' };
    const cause =
      error?.type === 'aborted' ? `no answer in ${PUBLISH_TIMEOUT_MS / 1000} s` : (causes[error?.code] ?? error?.message ?? message);
    return `Carillon at ${this.address} cannot be reached: ${cause}`;
  }
}
