/*
 * <event-feed>: the live feed of an Outfeed server, in any page with one tag.
 *
 *   <script type="module" src="/static/event-feed.js"></script>
 *   <event-feed></event-feed>
 *
 * Attributes, all optional. A change of one of the first seven subscribes again, with an empty list:
 *   src         the WebSocket, "ws" of the server that this module comes from; the long poll is "api/feed" beside it
 *   types       event types: exact types or prefixes, "task.*,system.error"
 *   source, task-id, agent-id   filters of events; an event must match all that are given
 *   limit       number of newest events to begin with: 100 by default, at most 1,000, 0 for none
 *   batch       "false" for one event per frame, each paced (by default a frame holds all events since the last)
 *   audit       also show audit events of operators; without it only `types` that name them show them
 *   theme       "light", "dark", or "auto" for the system's setting; by default that of the page
 *   controls    "compact" for a bar of one line, "none" for a bar without filter and Pause
 *   columns     parts of a row beside its sentence: "time,icon,source,task_id,agent_id" by default
 *   log-href    the log, "swarm/events" of that server; the pages of tasks and agents are beside it
 *   login-href  "login" of that server
 *   ticket-url  for another site: the page's server answers a POST here with the {"ticket": …} that it gets from
 *               POST /api/tickets; there is no long poll then
 * Slots: "title" and "footer" stay. The other children are shown until the first row. Colours come from the page's
 * custom properties (see look.js), light and dark from its color-scheme, or without one from its background.
 *
 * Keys in the list: the arrows move the focus, up from the first row to the list; Enter opens a row; Escape closes it,
 * then leaves it; Home scrolls to the newest row; space pauses; "/" focuses the filter. No row moves while a row has
 * the keyboard's focus or is open, or while the list is scrolled: new events then wait behind "12 new".
 *
 * Fires, bubbling and composed:
 *   event-feed:received  {events: [{event, seq, replayed}, …]}: received events, even if the list is paused or read
 *   event-feed:event     {event, seq, replayed}: once per event, after it was shown; `replayed` is true if the event is
 *                        older than the last connection: it needs no notification
 *   event-feed:verdict   the server's verdict on the subscription: live, resumed, gap or reset
 *   event-feed:erased    events were erased: a list made before may contain one of them
 *   event-feed:filter    {kinds, text}: the viewer has changed the filter
 *   event-feed:state     {state, behind, waiting, cursor, held, reason}; held: so many events wait that the connection
 *                        is closed; reason: why the server can't read its database
 *
 * An integer in an event's data that exceeds a number's precision is a Number object with its digits as text and JSON.
 *
 * Transports: a WebSocket. If it fails and HTTP works: long poll, from which it switches back. Both use one cursor. The
 * tabs of a browser share one connection (see shared.js). Each has its own filter and cursor.
 *
 * There are two positions: `received`, the last seq in memory, and the cursor, the last seq in the list. A reconnect
 * requests the events after `received`: the events between the two (the list is paused or scrolled) stay in memory, so
 * no event is requested twice or lost. The cursor moves, and is stored, only after its row is in the list.
 *
 * The server's own page contains rows of its log between the tags. If the feed has fewer than `limit` events, because
 * the outbox is kept for less time than the log, the log provides the rows before them. After a reset or an erasure the
 * list is rebuilt: it keeps no event that the database has lost.
 *
 * The list holds the newest 500. If more wait for one frame, the oldest of them get no row, since newer ones would
 * displace it before a reader saw it. They count as seen: the cursor moves past them, and each is fired as an event.
 */

import { Bar, Filter } from "./bar.js";
import { NUMBER, make, setText } from "./elements.js";
import { List, MAX_ROWS } from "./list.js";
import { applyStyle } from "./look.js";
import { News, awayNotice, gapNotice, refusalNotice, resetNotice } from "./news.js";
import { Past, readLog } from "./past.js";
import { ROOT } from "./root.js";
import { Sentences } from "./sentences.js";
import { createConnection } from "./shared.js";
import { Subscription, addressOf, storePlace, storedPlace, wantedBy } from "./subscription.js";
import { Tables } from "./tables.js";
import { Frame, Scroller } from "./view.js";

const LOG = `${ROOT}swarm/events`;
const MAX_WAITING = 1000; // above it the connection is closed, and opened again at `received` when rows are shown
const EVENTS_A_STEP = 25;
const FRAME_MS = 6; // time for steps in each frame; layout and paint take more than the steps
const SERVER_ROWS = 20; // the server's page has so many rows if its log has as many
const PAST_PAGES = 5; // so many are read if no row of one matches the filter
const MAX_NEW = 20; // with more new rows at once, a highlight of each says little and costs much

class EventFeed extends HTMLElement {
  static observedAttributes = ["src", "types", "source", "task-id", "agent-id", "limit", "batch", "theme", "columns"];

  #sentences = new Sentences();
  #tables = new Tables(this.#sentences, (isFirst) => this.#repaint(isFirst));
  #filter = new Filter(() => this.#applyFilter());
  #list = new List(this.#sentences, this.#filter, () => this.#logHref);
  #subscription = null;
  #news = new News();
  #connection = null;
  #link = "closed";
  #retryAt = 0;
  #isRefused = false;
  #refusal = null; // why this page can't open the feed
  #outage = null; // {reason, since}: why the server can't read its database, and since when
  #healthyAt = null; // time of the last sign that the server is well
  #hasBegun = false; // a verdict has come since the page was opened
  #hasBeenLive = false;
  #erasures = null; // number of erasures in the history
  #rebuildUntil = null; // up to this seq the next verdict rebuilds the list
  #isComplete = false; // the list has all events up to the verdict's head
  #noticesOnTop = []; // notices for the place above these events
  #away = null; // the notice of events that went by while this page was closed
  #currentFill = null; // identity of the current request to the log
  #hasLog = false; // the page's server put rows of its log between the tags
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
  #chooseColours = () => {}; // chooses the colours of the theme
  #nothing = make("p", "nothing");
  #hasShown = false; // rows have replaced the page's own children
  #past = new Past(() => this.#readPast());
  #scroller = new Scroller(this.#list, this.#filter, this.#past.element, {
    reading: () => this.#waiting.length && this.#frame.request(),
    end: () => this.#readPast(),
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
    this.#nothing.hidden = true;
    this.#scroller.element.append(this.#nothing);
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

  /** Number of events that are received but not in the list. */
  get waiting() {
    return this.#waiting.length;
  }

  connectedCallback() {
    this.#stopListening = new AbortController();
    const { signal } = this.#stopListening;
    const wake = () => document.hidden || this.#wake();
    document.addEventListener("visibilitychange", wake, { signal });
    addEventListener("online", wake, { signal });
    this.#chooseColours = applyStyle(this.shadowRoot, this, signal);
    addEventListener("offline", () => this.#connection.check(), { signal });
    addEventListener("pageshow", ({ persisted }) => persisted && this.#connect(), { signal });
    addEventListener("pagehide", () => this.#connection.close(), { signal });
    document.addEventListener("freeze", () => this.#connection.close(), { signal }); // a frozen page keeps every message
    document.addEventListener("resume", () => this.#connect(), { signal });
    this.#subscription ??= this.#newSubscription();
    this.#connection = this.#newConnection();
    if (this.#isOnOwnSite) this.#load();
    this.#connect();
  }

  disconnectedCallback() {
    this.#stopListening.abort();
    this.#connection.close();
    clearTimeout(this.#tick);
    this.#tables.stop();
    this.#bar.cancelAnnouncement();
    this.#frame.cancel();
  }

  attributeChangedCallback(name, before, now) {
    if (name === "theme") return this.#chooseColours();
    if (name === "columns") return this.#chooseColumns();
    if (!this.#subscription || this.#isStale || before === now) return; // not connected, or about to subscribe again
    this.#isStale = true;
    queueMicrotask(() => this.#resubscribe());
  }

  #chooseColumns() {
    const columns = this.getAttribute("columns");
    if (columns === null) delete this.#list.element.dataset.columns;
    else this.#list.element.dataset.columns = columns.split(/[\s,]+/).join(" ");
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

  /** Show the waiting events, from the top. */
  showNew() {
    this.#scroller.toTop();
    this.#frame.request();
  }

  /** The filter of the list: {kinds, text}. */
  get filter() {
    return this.#filter.value;
  }

  set filter(value) {
    this.#filter.value = value;
  }

  /** The kinds of events that the page counts, as {kind, colour, count}. Their chips show the counts. */
  set kinds(kinds) {
    this.#filter.kinds = kinds;
  }

  /** Focus the filter's text field. */
  focusFilter() {
    this.#filter.focus();
  }

  /** Move the focus by *step* rows, as the arrow keys do in the list. */
  moveFocus(step) {
    this.#scroller.move(step);
  }

  #followPill() {
    this.showNew();
    this.#scroller.focus(); // the pill disappears
  }

  #togglePause() {
    if (this.#isPaused) this.resume();
    else this.pause();
  }

  // Reading

  #newConnection() {
    return createConnection(this.#address, this.getAttribute("ticket-url"), this.#subscription, {
      link: (link, news) => this.#linkChanged(link, news),
      frame: (frame) => this.#handleFrame(frame),
      page: (page) => this.#handlePage(page),
    });
  }

  #newSubscription() {
    return new Subscription(wantedBy(this), this.getAttribute("batch") !== "false");
  }

  /** Discard the events of the former attributes, and subscribe by the current ones. */
  #resubscribe() {
    this.#isStale = false;
    this.#subscription = this.#newSubscription();
    this.#news = new News();
    this.#waiting = [];
    this.#cursor = 0;
    this.#gap = this.#currentFill = null;
    this.#noticesOnTop = [];
    this.#isRefused = this.#hasBeenLive = this.#scroller.isReading = this.#isComplete = false;
    this.#list.clear();
    if (!this.isConnected) return;
    this.#connection.close();
    this.#connection = this.#newConnection();
    this.#connect();
  }

  get #address() {
    return addressOf(this, ROOT);
  }

  /** Whether the displays can be fetched beside the connection. Elsewhere the server may refuse this page. */
  get #isOnOwnSite() {
    const isHere = !this.hasAttribute("src") && new URL(ROOT).origin === location.origin;
    return isHere && !this.hasAttribute("ticket-url");
  }

  async #load() {
    await this.#tables.load(() => this.#source);
    this.#isReady = true;
    this.#frame.request();
  }

  #connect() {
    this.#isHeld = false;
    this.#connection.connect();
  }

  #wake() {
    this.#list.refreshDates();
    this.#connection.resume();
    this.#frame.request();
  }

  #linkChanged(link, { until, outage, refusal }) {
    this.#refusal = refusal;
    if (until) this.#outage = outage && { reason: outage, since: this.#outage?.since ?? this.#healthyAt };
    this.#link = link;
    this.#retryAt = until;
    if (link === "open" || link === "polling") this.#load();
    else {
      this.#news.interrupt();
      this.#subscription.interrupt();
    }
    this.#update();
  }

  #handleFrame({ type, seq, prev, payload, end }) {
    if (["subscribed", "event", "events", "heartbeat"].includes(type)) this.#markHealthy();
    if (type === "subscribed") this.#handleVerdict(payload);
    else if (type === "event") this.#receive(this.#subscription.take(prev, [{ ...payload, seq }]));
    else if (type === "events") this.#receive(this.#subscription.take(prev, payload, end));
    else if (type === "heartbeat") this.#handleHeartbeat(payload);
    else if (type === "stale") this.#handleStale(payload);
    else if (type === "error") this.#handleRefusal(payload);
  }

  /** Handle a page of the long poll, which contains the same as frames. */
  #handlePage(page) {
    this.#markHealthy();
    const verdict = this.#subscription.verdictOf(page);
    if (verdict) this.#handleVerdict(verdict);
    this.#receive(this.#subscription.take(this.#subscription.received, page.events));
    this.#reach(page.cursor, page.head);
    if (!verdict) this.#noteErasures(page.erasures);
    this.#noteTypes(page.types);
  }

  #handleHeartbeat({ cursor, erasures, types }) {
    this.#reach(cursor);
    this.#noteErasures(erasures);
    this.#noteTypes(types);
  }

  /** So often a display has been changed. */
  #noteTypes(number = 0) {
    this.#tables.note(number, () => this.#source);
  }

  get #source() {
    return { feedUrl: this.#address, ticketUrl: this.getAttribute("ticket-url") };
  }

  /** The displays have changed. */
  #repaint(isFirst) {
    this.#list.repaint();
    if (!isFirst) this.#fire("types", {});
  }

  #handleVerdict(verdict) {
    if (verdict.verdict === "gap" && verdict.origin && this.#connection.askOrigin()) return;
    const before = this.#hasBegun ? null : storedPlace(this.#storageKey);
    const rebuildUntil = this.#rebuildUntil;
    this.#hasBegun = true;
    this.#isRefused = false;
    this.#rebuildUntil = null;
    this.#subscription.accept(verdict);
    this.#news.begin(verdict);
    if (rebuildUntil !== null) this.#noticesOnTop.unshift(...this.#emptyList());
    if (verdict.verdict === "reset") this.#addResetNotice(verdict);
    else if (verdict.verdict === "gap" && verdict.missing.to > (rebuildUntil ?? 0)) this.#addGapNotice(verdict.missing);
    else if (before?.epoch === verdict.epoch) this.#addAwayNotice(before.cursor + 1, verdict.after);
    this.#fire("verdict", verdict);
    this.#frame.request();
    this.#update();
    this.#noteErasures(verdict.erasures);
    this.#noteTypes(verdict.types);
  }

  #receive(events) {
    if (events === null) return this.#connection.subscribe();
    const picked = this.#news.pick(events, this.#isAudited);
    const received = picked.filter(({ isAgain }) => !isAgain);
    this.#waiting.push(...picked);
    if (received.length) this.#fire("received", { events: received });
    this.#frame.request();
    this.#closeIfFull();
    this.#update();
  }

  /** Record that all events up to *cursor* have come. A heartbeat comes at the head, so it has no *head*. */
  #reach(cursor, head = cursor) {
    this.#subscription.reach(cursor, head);
    this.#frame.request();
    this.#update();
  }

  /** Note the number of erasures. If it has changed, receive the list's events again: only their number is known. */
  #noteErasures(number = 0) {
    const before = this.#erasures;
    this.#erasures = number;
    if (before === null || before === number) return;
    const { received } = this.#subscription;
    const seqs = [...this.#list.seqs, ...this.#waiting.map(({ event }) => event?.seq)].filter(Boolean);
    this.#rebuildUntil = received;
    this.#news.repeat(received);
    this.#subscription.rewind(Math.min(received + 1, ...seqs) - 1);
    this.#fire("erased", {});
    this.#connection.subscribe();
  }

  /** Empty the list for a rebuild, also of rows from the log. Return its notices. */
  #emptyList() {
    const notices = [...this.#list.notices, ...this.#waiting.flatMap(({ notice }) => notice ?? [])];
    this.#waiting = [];
    this.#currentFill = null;
    this.#isComplete = this.#scroller.isReading = false;
    this.#list.clear();
    this.#past.offer(null);
    this.#hasLog ||= this.#slotted.length > 0;
    for (const row of this.#slotted) row.remove();
    return notices;
  }

  /** Handle that the server can't read its database; without a reason, that it can again. */
  #handleStale({ reason, since }) {
    if (reason === null) this.#markHealthy();
    else this.#outage = { reason, since: since && new Date(since) };
    this.#update();
  }

  #markHealthy() {
    this.#outage = null;
    this.#healthyAt = new Date();
  }

  #handleRefusal({ message }) {
    if (!this.#subscription.isAnswered) this.#connection.giveUp(); // the server would refuse the same request again
    if (this.#isRefused) return;
    this.#isRefused = true;
    this.#addNotice(refusalNotice(message));
  }

  /** Close the connection if enough events wait. Later events stay on the server, after `received`. */
  #closeIfFull() {
    if (this.#waiting.length < MAX_WAITING || this.#isHeld || !(this.#isPaused || this.#scroller.isReading)) return;
    this.#isHeld = true;
    this.#connection.close();
  }

  // Notices

  #addNotice(notice) {
    this.#waiting.push({ notice });
    this.#frame.request();
    this.#update();
  }

  #addGapNotice(missing) {
    this.#addMarkedNotice(gapNotice(missing, this.#logHref));
  }

  #addResetNotice({ head }) {
    const ids = [...this.#list.ids, ...this.#waiting.map(({ event }) => event?.id)];
    this.#news.skip(ids.filter(Boolean), head); // a restored backup sends these again
    this.#erasures = null;
    this.#emptyList();
    const { label, row } = resetNotice(this.#logHref);
    this.#gap = row;
    this.#noticesOnTop = [row];
    this.#bar.mark(label);
  }

  #addAwayNotice(from, to) {
    if (from > to) return;
    this.#away = awayNotice(from, to, this.#logHref);
    this.#addNotice(this.#away);
  }

  get #logHref() {
    return this.getAttribute("log-href") ?? LOG;
  }

  #addMarkedNotice({ label, row }) {
    this.#gap = row;
    this.#bar.mark(label);
    this.#addNotice(row);
  }

  #showGap() {
    const notice = this.#gap;
    this.#gap = null;
    if (this.#waiting.some((item) => item.notice === notice)) {
      this.#isPaused = false;
      this.showNew();
      while (this.#isReady && this.#waiting.some((item) => item.notice === notice)) this.#frame.now();
    }
    if (!notice.isConnected) this.#list.render([{ notice }]); // newer rows have displaced it
    notice.scrollIntoView({ block: "nearest" });
    notice.focus();
    this.#update();
  }

  // Rendering

  #render() {
    if (this.#isReady && !this.#isPaused && !this.#scroller.isReading) this.#show();
    if (!this.#waiting.length && !this.#isComplete && this.#isReady) this.#completeList();
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

  /** Render the next waiting items. Skip those that newer waiting ones would displace. */
  #step(isCalm) {
    const surplus = Math.max(0, this.#waiting.length - MAX_ROWS);
    const items = this.#waiting.splice(0, surplus ? Math.min(surplus, EVENTS_A_STEP) : EVENTS_A_STEP);
    if (items.length && !surplus) {
      this.#hideFallback();
      if (this.#list.render(items, isCalm)) this.#offerPast();
    }
    const last = this.#waiting.length ? items.findLast(({ event }) => event)?.event.seq : this.#subscription.received;
    this.#remember(last ?? this.#cursor);
    for (const { event, replayed, isAgain } of items) {
      if (event && !isAgain) this.#fire("event", { event, seq: event.seq, replayed });
    }
  }

  /** Once the list has all events up to the verdict's head, add the notices above them and the log's rows below. */
  #completeList() {
    if (!this.#subscription.isAnswered || this.#subscription.behind) return;
    this.#isComplete = true;
    this.#noticesOnTop.splice(0).forEach((notice) => this.#addNotice(notice));
    const ids = new Set(this.#list.ids);
    const isShort = this.#list.ids.length < (wantedBy(this).last ?? 0);
    const isLonger = this.#hasLog || this.#slotted.some((row) => !ids.has(row.dataset.id));
    if (isShort) this.#away?.remove(); // fewer events match than the list may have, so none of them is missing
    this.#away = null;
    if (isShort && isLonger && !this.hasAttribute("ticket-url")) this.#fill();
    else if (!isShort || this.#slotted.length >= SERVER_ROWS) this.#continueList();
  }

  /** Append the log's rows below those of the feed. */
  async #fill() {
    const fill = (this.#currentFill = {});
    const events = await readLog(this.#address, wantedBy(this));
    if (fill !== this.#currentFill) return; // the list was rebuilt in between
    const picked = this.#news.pick(events, this.#isAudited);
    if (this.#list.append(picked)) this.#hideFallback();
    this.#update();
    if (events.length >= wantedBy(this).last) this.#continueList();
  }

  /** Offer the log below the list, and read it if the rows leave space: groups are short. */
  #continueList() {
    this.#offerPast();
    if (this.#scroller.hasSpace) this.#readPast();
  }

  /** Continue into the log below the list, while its end is near. */
  async #readPast(pages = PAST_PAGES) {
    if (!this.#isComplete || !this.#list.hasSpace) return;
    const events = await this.#past.read(this.#address, wantedBy(this));
    if (!events) return;
    this.#list.append(this.#news.pick(events, this.#isAudited), true);
    this.#past.follow(this.#list.lastId);
    if ((this.#scroller.isAtEnd || this.#scroller.hasSpace) && pages > 1) await this.#readPast(pages - 1);
  }

  /** Offer the log before the list's last row. */
  #offerPast() {
    if (this.#isComplete && !this.hasAttribute("ticket-url")) this.#past.offer(this.#list.lastId);
  }

  #hideFallback() {
    this.#hasShown = true;
    this.#scroller.hideFallback();
  }

  /** Whether there is no event to show, and nothing of the page in its place. */
  get #isEmpty() {
    const hasFallback = !this.#hasShown && Array.from(this.children).some(({ slot }) => !slot);
    return this.#isComplete && !this.#list.element.childElementCount && !hasFallback && !this.#filter.isOn;
  }

  get #slotted() {
    return [...this.querySelectorAll(".event[data-id]")];
  }

  get #isAudited() {
    return this.hasAttribute("types") || this.hasAttribute("audit");
  }

  /** Show the rows that match the filter. */
  #applyFilter() {
    this.#list.applyFilter();
    this.#scroller.updateReading();
    this.#update();
    this.#fire("filter", this.#filter.value);
  }

  #remember(cursor) {
    const { epoch } = this.#subscription;
    if (epoch === null || cursor === this.#cursor) return;
    this.#cursor = cursor;
    storePlace(this.#storageKey, { epoch, cursor });
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
      if (this.#link === "open") return this.#state; // keeps the state for a moment, also during a change of transport
      return this.#hasBeenLive || this.#link === "waiting" ? "reconnecting" : "connecting";
    }
    if (this.#isPaused) return "paused";
    if (this.#subscription.behind) return "catching-up";
    return this.#link === "polling" ? "polling" : "live";
  }

  #update() {
    if (!this.#subscription) return; // not connected yet
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
    this.#nothing.hidden = !this.#isEmpty;
    setText(this.#nothing, this.#isEmpty ? "No events yet" : "");
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
