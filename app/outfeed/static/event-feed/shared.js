// One connection for all tabs and elements of a browser. The leader of a group has it and passes each frame on, as text.
// A follower takes from it what its own filter matches. It requests what it lacks over HTTP, with its own cursor.

import { Connection } from "./connection.js";
import { covers, union } from "./filters.js";
import { Follower, isOpen, partOf } from "./following.js";
import { Group } from "./group.js";

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
 * leader that was replaced is yielding until the new one is connected, so that no message is missing. An element that
 * can't share is alone.
 */
class SharedConnection {
  #subscription;
  #on;
  #own; // the connection of this element, and its requests as a follower
  #group;
  #follower;
  #role = "closed";
  #told = { link: "closed", until: 0, news: {} }; // what the element knows of the link
  #isTakingOver = false; // the element still follows, as it were, until this leader's own connection is open
  #wanted = new Map(); // by member: the filters of the others
  #requestedFilter;
  #filter; // that of the subscription in force

  constructor(url, subscription, on) {
    this.#subscription = subscription;
    this.#on = on;
    this.#filter = this.#requestedFilter = subscription.filter;
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
    this.#follower = new Follower(subscription, {
      frame: on.frame,
      page: on.page,
      link: (link, news) => this.#mirror(link, news),
      request: () => this.#own.catchUp(),
      drop: () => this.#own.close(),
      announce: () => this.#announce(),
      alone: () => this.#goAlone(),
    });
  }

  connect() {
    this.#leave("joining");
    this.#report("connecting");
    this.#group.join();
  }

  subscribe() {
    if (this.#role === "follower") this.#follower.catchUp();
    else this.#own.subscribe();
  }

  /** Connect to the origin of an edge that lacks events. Return false if the origin has been asked already. */
  askOrigin() {
    return this.#own.askOrigin();
  }

  /** Try now instead of later: the network or the reader is back. */
  resume() {
    if (this.#role === "closed") return isEnded(this.#told.link) && this.connect();
    if (this.#role !== "follower") return this.#own.resume();
    this.#group.post({ kind: "resume" });
    if (this.#follower.isCatchingUp) this.#own.catchUp();
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
    this.#follower.stop();
    this.#isTakingOver = false;
    this.#filter = this.#subscription.filter;
  }

  #report(link, news = {}) {
    const { until = 0 } = news;
    if (link === this.#told.link && until === this.#told.until) return;
    this.#told = { link, until, news };
    this.#on.link(link, { until: 0, outage: null, refusal: null, ...news });
  }

  // Roles

  #lead() {
    if (this.#role === "yielding") return (this.#role = "leader");
    this.#isTakingOver = this.#role === "follower" && isOpen(this.#told.link);
    this.#role = "leader";
    this.#follower.stop();
    this.#own.connect();
  }

  #follow() {
    if (["leader", "yielding"].includes(this.#role) && !this.#isTakingOver && isOpen(this.#told.link)) {
      this.#role = "yielding";
      return;
    }
    const hasFollowed = this.#isTakingOver;
    this.#becomeFollower();
    if (!hasFollowed) this.#follower.catchUp();
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
    this.#follower.stop();
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
    const isCurrent = this.#subscription.isAnswered || !isOpen(this.#told.link);
    return this.#role === "follower" && !this.#follower.isCatchingUp && isCurrent;
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
    if (this.#role !== "leader" || this.#isTakingOver || !isOpen(this.#told.link) || !isAnswered || behind) return;
    // A request in force or under way is enough: another one would drop it, and its answer would never come.
    if (!covers(this.#requestedFilter, this.#wideFilter)) this.#own.subscribe();
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
    this.#follower.stop();
    this.#own.close();
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
    this.#follower.principal = payload.principal;
    if (this.#isWide) this.#subscription.accept(payload);
    else this.#on.frame(frame);
    this.#isTakingOver = false;
    if (this.#subscription.isAnswered) this.#pass("frame", text, this.#subscription.received);
    this.#group.beat();
    this.#widen();
  }

  #handlePage(page, text) {
    if (this.#role === "follower") return this.#follower.take(page);
    const from = this.#subscription.received;
    if (this.#isWide && page.verdict !== "resumed") return this.#narrow();
    this.#filter = this.#requestedFilter;
    this.#follower.principal = page.principal;
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
    const isHeard = ["leader", "yielding"].includes(this.#role) && this.#wanted.size;
    if (isHeard) this.#group.post({ kind, text, from, ...this.#position });
  }

  get #position() {
    return { principal: this.#follower.principal, epoch: this.#subscription.epoch, filter: this.#filter };
  }

  #status() {
    const { received, isAnswered } = this.#subscription;
    const isConnected = isAnswered && !this.#isTakingOver;
    const { link, news } = this.#told;
    return { link, news, received, isConnected, wanted: this.#wideFilter, ...this.#position };
  }

  // Following

  #announce() {
    this.#group.post({ kind: "want", filter: this.#subscription.filter });
  }

  #hear(message) {
    const { kind, id } = message;
    if (kind === "bye") this.#wanted.delete(id);
    if (kind === "want") this.#welcome(message);
    if (kind === "resume" && this.#group.isLeader) this.#own.resume();
    if (this.#role === "yielding" && kind === "beat" && message.isConnected) this.#becomeFollower();
    if (this.#role === "follower" && ["beat", "frame", "page"].includes(kind)) this.#follower.hear(message);
  }

  #welcome({ id, filter }) {
    this.#wanted.set(id, filter);
    this.#group.beat();
    this.#widen();
  }

  /** Report the leader's link. */
  #mirror(link, news) {
    if (link === "refused" || link === "closed") return; // only that element ends
    if (!isOpen(link) && this.#subscription.isAnswered) this.#told.link = ""; // answered, but nothing follows
    this.#report(link, news);
    if (isEnded(link)) this.#end();
  }

  #endCatchUp() {
    if (this.#role !== "follower") return;
    this.#follower.endCatchUp();
    if (!this.#follower.isCatchingUp) this.#group.offer();
  }
}

function isEnded(link) {
  return link === "signed-out" || link === "refused";
}
