// A page's copy of items on the server. Updates are snapshots, fetched after every subscription, and events. They may arrive in any
// order. Each item therefore has a version, and an older version never replaces a newer one. `run` identifies one run of the example's
// server, which stores everything in memory and starts counting again after a restart.

export class Store {
  #run = null;
  #items = new Map();
  #changed;

  /** `changed(item, before)` is called once per newer version of an item. `before` is undefined for a new item. */
  constructor(changed = () => {}) {
    this.#changed = changed;
  }

  /** The run of the server that the items come from; null before the first snapshot. */
  get run() {
    return this.#run;
  }

  get items() {
    return [...this.#items.values()];
  }

  item(id) {
    return this.#items.get(id);
  }

  /** Applies a whole list. Items of an earlier run of the server are removed. */
  snapshot({ run, items }) {
    if (run !== this.#run) this.#items.clear();
    this.#run = run;
    for (const item of items) this.#put(item);
  }

  /** Applies one item from an event or a response. Returns false if the server has restarted: fetch everything. */
  event({ run, item }) {
    if (run !== this.#run) return false;
    this.#put(item);
    return true;
  }

  #put(item) {
    const before = this.#items.get(item.id);
    if (before && before.version >= item.version) return;
    this.#items.set(item.id, item);
    this.#changed(item, before);
  }
}
