// The server under test: the app, and the addresses of its gateways and publishers. The defaults are those of `carillon up`.

const list = (text) => text.split(',').map((url) => url.trim().replace(/\/+$/, ''));

export const APP = {
  id: __ENV.APP_ID || 'app-id',
  key: __ENV.APP_KEY || 'app-key',
  secret: __ENV.APP_SECRET || 'app-secret',
};

/** `ws://host:port` of each gateway, or of the balancer in front of them. Connections use them in turn. */
export const GATEWAYS = list(__ENV.WS_URL || 'ws://127.0.0.1:8080');

/** `http://host:port` of each publisher, or of the balancer in front of them. Requests use them in turn. */
export const PUBLISHERS = list(__ENV.API_URL || 'http://127.0.0.1:8080');
