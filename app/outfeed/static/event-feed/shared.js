// One connection for all tabs and elements of a browser. The leader of a group has it and passes each frame on, as text.
// A follower takes from it what its own filter matches. It requests what it lacks over HTTP, with its own cursor.

import { Connection } from "./connection.js";
import { covers, matches, union } from "./filters.js";
import { Group } from "./group.js";
import { parse } from "./numbers.js";

const MAX_PENDING = 1000; // messages that wait for a page; without them the follower requests another page
const PAUSE_MS = 250; // between two requests of a follower that lacks events again at once

/** Return the connection of an element: a shared one if its tabs can reach each other and are of one principal. */
export function createConnection(url, ticketUrl, subscription, on) {
  const isOwnSite = !ticketUrl && new URL(url.replace(/^ws/, "http")).origin === location.origin;
  if (isOwnSite && subscription.isBatch && Group.isSupported) return new SharedConnection(url, subscription, on);
  const connection = new Connection(url, ticketUrl, { ...ownOf(subscription, on), retry: () => connection.connect() });
  return connection;
}

function ownOf(subscription, on) {
  return { ...on, request: () => subscription.request(), query: (wait) => subscription.query(wait) };
}

/**
 * As `Connection`, for the element of *subscription*. The roles: a leader has the connection, a follower hears it. A
 * leader that was replaced is yielding until the new one is connected, so that no frame is missed. An element that can't
 * share is alone.
 *
 * Each message of a leader says after which seq it begins (`from`) and which filter it was sent by. A follower that has
 * received less than `from` requests the rest, and handles messages only after it. So it misses no event and shows none
 * twice, however often leaders change.
 */
class SharedConnection {
  #subscription;
  #on;
  #own; // the connection of this element, and its requests as a follower
  #group;
  #role = "closed";
  #link = "closed"; // as the element knows it
  #until = 0;
  #news = {};
  #isTakingOver = false; // the element still follows, as it were, until this leader's own connection is open
  #principal = null; // as the server calls it, in its last answer to this page
  #disputed = null; // the principal of a leader for which this page has asked the server again
  #wanted = new Map(); // by member: the filters of the others
  #requestedFilter = null;
  #filter; // that of the subscription in force
  #isCatchingUp = false;
  #caughtUpAt = -Infinity;
  #pauseTimer = 0;
  #pending = [];

  constructor(url, subscription, on) {
    this.#subscription = subscription;
    this.#on = on;
    this.#filter = subscription.filter;
    this.#own = new Connection(url, null, {
      link: (link, news) => this.#handleLink(link, news),
      frame: (frame, text) => this.#handleFrame(frame, text),
      page: (page, text) => this.#handlePage(page, text),
      request: () => this.#request(),
      query: (wait) => this.#query(wait),
      retry: () => this.#retry(),
      caughtUp: () => this.#endCatchUp(),
      unanswered: () => this.#goAlone(),
    });
    this.#group = new Group(`event-feed ${url}`, {
      lead: () => this.#lead(),
      follow: () => this.#follow(),
      fail: () => this.#goAlone(),
      hear: (message) => this.#hear(message),
      status: () => this.#status(),
      isReady: () => this.#isReady,
    });
  }

  connect() {
    this.#leave("joining");
    this.#report("connecting");
    this.#group.join();
  }

  subscribe() {
    if (this.#role === "follower") this.#catchUp();
    else this.#own.subscribe();
  }

  /** Connect to the origin of an edge that lacks events. Return false if the origin has been asked already. */
  askOrigin() {
    return this.#own.askOrigin();
  }

  /** Try now instead of later: the network or the reader is back. */
  resume() {
    if (this.#role === "closed") return isEnded(this.#link) && this.connect();
    if (this.#role !== "follower") return this.#own.resume();
    this.#group.post({ kind: "resume" });
    if (this.#isCatchingUp) this.#own.catchUp();
  }

  check() {
    if (this.#role !== "follower") this.#own.check();
  }

  close() {
    this.#leave("closed");
    this.#report("closed");
  }

  giveUp() {
    this.#own.giveUp();
  }

  #leave(role) {
    this.#role = role;
    this.#group.leave();
    this.#own.close();
    this.#wanted.clear();
    this.#stopCatchUp();
    this.#isTakingOver = false;
    this.#disputed = null;
    this.#filter = this.#subscription.filter;
  }

  #report(link, news = {}) {
    const { until = 0 } = news;
    if (link === this.#link && until === this.#until) return;
    [this.#link, this.#until, this.#news] = [link, until, news];
    this.#on.link(link, { until: 0, outage: null, refusal: null, ...news });
  }

  // Roles

  #lead() {
    if (this.#role === "yielding") return (this.#role = "leader");
    this.#isTakingOver = this.#role === "follower" && isOpen(this.#link);
    this.#role = "leader";
    this.#stopCatchUp();
    this.#own.connect();
  }

  #follow() {
    if (["leader", "yielding"].includes(this.#role) && !this.#isTakingOver && isOpen(this.#link)) {
      this.#role = "yielding";
      return;
    }
    const hasFollowed = this.#isTakingOver;
    this.#becomeFollower();
    if (!hasFollowed) this.#catchUp();
  }

  /** Hear the new leader from now on. */
  #becomeFollower() {
    this.#role = "follower";
    this.#isTakingOver = false;
    this.#own.close();
    this.#announce();
  }

  /** Connect without the others: they can't be reached, or have other permissions. */
  #goAlone() {
    this.#group.leave();
    const isConnected = ["leader", "yielding"].includes(this.#role);
    this.#role = "alone";
    this.#wanted.clear();
    this.#stopCatchUp();
    if (!isConnected) this.#own.connect();
  }

  /** Follow or connect again, after a pause. */
  #retry() {
    if (this.#role === "follower") this.#own.catchUp();
    else if (this.#role === "leader") this.#own.connect();
    else this.connect();
  }

  /** Whether this member can lead at once: it lacks nothing, or nothing follows anyway. */
  get #isReady() {
    const isCurrent = this.#subscription.isAnswered || !isOpen(this.#link);
    return this.#role === "follower" && !this.#isCatchingUp && isCurrent;
  }

  // The own connection

  /** The filter of the connection: that of all members, once this element has what it lacked. */
  #currentFilter() {
    const isCurrent = this.#role === "leader" && this.#subscription.isAnswered && !this.#subscription.behind;
    return isCurrent ? this.#wideFilter : this.#subscription.filter;
  }

  get #wideFilter() {
    const wide = union([this.#subscription.filter, ...this.#wanted.values()]);
    return covers(this.#subscription.filter, wide) ? this.#subscription.filter : wide;
  }

  get #isWide() {
    return this.#requestedFilter !== this.#subscription.filter;
  }

  #request() {
    this.#requestedFilter = this.#currentFilter();
    return this.#subscription.request(this.#isWide ? this.#requestedFilter : undefined);
  }

  #query(wait) {
    this.#requestedFilter = this.#currentFilter();
    return this.#subscription.query(wait, this.#isWide ? this.#requestedFilter : undefined);
  }

  /** Subscribe again if a member needs more than the connection carries. */
  #widen() {
    const { isAnswered, behind } = this.#subscription;
    if (this.#role !== "leader" || this.#isTakingOver || !isOpen(this.#link) || !isAnswered || behind) return;
    if (!covers(this.#filter, this.#wideFilter)) this.#own.subscribe();
  }

  #handleLink(link, news) {
    if (this.#role === "closed" || this.#role === "joining" || link === "closed") return;
    if (this.#role === "yielding" && !isOpen(link)) return this.#becomeFollower();
    if (this.#isTakingOver && !isOpen(link) && !news.until && !isEnded(link)) return; // still trying
    if (this.#role === "leader") this.#isTakingOver &&= isOpen(link);
    this.#report(link, news);
    this.#group.beat();
    if (isEnded(link)) this.#end();
  }

  /** Leave the group: only the reader can change that this element can't connect. */
  #end() {
    this.#role = "closed";
    this.#group.leave();
    this.#stopCatchUp();
  }

  #handleFrame(frame, text) {
    const from = this.#subscription.received;
    if (frame.type === "subscribed") return this.#handleVerdict(frame, text);
    if (frame.type === "error" && this.#isWide) {
      this.#wanted.clear();
      return this.#narrow();
    }
    const isNews = this.#subscription.isAnswered || frame.type === "stale"; // else of the former subscription
    this.#on.frame(this.#ownPart(frame));
    if (isNews && ["event", "events", "heartbeat", "stale"].includes(frame.type)) this.#pass("frame", text, from);
    this.#widen();
  }

  #handleVerdict(frame, text) {
    const { payload } = frame;
    if (this.#isWide && payload.verdict !== "resumed") return this.#narrow();
    this.#filter = this.#requestedFilter;
    this.#principal = payload.principal;
    if (this.#isWide) this.#subscription.accept(payload);
    else this.#on.frame(frame);
    this.#isTakingOver = false;
    if (this.#subscription.isAnswered) this.#pass("frame", text, this.#subscription.received);
    this.#group.beat();
    this.#widen();
  }

  #handlePage(page, text) {
    if (this.#role === "follower") return this.#handleOwnPage(page);
    const from = this.#subscription.received;
    if (this.#isWide && page.verdict !== "resumed") return this.#narrow();
    this.#filter = this.#requestedFilter;
    this.#principal = page.principal;
    const wasConnected = this.#subscription.isAnswered && !this.#isTakingOver;
    this.#on.page(this.#ownPart(page));
    this.#isTakingOver = false;
    if (wasConnected) this.#pass("page", text, from);
    else this.#group.beat();
  }

  /** The wide subscription can't be continued: begin again with this element's filter, and its own verdict. */
  #narrow() {
    this.#subscription.interrupt();
    this.#own.subscribe();
  }

  #ownPart(frame) {
    return this.#filter === this.#subscription.filter ? frame : partOf(frame, this.#subscription.filter);
  }

  #pass(kind, text, from) {
    if (["leader", "yielding"].includes(this.#role)) this.#group.post({ kind, text, from, ...this.#position });
  }

  get #position() {
    return { principal: this.#principal, epoch: this.#subscription.epoch, filter: this.#filter };
  }

  #status() {
    const { received, isAnswered } = this.#subscription;
    const isConnected = isAnswered && !this.#isTakingOver;
    return { link: this.#link, news: this.#news, received, isConnected, ...this.#position };
  }

  // Following

  #announce() {
    this.#group.post({ kind: "want", filter: this.#subscription.filter });
  }

  #hear(message) {
    const { kind, id } = message;
    if (kind === "bye") this.#wanted.delete(id);
    if (kind === "want") this.#wanted.set(id, message.filter);
    if (kind === "want") this.#widen();
    if (kind === "resume" && this.#group.isLeader) this.#own.resume();
    if (this.#role === "yielding" && kind === "beat" && message.isConnected) this.#becomeFollower();
    if (this.#role === "follower" && ["beat", "frame", "page"].includes(kind)) this.#hearLeader(message);
  }

  #hearLeader(message) {
    if (this.#isCatchingUp) return this.#keep(message);
    const { principal } = message;
    if (principal && principal !== this.#principal) return this.#dispute(principal);
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
    if (this.#disputed === principal) return this.#goAlone();
    this.#disputed = principal;
    this.#catchUp();
  }

  /** Take over the leader's link, and request what it has told before. */
  #mirror({ link, news, received, epoch, filter, isConnected }) {
    if (link === "refused" || link === "closed") return;
    if (!isOpen(link)) {
      if (this.#subscription.isAnswered) this.#link = ""; // its own request was answered, but nothing follows
      this.#report(link, news);
      if (link === "signed-out") this.#end();
      return;
    }
    if (!isConnected) return;
    this.#report(link, news);
    const isCovered = covers(filter, this.#subscription.filter);
    if (!isCovered) this.#announce();
    const { isAnswered } = this.#subscription;
    const isMissing = epoch !== this.#subscription.epoch || (isCovered && received > this.#subscription.received);
    if (!isAnswered || isMissing) this.#catchUp();
  }

  #takeFrom({ kind, text, from, epoch, filter }) {
    if (!covers(filter, this.#subscription.filter)) return;
    const frame = parse(text);
    if (frame.type === "subscribed") return this.#takeVerdict(frame, from);
    if (frame.type === "stale") return this.#on.frame(frame);
    const { isAnswered, received } = this.#subscription;
    if (!isAnswered || epoch !== this.#subscription.epoch || from > received) return this.#catchUp();
    const part = partOf(frame, this.#subscription.filter);
    if (kind === "page") this.#on.page(part);
    else this.#on.frame(part);
  }

  /** The leader has connected again. If it begins where this element is, its verdict is valid here too. */
  #takeVerdict({ payload }, from) {
    const { epoch, received, isAnswered } = this.#subscription;
    if (payload.epoch !== epoch || from > received || received > payload.head) return this.#catchUp();
    if (isAnswered) return;
    const { missing, ...rest } = payload;
    this.#on.frame({ type: "subscribed", payload: { ...rest, verdict: "resumed", after: received } });
  }

  /** Request the events after the position. Messages wait until they have come. */
  #catchUp() {
    this.#isCatchingUp = true;
    this.#own.close(); // drops the request under way
    clearTimeout(this.#pauseTimer);
    const ms = this.#caughtUpAt + PAUSE_MS - performance.now();
    if (ms > 0) this.#pauseTimer = setTimeout(() => this.#own.catchUp(), ms);
    else this.#own.catchUp();
  }

  #handleOwnPage(page) {
    if (!page.principal || (page.verdict === "gap" && page.origin)) return this.#goAlone(); // only a socket can ask it
    this.#principal = page.principal;
    this.#on.page(page);
  }

  #endCatchUp() {
    if (this.#role !== "follower") return;
    this.#isCatchingUp = false;
    this.#caughtUpAt = performance.now();
    this.#announce();
    for (const message of this.#pending.splice(0)) this.#hearLeader(message);
    if (!this.#isCatchingUp) this.#group.offer();
  }

  #stopCatchUp() {
    clearTimeout(this.#pauseTimer);
    this.#isCatchingUp = false;
    this.#pending = [];
  }
}

function isOpen(link) {
  return link === "open" || link === "polling";
}

function isEnded(link) {
  return link === "signed-out" || link === "refused";
}

/** Return *frame*, or a page, with only the events that match *filter*, and up to which seq it is complete. */
function partOf(frame, filter) {
  if (frame.type === "event") return partOf({ type: "events", prev: frame.prev, payload: [{ ...frame.payload, seq: frame.seq }] }, filter);
  if (frame.type === "events") {
    return { ...frame, payload: frame.payload.filter((event) => matches(filter, event)), end: frame.payload.at(-1).seq };
  }
  return frame.events ? { ...frame, events: frame.events.filter((event) => matches(filter, event)) } : frame;
}
