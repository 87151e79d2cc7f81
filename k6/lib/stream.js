// Events that are numbered in a row, and what each subscription made of them.

/** An event that was answered this long before its connection ended is owed to it; a later one was perhaps on its way. */
const IN_FLIGHT_MS = 2000;

export const FRESH = 'fresh';
export const DOUBLED = 'doubled';
export const REORDERED = 'reordered';
export const MISDIRECTED = 'misdirected';

/** A row of events that are published one after the other, each to all channels of the stream. */
export class Stream {
  /** `sender`: the connection that sends them itself, which therefore gets none. */
  constructor(id, channels, sender) {
    this.id = id;
    this.channels = channels;
    this.sender = sender;
    /** By sequence number: when the event was accepted; 0 as long as it is not. */
    this.acceptedAt = [];
    /** Sequence number to the socket id that is to be left out. */
    this.excluded = new Map();
  }

  get channel() {
    return this.channels[0];
  }

  /** Takes the next sequence number. */
  begin(except) {
    const sequence = this.acceptedAt.length;
    this.acceptedAt.push(0);
    if (except !== undefined) this.excluded.set(sequence, except);
    return sequence;
  }

  /** The event was accepted: from now on it is owed. */
  accepted(sequence) {
    this.acceptedAt[sequence] = Date.now();
  }
}

/** How far one subscription is in one stream. */
export class Track {
  /** Made when the subscription is confirmed: every event that begins from now on is owed. */
  constructor(stream, socketId) {
    this.stream = stream;
    this.socketId = socketId;
    this.from = stream.acceptedAt.length;
    /** The sequence number that is due next. */
    this.next = this.from;
    /** Those below `next` that have not come. */
    this.missing = new Set();
    /** Those that had begun before the confirmation: welcome, but not owed. */
    this.early = new Set();
  }

  /** Takes an event, and says what to think of it. */
  arrived(sequence) {
    if (this.stream.excluded.get(sequence) === this.socketId) return MISDIRECTED;
    if (sequence < this.from) return this.#arrivedEarly(sequence);
    if (sequence < this.next) return this.missing.delete(sequence) ? REORDERED : DOUBLED;
    for (let skipped = this.next; skipped < sequence; skipped += 1) {
      if (this.stream.excluded.get(skipped) !== this.socketId) this.missing.add(skipped);
    }
    this.next = sequence + 1;
    return FRESH;
  }

  #arrivedEarly(sequence) {
    if (this.early.has(sequence)) return DOUBLED;
    this.early.add(sequence);
    const highest = this.next > this.from ? Infinity : Math.max(...this.early);
    return sequence < highest ? REORDERED : FRESH;
  }

  /** Whether everything that began since the confirmation has come. */
  get isComplete() {
    return this.missing.size === 0 && this.next === this.stream.acceptedAt.length;
  }

  /** How many accepted events have not come. `endedAt`: when the subscription ended, if it did. */
  lost(endedAt = Infinity) {
    const { acceptedAt, excluded } = this.stream;
    const isOwed = (sequence) =>
      acceptedAt[sequence] > 0 && acceptedAt[sequence] + IN_FLIGHT_MS <= endedAt && excluded.get(sequence) !== this.socketId;
    let lost = 0;
    for (const sequence of this.missing) if (isOwed(sequence)) lost += 1;
    for (let sequence = this.next; sequence < acceptedAt.length; sequence += 1) if (isOwed(sequence)) lost += 1;
    return lost;
  }
}
