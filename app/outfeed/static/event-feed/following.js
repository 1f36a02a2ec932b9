// A follower: it takes the leader's messages, and requests missing events over HTTP.

import { covers, matches } from "./filters.js";
import { parse } from "./numbers.js";

const MAX_PENDING = 1000; // messages that wait for a page; without them the follower requests another page
const PAUSE_MS = 250; // between two requests of a follower that lacks events again at once

/**
 * Hears the leader on behalf of the element of *subscription*. Each message says after which seq it begins (`from`) and
 * which filter it was sent by. A follower that has received less than `from` requests the rest, and handles messages only
 * after it. So it misses no event and shows none twice, however often leaders change.
 *
 * Calls `on.frame`, `on.page` and `on.link` for the element, `on.request` to request the events after the position and
 * `on.drop` to drop that request, `on.announce` to tell the leader its filter, and `on.alone` if it can't follow.
 */
export class Follower {
  principal = null; // as the server calls it, in its last answer to this page
  isCatchingUp = false;
  #subscription;
  #on;
  #leader = null; // the leader that this element has told its filter
  #disputed = null; // the principal of a leader for which this page has asked the server again
  #caughtUpAt = -Infinity;
  #pauseTimer = 0;
  #pending = [];

  constructor(subscription, on) {
    this.#subscription = subscription;
    this.#on = on;
  }

  /** Request the events after the position. Messages wait until they have come. */
  catchUp() {
    this.isCatchingUp = true;
    this.#on.drop();
    clearTimeout(this.#pauseTimer);
    const ms = this.#caughtUpAt + PAUSE_MS - performance.now();
    if (ms > 0) this.#pauseTimer = setTimeout(() => this.#on.request(), ms);
    else this.#on.request();
  }

  /** Handle a page of the requested events. */
  take(page) {
    if (!page.principal || (page.verdict === "gap" && page.origin)) return this.#on.alone(); // only a socket can ask it
    this.principal = page.principal;
    this.#on.page(page);
  }

  /** Continue with the messages: all requested events have come. */
  endCatchUp() {
    this.isCatchingUp = false;
    this.#caughtUpAt = performance.now();
    this.#on.announce();
    while (this.#pending.length && !this.isCatchingUp) this.hear(this.#pending.shift()); // none after a stop
  }

  stop() {
    clearTimeout(this.#pauseTimer);
    this.isCatchingUp = false;
    this.#pending = [];
    this.#disputed = this.#leader = null;
  }

  /** Handle a message of the leader. */
  hear(message) {
    if (this.isCatchingUp) return this.#keep(message);
    const { principal } = message;
    if (principal && principal !== this.principal) return this.#dispute(principal);
    this.#disputed = null;
    if (message.kind === "beat") this.#mirror(message);
    else this.#takeFrom(message);
  }

  #keep(message) {
    if (this.#pending.length >= MAX_PENDING) this.#pending = [];
    this.#pending.push(message);
  }

  /** The leader has another principal. Ask the server again: this page may have it by now. */
  #dispute(principal) {
    if (this.#disputed === principal) return this.#on.alone();
    this.#disputed = principal;
    this.catchUp();
  }

  /**
   * Take the leader's link for that of the element, and request what the leader has told before. The leader answers an
   * announcement with a message, so a filter that it knows (`wanted`) is not announced again.
   */
  #mirror({ id, link, news, received, epoch, filter, wanted = filter, isConnected }) {
    if (!isOpen(link)) return this.#on.link(link, news);
    if (!isConnected) return;
    this.#on.link(link, news);
    const isCovered = covers(filter, this.#subscription.filter);
    if (!covers(wanted, this.#subscription.filter) || id !== this.#leader) this.#on.announce();
    this.#leader = id;
    const { isAnswered } = this.#subscription;
    const isMissing = epoch !== this.#subscription.epoch || (isCovered && received > this.#subscription.received);
    if (!isAnswered || isMissing) this.catchUp();
  }

  #takeFrom({ kind, text, from, epoch, filter }) {
    if (!covers(filter, this.#subscription.filter)) return;
    const frame = parse(text);
    if (frame.type === "subscribed") return this.#takeVerdict(frame, from);
    if (frame.type === "stale") return this.#on.frame(frame);
    const { isAnswered, received } = this.#subscription;
    if (!isAnswered || epoch !== this.#subscription.epoch || from > received) return this.catchUp();
    if (kind === "page" && frame.verdict !== "resumed") return this.catchUp(); // the verdict on the leader's position
    const part = partOf(frame, this.#subscription.filter);
    if (kind === "page") this.#on.page(part);
    else this.#on.frame(part);
  }

  /** The leader has connected again. If it begins where this element is, its verdict is valid here too. */
  #takeVerdict({ payload }, from) {
    const { epoch, received, isAnswered } = this.#subscription;
    if (payload.epoch !== epoch || from > received || received > payload.head) return this.catchUp();
    if (isAnswered) return;
    const { missing, ...rest } = payload;
    this.#on.frame({ type: "subscribed", payload: { ...rest, verdict: "resumed", after: received } });
  }
}

export function isOpen(link) {
  return link === "open" || link === "polling";
}

/** Return *frame*, or a page, with only the events that match *filter*, and up to which seq it is complete. */
export function partOf(frame, filter) {
  const matching = (events) => events.filter((event) => matches(filter, event));
  if (frame.type === "event") {
    return { type: "events", prev: frame.prev, payload: matching([{ ...frame.payload, seq: frame.seq }]), end: frame.seq };
  }
  if (frame.type === "events") return { ...frame, payload: matching(frame.payload), end: frame.payload.at(-1).seq };
  return frame.events ? { ...frame, events: matching(frame.events) } : frame;
}
