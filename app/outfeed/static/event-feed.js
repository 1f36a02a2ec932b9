/*
 * <event-feed>: the live feed of an Outfeed server, in any page with one tag.
 *
 *   <script type="module" src="/static/event-feed.js"></script>
 *   <event-feed></event-feed>
 *
 * Attributes, all optional; a change of the first seven subscribes anew, with an empty list:
 *   src         the WebSocket, "ws" of the server that this module comes from; the long poll is "api/feed" beside it
 *   types       which events: exact types or prefixes, "task.*,system.error"
 *   source, task-id, agent-id   which events: all that are given have to match
 *   limit       how many of the newest to begin with: 100; at most 1,000; 0 for none
 *   batch       "false" for one event a frame, paced one by one (else a frame holds what came since the last)
 *   audit       to show also what operators do with rights and history; without it only `types` that name it do
 *   theme       "light", "dark", or "auto" for what the reader's system has; without it, that of the page around
 *   log-href    the log, "swarm/events" of that server; the pages of tasks and agents lie beside it
 *   login-href  "login" of that server
 *   ticket-url  on another site: what answers a POST with the {"ticket": …} that the page's server gets from
 *               POST /api/tickets; there is no long poll then
 * Slots: "title" and "footer" stay; the other children are shown until the first row is. Colours come from the page's
 * custom properties (see look.js), light and dark from its color-scheme.
 *
 * Keys in the list: the arrows move, up from the first row out of the rows; Enter opens a row, Escape closes and then
 * leaves it; Home leads back to the newest; space pauses; "/" leads to the filter. No row moves while one has the focus
 * of the keyboard, is open, or the list is scrolled: what comes waits behind "12 new".
 *
 * Fires, bubbling and composed:
 *   event-feed:received  {events: [{event, seq, replayed}, …]}: as they come, also while the list is paused or read
 *   event-feed:event     {event, seq, replayed}: once for each, after it was shown; `replayed` is true for what had
 *                        happened before the feed (again) went live: nothing to notify anybody of
 *   event-feed:verdict   the verdict of the server on where the feed stands: live, resumed, gap or reset
 *   event-feed:erased    events were erased from the history: a list made before may show one of them
 *   event-feed:state     {state, behind, waiting, cursor, held, reason}; held: so much waits that nothing more is
 *                        received; reason: why the server can't read its database
 *
 * An integer in an event's data that a number can't hold is a Number object that has its digits as text and as JSON.
 *
 * Ways in: a WebSocket; where that fails and HTTP works, long poll, from which it climbs back. One cursor for both.
 *
 * Two positions: `received`, the last seq that is in memory, and the cursor, the last seq that is in the list. A
 * reconnect asks for what follows `received`: what waits between the two (paused, or scrolled away from the top) stays
 * in memory, so nothing is asked for twice or lost. The cursor moves, and is stored, only after its row is in the list.
 *
 * The server's own page puts rows of its log between the tags. If the feed has fewer than `limit`, since the outbox is
 * kept for less time than the log, the rows before them come from the log. After a reset or an erasure the list is made
 * anew: nothing stays in it that the database has not.
 *
 * The list holds the newest 500. When more wait for one frame, the oldest of them get no row, since newer ones would
 * push it out before anybody saw it; they count as seen: the cursor moves past them, and each is fired as an event.
 */

import { Bar, Filter } from "./event-feed/bar.js";
import { Connection } from "./event-feed/connection.js";
import { NUMBER, make } from "./event-feed/elements.js";
import { List, MAX_ROWS } from "./event-feed/list.js";
import { dress } from "./event-feed/look.js";
import { News, awayNotice, gapNotice, refusalNotice, resetNotice } from "./event-feed/news.js";
import { readLog } from "./event-feed/past.js";
import { ROOT } from "./event-feed/root.js";
import { Sentences } from "./event-feed/sentences.js";
import { Subscription, addressOf, remember, remembered, wantedBy } from "./event-feed/subscription.js";
import { Frame, Scroller } from "./event-feed/view.js";

const LOG = `${ROOT}swarm/events`;
const MAX_WAITING = 1000; // beyond it the connection is put down, and taken up again at `received` when rows flow
const EVENTS_A_STEP = 25;
const FRAME_MS = 6; // steps are taken for so long in each frame; layout and paint take more than the steps
const MAX_NEW = 20; // in a flood all would be highlighted, which says nothing and costs much

class EventFeed extends HTMLElement {
  static observedAttributes = ["src", "types", "source", "task-id", "agent-id", "limit", "batch", "theme"];

  #sentences = new Sentences();
  #filter = new Filter(() => this.#sift());
  #list = new List(this.#sentences, this.#filter, () => this.#logHref);
  #subscription = null;
  #news = new News();
  #connection = null;
  #link = "closed";
  #retryAt = 0;
  #isRefused = false;
  #refusal = null; // why this page can't open the feed
  #outage = null; // {reason, since}: why the server can't read its database, and since when
  #heardAt = null; // when the server last said that all is well
  #hasBegun = false; // since the page was opened
  #hasBeenLive = false;
  #erasures = null; // how many the history has had
  #remadeAt = null; // up to this seq the list is made anew with the next verdict
  #isSettled = false; // all that the feed had at its verdict is in the list
  #owed = []; // notices that belong above it
  #lastFill = null; // the answer of the log that the list waits for
  #hasLog = false; // the page's server has put rows of its log between the tags
  #isPaused = false;
  #isHeld = false;
  #wasHeld = false;
  #isReady = false;
  #waiting = [];
  #cursor = 0;
  #isStale = false; // an attribute changed
  #gap = null;
  #frame = new Frame(() => this.#render());
  #tick = 0;
  #state = "";
  #reason = null;
  #stopListening = null;
  #choose = () => {}; // the colours of the theme
  #scroller = new Scroller(this.#list, this.#filter, {
    look: () => this.#waiting.length && this.#frame.request(),
    top: () => this.showNew(),
    pause: () => this.#togglePause(),
  });
  #bar = new Bar(slot("title"), this.#filter, {
    retry: () => this.#connection.resume(),
    pill: () => this.#followPill(),
    pause: () => this.#togglePause(),
    gap: () => this.#showGap(),
  });

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    const head = make("div", "head", this.#bar.element);
    root.append(head, this.#scroller.element, slot("footer"), this.#bar.status);
  }

  /** One of connecting, live, polling, catching-up, paused, reconnecting, stale, signed-out, refused. */
  get state() {
    return this.#state;
  }

  /** The last seq in the list. */
  get cursor() {
    return this.#cursor;
  }

  /** How many events are received and not in the list. */
  get waiting() {
    return this.#waiting.length;
  }

  connectedCallback() {
    this.#stopListening = new AbortController();
    const { signal } = this.#stopListening;
    const wake = () => document.hidden || this.#wake();
    document.addEventListener("visibilitychange", wake, { signal });
    addEventListener("online", wake, { signal });
    this.#choose = dress(this.shadowRoot, this, signal);
    addEventListener("offline", () => this.#connection.check(), { signal });
    addEventListener("pageshow", ({ persisted }) => persisted && this.#connect(), { signal });
    addEventListener("pagehide", () => this.#connection.close(), { signal });
    this.#subscription ??= this.#newSubscription();
    this.#connection = this.#newConnection();
    this.#load();
    this.#connect();
  }

  disconnectedCallback() {
    this.#stopListening.abort();
    this.#connection.close();
    clearTimeout(this.#tick);
    this.#bar.hush();
    this.#frame.cancel();
  }

  attributeChangedCallback(name, before, now) {
    if (name === "theme") return this.#choose();
    if (!this.#subscription || this.#isStale || before === now) return; // not in a page yet, or about to begin anew
    this.#isStale = true;
    queueMicrotask(() => this.#beginAnew());
  }

  pause() {
    this.#isPaused = true;
    this.#update();
  }

  resume() {
    this.#isPaused = false;
    this.#frame.request();
    this.#update();
  }

  /** Show what waits, from the top. */
  showNew() {
    this.#scroller.toTop();
    this.#frame.request();
  }

  /** Put the cursor into the filter's text field. */
  focusFilter() {
    this.#filter.focus();
  }

  #followPill() {
    this.showNew();
    this.#scroller.focus(); // the pill goes
  }

  #togglePause() {
    if (this.#isPaused) this.resume();
    else this.pause();
  }

  // Reading

  #newConnection() {
    return new Connection(this.#address, this.getAttribute("ticket-url"), {
      link: (link, news) => this.#linkChanged(link, news),
      frame: (frame) => this.#read(frame),
      page: (page) => this.#readPage(page),
      request: () => this.#subscription.request(),
      query: (wait) => this.#subscription.query(wait),
    });
  }

  #newSubscription() {
    return new Subscription(wantedBy(this), this.getAttribute("batch") !== "false");
  }

  /** Forget what came by other attributes, and subscribe by the present ones. */
  #beginAnew() {
    this.#isStale = false;
    this.#subscription = this.#newSubscription();
    this.#news = new News();
    this.#waiting = [];
    this.#cursor = 0;
    this.#gap = this.#lastFill = null;
    this.#owed = [];
    this.#isRefused = this.#hasBeenLive = this.#scroller.isReading = this.#isSettled = false;
    this.#list.clear();
    if (!this.isConnected) return;
    this.#connection.close();
    this.#connection = this.#newConnection();
    this.#connect();
  }

  get #address() {
    return addressOf(this, ROOT);
  }

  async #load() {
    await this.#sentences.load();
    this.#isReady = true;
    this.#frame.request();
  }

  #connect() {
    this.#isHeld = false;
    this.#connection.connect();
  }

  #wake() {
    this.#list.restamp();
    this.#connection.resume();
    this.#frame.request();
  }

  #linkChanged(link, { until, outage, refusal }) {
    this.#refusal = refusal;
    if (until) this.#outage = outage && { reason: outage, since: this.#outage?.since ?? this.#heardAt };
    this.#link = link;
    this.#retryAt = until;
    if (link === "open" || link === "polling") this.#load();
    else {
      this.#news.interrupt();
      this.#subscription.interrupt();
    }
    this.#update();
  }

  #read({ type, seq, prev, payload }) {
    if (["subscribed", "event", "events", "heartbeat"].includes(type)) this.#isWell();
    if (type === "subscribed") this.#begin(payload);
    else if (type === "event") this.#receive(this.#subscription.take(prev, [{ ...payload, seq }]));
    else if (type === "events") this.#receive(this.#subscription.take(prev, payload));
    else if (type === "heartbeat") this.#beat(payload);
    else if (type === "stale") this.#tellStale(payload);
    else if (type === "error") this.#refuse(payload);
  }

  /** Long poll tells the same, a page at a time. */
  #readPage(page) {
    this.#isWell();
    const verdict = this.#subscription.verdictOf(page);
    if (verdict) this.#begin(verdict);
    this.#receive(this.#subscription.take(this.#subscription.received, page.events));
    this.#reach(page.cursor, page.head);
    if (!verdict) this.#noteErasures(page.erasures);
  }

  #beat({ cursor, erasures }) {
    this.#reach(cursor);
    this.#noteErasures(erasures);
  }

  #begin(verdict) {
    const before = this.#hasBegun ? null : remembered(this.#storageKey);
    const remadeAt = this.#remadeAt;
    this.#hasBegun = true;
    this.#isRefused = false;
    this.#remadeAt = null;
    this.#subscription.accept(verdict);
    this.#news.begin(verdict);
    if (remadeAt !== null) this.#owed.unshift(...this.#empty());
    if (verdict.verdict === "reset") this.#tellReset(verdict);
    else if (verdict.verdict === "gap" && verdict.missing.to > (remadeAt ?? 0)) this.#tellGap(verdict.missing);
    else if (before?.epoch === verdict.epoch) this.#tellAway(before.cursor + 1, verdict.after);
    this.#fire("verdict", verdict);
    this.#frame.request();
    this.#update();
    this.#noteErasures(verdict.erasures);
  }

  #receive(events) {
    if (events === null) return this.#connection.subscribe();
    const picked = this.#news.pick(events, this.#isAudited);
    const received = picked.filter(({ isAgain }) => !isAgain);
    this.#waiting.push(...picked);
    if (received.length) this.#fire("received", { events: received });
    this.#frame.request();
    this.#hold();
    this.#update();
  }

  /** All up to *cursor* has come; only a live subscriber gets heartbeats, so that by default is the head. */
  #reach(cursor, head = cursor) {
    this.#subscription.reach(cursor, head);
    this.#frame.request();
    this.#update();
  }

  /** Erased events are told by their number alone. If it has moved, receive again what the list holds. */
  #noteErasures(number = 0) {
    const before = this.#erasures;
    this.#erasures = number;
    if (before === null || before === number) return;
    const { received } = this.#subscription;
    const seqs = [...this.#list.seqs, ...this.#waiting.map(({ event }) => event?.seq)].filter(Boolean);
    this.#remadeAt = received;
    this.#news.repeat(received);
    this.#subscription.rewind(Math.min(received + 1, ...seqs) - 1);
    this.#fire("erased", {});
    this.#connection.subscribe();
  }

  /** Make the list anew: what is received from now on is all that it shows. Return the notices that it had. */
  #empty() {
    const notices = [...this.#list.notices, ...this.#waiting.flatMap(({ notice }) => notice ?? [])];
    this.#waiting = [];
    this.#lastFill = null;
    this.#isSettled = this.#scroller.isReading = false;
    this.#list.clear();
    this.#hasLog ||= this.#slotted.length > 0;
    for (const row of this.#slotted) row.remove();
    return notices;
  }

  /** The server is there and can't read its database; without a reason it can again. */
  #tellStale({ reason, since }) {
    if (reason === null) this.#isWell();
    else this.#outage = { reason, since: since && new Date(since) };
    this.#update();
  }

  #isWell() {
    this.#outage = null;
    this.#heardAt = new Date();
  }

  #refuse({ message }) {
    if (!this.#subscription.isAnswered) this.#connection.giveUp(); // the same request would be refused again
    if (this.#isRefused) return;
    this.#isRefused = true;
    this.#tell(refusalNotice(message));
  }

  /** Enough waits: put the connection down. What comes meanwhile waits on the server, and follows `received`. */
  #hold() {
    if (this.#waiting.length < MAX_WAITING || this.#isHeld || !(this.#isPaused || this.#scroller.isReading)) return;
    this.#isHeld = true;
    this.#connection.close();
  }

  // Telling

  #tell(notice) {
    this.#waiting.push({ notice });
    this.#frame.request();
    this.#update();
  }

  #tellGap(missing) {
    this.#mark(gapNotice(missing, this.#logHref));
  }

  #tellReset({ head }) {
    const ids = [...this.#list.ids, ...this.#waiting.map(({ event }) => event?.id)];
    this.#news.skip(ids.filter(Boolean), head); // a restored backup sends them once more
    this.#erasures = null;
    this.#empty();
    const { label, row } = resetNotice(this.#logHref);
    this.#gap = row;
    this.#owed = [row];
    this.#bar.mark(label);
  }

  #tellAway(from, to) {
    if (from <= to) this.#tell(awayNotice(from, to, this.#logHref));
  }

  get #logHref() {
    return this.getAttribute("log-href") ?? LOG;
  }

  #mark({ label, row }) {
    this.#gap = row;
    this.#bar.mark(label);
    this.#tell(row);
  }

  #showGap() {
    const notice = this.#gap;
    this.#gap = null;
    if (this.#waiting.some((item) => item.notice === notice)) {
      this.#isPaused = false;
      this.showNew();
      while (this.#isReady && this.#waiting.some((item) => item.notice === notice)) this.#frame.now();
    }
    if (!notice.isConnected) this.#list.render([{ notice }]); // newer rows have pushed it out
    notice.scrollIntoView({ block: "nearest" });
    notice.focus();
    this.#update();
  }

  // Showing

  #render() {
    if (this.#isReady && !this.#isPaused && !this.#scroller.isReading) this.#show();
    if (!this.#waiting.length && !this.#isSettled && this.#isReady) this.#settle();
    if (this.#isHeld && !this.#waiting.length) this.#connect();
    this.#update();
  }

  /** Take as many steps as a frame has time for. */
  #show() {
    const end = performance.now() + FRAME_MS;
    const isCalm = this.#waiting.length <= MAX_NEW;
    do this.#step(isCalm);
    while (this.#waiting.length && performance.now() < end);
    if (this.#waiting.length) this.#frame.request();
  }

  /** Give the next of what waits their rows; none to those that newer ones, which wait as well, would push out. */
  #step(isCalm) {
    const surplus = Math.max(0, this.#waiting.length - MAX_ROWS);
    const items = this.#waiting.splice(0, surplus ? Math.min(surplus, EVENTS_A_STEP) : EVENTS_A_STEP);
    if (items.length && !surplus) {
      this.#scroller.hideFallback();
      this.#list.render(items, isCalm);
    }
    const last = this.#waiting.length ? items.findLast(({ event }) => event)?.event.seq : this.#subscription.received;
    this.#remember(last ?? this.#cursor);
    for (const { event, replayed, isAgain } of items) {
      if (event && !isAgain) this.#fire("event", { event, seq: event.seq, replayed });
    }
  }

  /** The list has what the feed had at its verdict: what is missing before it, and what belongs above it, follow. */
  #settle() {
    if (!this.#subscription.isAnswered || this.#subscription.behind) return;
    this.#isSettled = true;
    this.#owed.splice(0).forEach((notice) => this.#tell(notice));
    const ids = new Set(this.#list.ids);
    const isShort = this.#list.ids.length < (wantedBy(this).last ?? 0);
    const isLonger = this.#hasLog || this.#slotted.some((row) => !ids.has(row.dataset.id));
    if (isShort && isLonger && !this.hasAttribute("ticket-url")) this.#fill();
  }

  /** Put the log's rows under those of the feed. */
  async #fill() {
    const fill = (this.#lastFill = {});
    const events = await readLog(this.#address, wantedBy(this));
    if (fill !== this.#lastFill) return; // the list was made anew meanwhile
    const picked = this.#news.pick(events, this.#isAudited);
    if (this.#list.append(picked)) this.#scroller.hideFallback();
  }

  get #slotted() {
    return [...this.querySelectorAll(".event[data-id]")];
  }

  get #isAudited() {
    return this.hasAttribute("types") || this.hasAttribute("audit");
  }

  /** Show what the filter lets through. */
  #sift() {
    this.#list.sift();
    this.#scroller.look();
    this.#update();
  }

  #remember(cursor) {
    const { epoch } = this.#subscription;
    if (epoch === null || cursor === this.#cursor) return;
    this.#cursor = cursor;
    remember(this.#storageKey, { epoch, cursor });
  }

  get #storageKey() {
    return `event-feed ${this.#address} ${JSON.stringify(wantedBy(this))}`;
  }

  // The bar

  #currentState() {
    if (this.#link === "signed-out") return "signed-out";
    if (this.#isRefused || this.#link === "refused") return "refused";
    if (this.#outage) return "stale";
    if (this.#isHeld) return "paused";
    if (!this.#subscription.isAnswered) {
      if (this.#link === "open") return this.#state; // for a moment, also between two ways in
      return this.#hasBeenLive || this.#link === "waiting" ? "reconnecting" : "connecting";
    }
    if (this.#isPaused) return "paused";
    if (this.#subscription.behind) return "catching-up";
    return this.#link === "polling" ? "polling" : "live";
  }

  #update() {
    if (!this.#subscription) return; // not in a page yet
    const state = this.#currentState();
    const { length } = this.#waiting;
    const waiting = `${NUMBER.format(length)}${this.#isHeld ? "+" : ""}`;
    if (state === "live" || state === "polling") this.#hasBeenLive = true;
    this.#bar.show({
      state,
      waiting: length ? waiting : "",
      behind: this.#subscription.behind,
      outage: this.#outage,
      refusal: this.#refusal,
      news: length && this.#scroller.isReading && !this.#isPaused ? `${waiting} new` : "",
      retryAt: this.#retryAt,
      loginHref: this.getAttribute("login-href") ?? `${ROOT}login`,
      isPolling: this.#link === "polling",
      isPaused: this.#isPaused,
      hasGap: this.#gap !== null,
    });
    this.#scroller.isBusy = state === "catching-up";
    clearTimeout(this.#tick);
    if (state === "reconnecting" || state === "stale") this.#tick = setTimeout(() => this.#update(), 1000);
    const reason = state === "stale" ? this.#outage.reason : null;
    if (state !== this.#state || this.#isHeld !== this.#wasHeld || reason !== this.#reason) this.#changeState(state, reason);
  }

  #changeState(state, reason) {
    const before = this.#state;
    this.#state = state;
    this.#reason = reason;
    this.#wasHeld = this.#isHeld;
    if (before && before !== state) this.#bar.announce(this.#bar.text);
    const { behind } = this.#subscription;
    const { length: waiting } = this.#waiting;
    this.#fire("state", { state, behind, waiting, cursor: this.#cursor, held: this.#isHeld, reason });
  }

  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(`event-feed:${name}`, { detail, bubbles: true, composed: true }));
  }
}

function slot(name) {
  return Object.assign(make("slot"), { name });
}

customElements.define("event-feed", EventFeed);
