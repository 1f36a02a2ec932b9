// The subscription, its position, and its position when the page was last left.

// --- the request of an element ---------------------------------------------------------------------------------------

const MAX_LAST = 1000; // the protocol's limit for `last`

/** The address of the WebSocket; `src` is relative to *base*. */
export function addressOf(element, base) {
  const url = new URL(element.getAttribute("src") || "ws", base);
  url.protocol = url.protocol.replace("http", "ws");
  return url.href;
}

/** Return the filters of the element's attributes, as fields of the protocol. */
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

// --- the position ----------------------------------------------------------------------------------------------------

const PAGE_EVENTS = 1000; // the protocol's limit for the `limit` of a poll

/** Handles frames and pages. Uses no DOM and no connection. */
export class Subscription {
  epoch = null;
  received = 0;
  head = 0;
  isAnswered = false;
  filter; // of the events, as fields of the protocol
  isBatch;
  #wanted;

  constructor(wanted, isBatch) {
    const { last, ...filter } = wanted;
    this.filter = filter;
    this.isBatch = isBatch;
    this.#wanted = wanted;
  }

  /**
   * Return the message that begins or resumes, by another *filter* if it is given. Frames of the former subscription are
   * dropped until its verdict.
   */
  request(filter = this.#wanted) {
    this.isAnswered = false;
    return { action: "subscribe", channel: "events", batch: this.isBatch, ...filter, ...this.#place };
  }

  /** Return the query string of a poll for the same. */
  query(wait, filter = this.#wanted) {
    return new URLSearchParams({ ...filter, ...this.#place, wait, limit: PAGE_EVENTS });
  }

  get #place() {
    return this.epoch === null ? {} : { after: this.received, epoch: this.epoch };
  }

  get behind() {
    return Math.max(0, this.head - this.received);
  }

  /** Return the verdict of a page, in the shape of a frame; null if the poll continues. */
  verdictOf({ epoch, verdict, missing, events, cursor, head, erasures, types }) {
    if (this.isAnswered && verdict === "resumed") return null;
    const before = verdict === "resumed" ? this.received : (events[0]?.seq ?? cursor + 1) - 1;
    const after = missing?.to ?? before;
    return { channel: "events", epoch, verdict, ...(missing && { missing }), after, head, erasures, types };
  }

  accept({ epoch, after, head }) {
    this.isAnswered = true;
    this.epoch = epoch;
    this.received = after;
    this.head = head;
  }

  /**
   * Return the new events, oldest first; null if events before them are missing, and the caller must ask again. All
   * matching events up to *end* have come.
   */
  take(prev, events, end = events.at(-1)?.seq ?? 0) {
    if (!this.isAnswered) return [];
    if (prev > this.received) return null;
    const fresh = events.filter(({ seq }) => seq > this.received);
    this.reach(end);
    return fresh;
  }

  /** Record that all matching events up to *seq* have come. */
  reach(seq, head = this.head) {
    if (!this.isAnswered) return;
    this.received = Math.max(this.received, seq);
    this.head = Math.max(head, this.received);
  }

  /** Go back to *seq*: the events after it are to be received again. */
  rewind(seq) {
    this.isAnswered = false;
    this.received = seq;
  }

  /** Drop the outstanding request: the connection is lost. */
  interrupt() {
    this.isAnswered = false;
  }
}

// --- the former position ---------------------------------------------------------------------------------------------

/** Store *place*, {epoch, cursor}, for as long as the tab is open. */
export function storePlace(key, place) {
  try {
    sessionStorage.setItem(key, JSON.stringify(place));
  } catch {
    // Storage is full or forbidden. After a reload, the page can't tell which events it missed while closed.
  }
}

/** Return the stored place, or null. */
export function storedPlace(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}
