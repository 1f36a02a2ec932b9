// What is asked for, how far it has come, and where it stood when the page was left.

// --- what an element asks for ----------------------------------------------------------------------------------------

const MAX_LAST = 1000; // the protocol's limit for `last`

/** The address of the WebSocket; `src` is relative to *base*. */
export function addressOf(element, base) {
  const url = new URL(element.getAttribute("src") || "ws", base);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

/** What its attributes say of the events that it wants, in the words of the protocol. */
export function wantedBy(element) {
  const limit = Number(element.getAttribute("limit") ?? 100);
  const wanted = limit >= 1 ? { last: Math.min(MAX_LAST, Math.floor(limit)) } : {};
  const types = element.getAttribute("types")?.split(",").map((type) => type.trim()).filter(Boolean);
  if (types?.length) wanted.types = types;
  for (const name of ["source", "task-id", "agent-id"]) {
    const value = element.getAttribute(name);
    if (value) wanted[name.replace("-", "_")] = value;
  }
  return wanted;
}

// --- how far it has come ---------------------------------------------------------------------------------------------

const PAGE_EVENTS = 1000; // the protocol's limit for the `limit` of a poll

/** Knows the frames and pages; knows no DOM and no connection. */
export class Subscription {
  epoch = null;
  received = 0;
  head = 0;
  isAnswered = false;
  #wanted;
  #isBatch;

  constructor(wanted, isBatch) {
    this.#wanted = wanted;
    this.#isBatch = isBatch;
  }

  /** The message that begins or resumes; frames of what it replaces are dropped until its verdict. */
  request() {
    this.isAnswered = false;
    return { action: "subscribe", channel: "events", batch: this.#isBatch, ...this.#wanted, ...this.#place };
  }

  /** The same for a poll, as a query string. */
  query(wait) {
    return new URLSearchParams({ ...this.#wanted, ...this.#place, wait, limit: PAGE_EVENTS });
  }

  get #place() {
    return this.epoch === null ? {} : { after: this.received, epoch: this.epoch };
  }

  get behind() {
    return Math.max(0, this.head - this.received);
  }

  /** Return the verdict of a page as a frame would have it; null where a poll merely goes on. */
  verdictOf({ epoch, verdict, missing, events, cursor, head, erasures }) {
    if (this.isAnswered && verdict === "resumed") return null;
    const before = verdict === "resumed" ? this.received : (events[0]?.seq ?? cursor + 1) - 1;
    const after = missing?.to ?? before;
    return { channel: "events", epoch, verdict, ...(missing && { missing }), after, head, erasures };
  }

  accept({ epoch, after, head }) {
    this.isAnswered = true;
    this.epoch = epoch;
    this.received = after;
    this.head = head;
  }

  /** Return the events that are new, oldest first; null where some are missing before them: then ask again. */
  take(prev, events) {
    if (!this.isAnswered) return [];
    if (prev > this.received) return null;
    const fresh = events.filter(({ seq }) => seq > this.received);
    if (fresh.length) this.reach(fresh.at(-1).seq);
    return fresh;
  }

  /** All that matches up to *seq* has come. */
  reach(seq, head = this.head) {
    if (!this.isAnswered) return;
    this.received = Math.max(this.received, seq);
    this.head = Math.max(head, this.received);
  }

  /** What follows *seq* is wanted once more. */
  rewind(seq) {
    this.isAnswered = false;
    this.received = seq;
  }

  /** What was asked is not answered any more: the connection is gone. */
  interrupt() {
    this.isAnswered = false;
  }
}

// --- where it stood --------------------------------------------------------------------------------------------------

/** Keep *place*, {epoch, cursor}, for as long as the tab is open. */
export function remember(key, place) {
  try {
    sessionStorage.setItem(key, JSON.stringify(place));
  } catch {
    // Storage is full or forbidden: a reload then can't say what went by while the page was closed.
  }
}

/** Return the place, or null. */
export function remembered(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}
