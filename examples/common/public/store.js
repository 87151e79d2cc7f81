// Items that change on the server, as one page knows them. Two things bring news: snapshots, fetched after every subscription, and
// events. They cross each other on the way, so nothing here trusts the order of arrival: each item has a version, and an older one
// never replaces a newer one. `run` names one life of the example's server, which keeps everything in memory and counts anew after
// a restart.

export class Store {
  #run = null;
  #items = new Map();
  #changed;

  /** `changed(item, before)` is called once for each change that is news; `before` is undefined for a new item. */
  constructor(changed = () => {}) {
    this.#changed = changed;
  }

  /** The life of the server that the items are of; null before the first snapshot. */
  get run() {
    return this.#run;
  }

  get items() {
    return [...this.#items.values()];
  }

  item(id) {
    return this.#items.get(id);
  }

  /** Takes a whole list. Items of an earlier life of the server are dropped. */
  snapshot({ run, items }) {
    if (run !== this.#run) this.#items.clear();
    this.#run = run;
    for (const item of items) this.#put(item);
  }

  /** Takes one item from an event, or from the answer to one's own request. False: the server has restarted, fetch everything. */
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
