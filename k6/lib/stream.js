// Numbered events, and the progress of each subscription in them.

/** An event that was accepted less than this time before its connection ended may have been in flight, and is not expected. */
const IN_FLIGHT_MS = 2000;

export const FRESH = 'fresh';
export const DOUBLED = 'doubled';
export const REORDERED = 'reordered';
export const MISDIRECTED = 'misdirected';

/** A sequence of events, each published to all channels of the stream. */
export class Stream {
  /** `sender`: the connection that sends the events itself and therefore receives none. */
  constructor(id, channels, sender) {
    this.id = id;
    this.channels = channels;
    this.sender = sender;
    /** By sequence number: the time at which the event was accepted, or 0. */
    this.acceptedAt = [];
    /** Sequence number to the excluded socket id. */
    this.excluded = new Map();
  }

  get channel() {
    return this.channels[0];
  }

  /** Returns the next sequence number. */
  begin(except) {
    const sequence = this.acceptedAt.length;
    this.acceptedAt.push(0);
    if (except !== undefined) this.excluded.set(sequence, except);
    return sequence;
  }

  /** Marks the event as accepted. From now on it is expected. */
  accepted(sequence) {
    this.acceptedAt[sequence] = Date.now();
  }
}

/** The progress of one subscription in one stream. */
export class Track {
  /** Created when the subscription is confirmed. Every event that starts from now on is expected. */
  constructor(stream, socketId) {
    this.stream = stream;
    this.socketId = socketId;
    this.from = stream.acceptedAt.length;
    /** The next expected sequence number. */
    this.next = this.from;
    /** Sequence numbers below `next` that have not arrived. */
    this.missing = new Set();
    /** Sequence numbers that started before the confirmation: they may arrive but are not expected. */
    this.early = new Set();
  }

  /** Records an event and classifies it. */
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

  /** Whether all events that started since the confirmation have arrived. */
  get isComplete() {
    return this.missing.size === 0 && this.next === this.stream.acceptedAt.length;
  }

  /** Returns the number of expected events that have not arrived. `endedAt`: the end of the subscription, if it has ended. */
  lost(endedAt = Infinity) {
    const { acceptedAt, excluded } = this.stream;
    const isExpected = (sequence) =>
      acceptedAt[sequence] > 0 && acceptedAt[sequence] + IN_FLIGHT_MS <= endedAt && excluded.get(sequence) !== this.socketId;
    let lost = 0;
    for (const sequence of this.missing) if (isExpected(sequence)) lost += 1;
    for (let sequence = this.next; sequence < acceptedAt.length; sequence += 1) if (isExpected(sequence)) lost += 1;
    return lost;
  }
}
