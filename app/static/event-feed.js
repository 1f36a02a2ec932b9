/*
 * <event-feed>: the live feed of an Outfeed server, in any page with one tag and no other file.
 *
 *   <script type="module" src="/static/event-feed.js"></script>
 *   <event-feed></event-feed>
 *
 * Attributes, all optional; a change of the first seven subscribes anew, with an empty list:
 *   src         the WebSocket, "/ws" beside this module; the long poll is "api/feed" beside it
 *   types       which events: exact types or prefixes, "task.*,system.error"
 *   source, task-id, agent-id   which events: all that are given have to match
 *   limit       how many of the newest to begin with: 100; at most 1,000; 0 for none
 *   batch       "false" for one event a frame, paced one by one (else a frame holds what came since the last)
 *   audit       to show also what operators do with rights and history; without it only `types` that name it do
 *   theme       "light", "dark", or "auto" for what the reader's system has; without it, that of the page around
 *   log-href, login-href        "/swarm/events" and "/login"
 *   ticket-url  on another site: what answers a POST with the {"ticket": …} that the page's server gets from
 *               POST /api/tickets; there is no long poll then
 * Slots: "title" and "footer" stay; the other children are shown until the first row is. Colours come from the page's
 * custom properties (see STYLE), light and dark from its color-scheme.
 *
 * Fires, bubbling and composed:
 *   event-feed:received  {events: [{event, seq, replayed}, …]}: as they come, also while the list is paused or read
 *   event-feed:event     {event, seq, replayed}: once for each, after it was shown; `replayed` is true for what had
 *                        happened before the feed (again) went live: nothing to notify anybody of
 *   event-feed:verdict   the verdict of the server on where the feed stands: live, resumed, gap or reset
 *   event-feed:state     {state, behind, waiting, cursor, held}; held: so much waits that nothing more is received
 *
 * Ways in: a WebSocket; where that fails and HTTP works, long poll, from which it climbs back. One cursor for both.
 *
 * Two positions: `received`, the last seq that is in memory, and the cursor, the last seq that is in the list. A
 * reconnect asks for what follows `received`: what waits between the two (paused, or scrolled away from the top) stays
 * in memory, so nothing is asked for twice or lost. The cursor moves, and is stored, only after its row is in the list.
 *
 * The list holds the newest 500. When more wait for one frame, the oldest of them get no row, since newer ones would
 * push it out before anybody saw it; they count as seen: the cursor moves past them, and each is fired as an event.
 */

const MAX_ROWS = 500;
const MAX_WAITING = 1000; // beyond it the connection is put down, and taken up again at `received` when rows flow
const EVENTS_A_STEP = 25;
const FRAME_MS = 6; // steps are taken for so long in each frame; layout and paint take more than the steps
const MAX_NEW = 20; // in a flood all would be highlighted, which says nothing and costs much
const MAX_PART_CHARS = 200;
const MAX_LAST = 1000; // the protocol's limit for `last`
const PAGE_EVENTS = 1000; // and for the `limit` of a poll

const SILENCE_MS = 45_000; // three of the server's heartbeats
const HANDSHAKE_MS = 10_000;
const ANSWER_MS = 10_000;
const PONG_MS = 3_000;
const HELD_MS = 5_000; // a connection that lasted this long ends a row of failures
const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 20_000;
const MAX_TOLD_WAIT_MS = 60_000;
const LONG_POLL_SECS = 25; // less than what proxies allow a request to take
const MAX_CUTS = 3; // after so many sockets in a row that were cut before they held, long poll is the better way in
const FIRST_CLIMB_MS = 2_000;
const MAX_CLIMB_MS = 120_000;
const ANNOUNCE_AFTER_MS = 1_000;

// What operators do with rights and history. The log has it; here it shows where it is asked for.
const AUDIT = /^(access\..*|system\.(pruned|restored))$/;

const RESTARTING = 1012;
const SIGNED_OUT = 4001;
const UNAUTHORIZED = 401;

// --- the connection --------------------------------------------------------------------------------------------------

/**
 * A connection that comes back: by WebSocket; where one can't be had though HTTP works (a proxy that forbids upgrades,
 * that lets no frame through, or that cuts each), by long poll, trying the WebSocket again now and then.
 *
 * Reports each change as (link, until): connecting, open, polling, waiting, signed-out, closed. Asks for the message
 * and the query that subscribe, and hands on frames and pages. A socket counts from its first frame on.
 */
class Connection {
  #url;
  #ticketUrl;
  #on;
  #socket = null;
  #spokeAt = null;
  #silence = 0;
  #poll = null;
  #polledSince = 0;
  #retry = 0;
  #failures = 0;
  #climbs = 0;
  #link = "closed";

  constructor(url, ticketUrl, on) {
    this.#url = url;
    this.#ticketUrl = ticketUrl;
    this.#on = on;
  }

  connect() {
    this.close();
    this.#openSocket();
    this.#report("connecting");
  }

  /** Ask for what is wanted now, in place of what was. */
  subscribe() {
    if (this.#link === "open") this.#send(this.#on.request());
    if (this.#link === "polling") this.#ask(0);
  }

  /** The network or the reader is back: try now instead of later, and don't trust a connection that slept. */
  resume() {
    if (this.#link === "waiting" || this.#link === "signed-out") return this.connect();
    if (this.#link === "open") {
      this.#send({ action: "ping" });
      this.#expectFrameWithin(PONG_MS);
    }
    if (this.#link === "polling") {
      this.#ask(0);
      this.#climb();
    }
  }

  close() {
    this.#putDown();
    this.#report("closed");
  }

  // The WebSocket

  #openSocket() {
    if (this.#ticketUrl) this.#askForTicket();
    else this.#openSocketAt(this.#url);
  }

  /** On another site no cookie lets us in: the page's own server gets a ticket for each socket. */
  async #askForTicket() {
    const asking = (this.#poll = new AbortController());
    const signal = AbortSignal.any([asking.signal, AbortSignal.timeout(ANSWER_MS)]);
    const answer = await fetchAnswer(this.#ticketUrl, signal, "POST");
    if (asking.signal.aborted) return;
    if (answer.body?.ticket) this.#openSocketAt(`${this.#url}?ticket=${encodeURIComponent(answer.body.ticket)}`);
    else this.#turnedAway(answer);
  }

  #openSocketAt(url) {
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = () => {
      this.#stopPolling();
      clearTimeout(this.#retry);
      this.#expectFrameWithin(HANDSHAKE_MS);
      this.#report("open");
      this.subscribe();
    };
    socket.onmessage = ({ data }) => {
      this.#spokeAt ??= performance.now();
      this.#expectFrameWithin(SILENCE_MS);
      this.#on.frame(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#expectFrameWithin(HANDSHAKE_MS);
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #expectFrameWithin(ms) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(1006, ""), ms);
  }

  #dropSocket() {
    clearTimeout(this.#silence);
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = this.#spokeAt = null;
    socket.onopen = socket.onmessage = socket.onclose = null; // a dead peer's close event can take minutes
    socket.close();
  }

  #lost(code, reason) {
    const spokeAt = this.#spokeAt;
    this.#dropSocket();
    if (this.#link === "polling") return this.#climbLater(); // it was a try, and polling goes on
    if (spokeAt !== null && performance.now() - spokeAt >= HELD_MS) this.#failures = this.#climbs = 0;
    const told = code === RESTARTING && /retry_ms=(\d+)/.exec(reason);
    if (code === SIGNED_OUT) this.#signedOut();
    else if (told) this.#wait(Number(told[1]));
    else if (this.#ticketUrl || (spokeAt !== null && this.#failures < MAX_CUTS)) this.#backOff();
    else this.#stepDown();
  }

  // Long poll

  /** A browser doesn't say why a handshake failed, so ask over HTTP; where that works, stay with it. */
  #stepDown() {
    this.#report("waiting");
    this.#ask(0);
  }

  async #ask(wait) {
    this.#stopPolling();
    const poll = (this.#poll = new AbortController());
    const url = new URL("api/feed", this.#url.replace(/^ws/, "http"));
    url.search = this.#on.query(wait);
    const late = AbortSignal.timeout(wait * 1000 + ANSWER_MS);
    const answer = await fetchAnswer(url, AbortSignal.any([poll.signal, late]));
    if (poll.signal.aborted) return;
    if (answer.status !== 200) return this.#turnedAway(answer);
    this.#keepPolling();
    this.#on.page(answer.body);
    if (!poll.signal.aborted) this.#ask(LONG_POLL_SECS);
  }

  #keepPolling() {
    if (this.#link !== "polling") {
      this.#polledSince = performance.now();
      this.#report("polling");
      this.#climbLater();
    } else if (performance.now() - this.#polledSince >= HELD_MS) this.#failures = 0;
  }

  #turnedAway({ status, body, retryMs }) {
    if (status === UNAUTHORIZED) return this.#signedOut();
    const isRefusal = status >= 400 && status < 500 && retryMs === null && body?.detail;
    if (isRefusal) this.#on.frame({ type: "error", payload: { message: body.detail } });
    if (retryMs !== null) this.#wait(retryMs * (1 + Math.random() / 4)); // told to many at once
    else this.#backOff();
  }

  #stopPolling() {
    this.#poll?.abort();
    this.#poll = null;
  }

  #climbLater() {
    const ms = Math.min(MAX_CLIMB_MS, FIRST_CLIMB_MS * 2 ** this.#climbs);
    this.#climbs += 1;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#climb(), ms * (0.5 + Math.random() / 2));
  }

  /** Try the WebSocket while polling goes on, which ends when the socket opens. */
  #climb() {
    clearTimeout(this.#retry);
    this.#dropSocket();
    this.#openSocket();
  }

  // Neither

  #backOff() {
    this.#wait(Math.random() * Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** this.#failures));
    this.#failures += 1;
  }

  #wait(wanted) {
    const ms = Math.min(wanted, MAX_TOLD_WAIT_MS);
    this.#putDown();
    this.#retry = setTimeout(() => this.connect(), ms);
    this.#report("waiting", Date.now() + ms);
  }

  #signedOut() {
    this.#putDown();
    this.#report("signed-out");
  }

  #putDown() {
    this.#dropSocket();
    this.#stopPolling();
    clearTimeout(this.#retry);
  }

  #report(link, until = 0) {
    if (link === this.#link && !until) return;
    this.#link = link;
    this.#on.link(link, until);
  }
}

/** Return {status, body, retryMs}; the status is 0 where nobody answers, or something that speaks no JSON. */
async function fetchAnswer(url, signal, method = "GET") {
  try {
    const answer = await fetch(url, { method, credentials: "include", cache: "no-store", signal });
    const body = await answer.json().catch(() => null);
    return { status: answer.ok && !body ? 0 : answer.status, body, retryMs: retryMsOf(answer) };
  } catch {
    return { status: 0, body: null, retryMs: null };
  }
}

/** What Retry-After asks for, in seconds or as a date; null where it asks for nothing. */
function retryMsOf({ headers }) {
  const told = headers.get("Retry-After");
  const ms = /^\d+$/.test(told) ? Number(told) * 1000 : Date.parse(told) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}

// --- the subscription ------------------------------------------------------------------------------------------------

/** What is asked for, and how far it has come. Knows the frames and pages; knows no DOM and no connection. */
class Subscription {
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
  verdictOf({ epoch, verdict, missing, events, cursor, head }) {
    if (this.isAnswered && verdict === "resumed") return null;
    const before = verdict === "resumed" ? this.received : (events[0]?.seq ?? cursor + 1) - 1;
    return { channel: "events", epoch, verdict, ...(missing && { missing }), after: missing?.to ?? before, head };
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

  /** What was asked is not answered any more: the connection is gone. */
  interrupt() {
    this.isAnswered = false;
  }
}

// --- sentences -------------------------------------------------------------------------------------------------------

const OTHER = "other";
const KINDS = ["task", "agent", "bid", "tool", "system", OTHER];
const EVENT_FIELDS = new Set(["id", "event_type", "source", "task_id", "agent_id", "timestamp"]);
// What Python's str.split() splits at, which differs from \s: the page and the terminal show the same text.
const SPACES = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;

/** Nobody reads kilobytes in one line; the opened row shows them all. */
function cut(text) {
  return text.length <= MAX_PART_CHARS ? text : `${[...text].slice(0, MAX_PART_CHARS).join("")}…`;
}

/** How each type looks: the server's one table, and the same rules as its `display_of` and `_fill`. */
class Sentences {
  #table = {};
  #loading = null;

  /** Fetch the table once. Without it every type has the look of an unlisted one, until the next call. */
  load() {
    this.#loading ??= this.#fetch().catch(() => (this.#loading = null));
    return this.#loading;
  }

  async #fetch() {
    const answer = await fetch(new URL("event-types.json", import.meta.url), { signal: AbortSignal.timeout(PONG_MS) });
    this.#table = await answer.json();
  }

  displayOf(type) {
    if (Object.hasOwn(this.#table, type)) return this.#table[type];
    const [prefix, ...rest] = type.split(".");
    const words = (rest.join(".") || prefix).replace(/[_.]/g, " ");
    const label = words.charAt(0).toUpperCase() + words.slice(1).toLowerCase() || "Event";
    const said = { keys: ["message", "description", "name", "reason"], fallback: label };
    const kind = KINDS.includes(prefix) ? prefix : OTHER;
    return { icon: "•", label, kind, error: false, sentence: [`${type}: `, said] };
  }

  /** Return [text, is a name from the event] parts, in order. */
  partsOf(event, display) {
    return display.sentence.map((part) => (
      typeof part === "string" ? [part, false] : [cut(this.#fill(part, event)), true]
    ));
  }

  #fill({ keys, fallback }, event) {
    const data = event.data instanceof Object && !Array.isArray(event.data) ? event.data : {};
    for (const key of keys) {
      const own = Object.hasOwn(data, key) ? data[key] : null;
      const value = own ?? (EVENT_FIELDS.has(key) ? event[key] : null);
      if (typeof value !== "string" && typeof value !== "number") continue;
      const words = String(value).split(SPACES).filter(Boolean);
      if (words.length) return words.join(" ");
    }
    return fallback;
  }
}

// --- the list --------------------------------------------------------------------------------------------------------

const TIME = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const SHORT_TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const NUMBER = new Intl.NumberFormat();
const DATE = /^\d{4}-\d\d-\d\d/; // Date also reads "1" as a day in 2001
const NO_ZONE = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/;

/** The moment that *text* names, or null; what has no zone is UTC, as SQLite's datetime() writes it. */
function momentOf(text) {
  const moment = new Date(NO_ZONE.test(text) ? `${text}Z` : text);
  return DATE.test(text) && !Number.isNaN(moment.valueOf()) ? moment : null;
}

/** The time of day in the reader's zone, with the date unless it is today's; to the minute where it is to be short. */
export function clockOf(moment, isShort = false) {
  const time = (isShort ? SHORT_TIME : TIME).format(moment);
  return moment.toDateString() === new Date().toDateString() ? time : `${DAY.format(moment)} ${time}`;
}

function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children); // strings become text nodes: what an event holds is never read as HTML
  return element;
}

/** Long ids keep their end: time-ordered ids made together all begin alike. */
function shorten(id) {
  return id.length > 20 ? `…${id.slice(-8)}` : id;
}

/** The controls that narrow the list: a chip for each kind that has occurred, and text. None pressed is all. */
class Filter {
  element = make("div", "filter");
  nothing = make("p", "nothing", "No row in the list matches. ");
  #input = make("input");
  #count = make("span", "count");
  #chips = new Map(KINDS.map((kind) => [kind, this.#chip(kind)]));
  #pressed = new Set();
  #words = [];
  #onchange;

  constructor(onchange) {
    this.#onchange = onchange;
    const chips = make("div", "chips", ...this.#chips.values());
    chips.role = "group";
    chips.ariaLabel = "Show only";
    Object.assign(this.#input, { type: "search", placeholder: "Filter rows", maxLength: 200, autocomplete: "off" });
    this.#input.spellcheck = false;
    this.#input.ariaLabel = "Filter the rows by text";
    this.#input.ariaKeyShortcuts = "/";
    this.#input.oninput = () => this.#change();
    this.element.role = "search";
    this.element.ariaLabel = "Rows";
    this.element.append(this.#count, chips, this.#input);
    const button = make("button", "", "Show all rows");
    button.onclick = () => this.clear();
    this.nothing.append(button);
    this.nothing.hidden = true;
  }

  get isOn() {
    return this.#pressed.size > 0 || this.#words.length > 0;
  }

  /** Whether a row is of a pressed kind, and has all words of the text in it. */
  matches({ kind, text }) {
    return (!this.#pressed.size || this.#pressed.has(kind)) && this.#words.every((word) => text.includes(word));
  }

  /** A row of *kind* has come: from now on it can be chosen. */
  offer(kind) {
    this.#chips.get(kind)?.removeAttribute("hidden");
  }

  tell(shown, all) {
    setText(this.#count, this.isOn ? `${NUMBER.format(shown)} of ${NUMBER.format(all)}` : "");
    this.nothing.hidden = !this.isOn || shown > 0;
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  clear() {
    for (const chip of this.#chips.values()) chip.ariaPressed = "false";
    this.#pressed.clear();
    this.#input.value = "";
    this.#change();
  }

  #chip(kind) {
    const chip = make("button", "", kind.charAt(0).toUpperCase() + kind.slice(1));
    chip.dataset.kind = kind;
    chip.ariaPressed = "false";
    chip.hidden = true;
    chip.onclick = () => this.#press(chip, kind);
    return chip;
  }

  #press(chip, kind) {
    if (!this.#pressed.delete(kind)) this.#pressed.add(kind);
    chip.ariaPressed = String(this.#pressed.has(kind));
    this.#change();
  }

  #change() {
    this.#words = this.#input.value.toLowerCase().split(SPACES).filter(Boolean);
    this.#onchange();
  }
}

/** The rows on screen, newest first, at most MAX_ROWS. */
class List {
  element = make("ol", "rows");
  #sentences;
  #filter;
  #today = "";
  #items = new WeakMap(); // row → {event, kind, text}

  constructor(sentences, filter) {
    this.#sentences = sentences;
    this.#filter = filter;
    this.element.addEventListener("toggle", ({ target }) => this.#fillDetails(target), true);
    this.element.addEventListener("click", (event) => {
      // By a pointer that selected text: not meant to open the row. A click by the keyboard has no detail.
      if (event.detail && getSelection().type === "Range") event.preventDefault();
    });
  }

  get ids() {
    return Array.from(this.element.children, (row) => this.#items.get(row)?.event.id);
  }

  /** Put *items*, oldest first, on top; those that are live are highlighted if they are few. */
  render(items, isCalm = true) {
    this.restamp();
    this.element.prepend(...items.map((item) => item.notice ?? this.#row(item, isCalm && !item.replayed)).reverse());
    while (this.element.childElementCount > MAX_ROWS) this.element.lastElementChild.remove();
    if (this.#filter.isOn) this.#tellFilter();
  }

  clear() {
    this.element.replaceChildren();
    this.sift();
  }

  /** Show the rows that the filter lets through, and the notices. */
  sift() {
    for (const row of this.element.children) {
      const item = this.#items.get(row);
      row.hidden = item !== undefined && !this.#filter.matches(item);
    }
    this.#tellFilter();
  }

  #tellFilter() {
    const rows = [...this.element.querySelectorAll(".event")];
    this.#filter.tell(rows.filter((row) => !row.hidden).length, rows.length);
  }

  get isOpen() {
    return this.element.querySelector("li:not([hidden]) details[open]") !== null;
  }

  close() {
    for (const details of this.element.querySelectorAll("details[open]")) details.open = false;
  }

  /** Move the focus by *step* rows; from outside the rows to the first one in view. */
  move(step) {
    const handles = [...this.element.querySelectorAll("li:not([hidden]) summary, .notice")];
    const focused = handles.indexOf(this.element.getRootNode().activeElement);
    const top = this.element.parentElement.getBoundingClientRect().top;
    const first = handles.findIndex((handle) => handle.getBoundingClientRect().top >= top);
    handles[focused < 0 ? first : Math.max(0, focused + step)]?.focus();
  }

  #row({ event }, isNew) {
    const display = this.#sentences.displayOf(String(event.event_type));
    const parts = this.#sentences.partsOf(event, display);
    const sentence = make("span", "sentence", ...parts.map(([text, isName]) => (isName ? make("b", "", text) : text)));
    const icon = make("span", "icon", display.icon);
    icon.ariaHidden = "true";
    const summary = make("summary", "", icon, sentence, this.#time(event.timestamp), this.#meta(event, parts));
    summary.tabIndex = -1;
    const row = make("li", "event", make("details", "", summary));
    row.dataset.kind = display.kind;
    row.dataset.seq = event.seq;
    row.classList.toggle("error", display.error);
    row.classList.toggle("new", isNew);
    const said = [event.event_type, event.source, event.task_id, event.agent_id, ...parts.map(([text]) => text)];
    const item = { event, kind: display.kind, text: said.join(" ").toLowerCase() };
    this.#items.set(row, item);
    this.#filter.offer(display.kind);
    row.hidden = !this.#filter.matches(item);
    return row;
  }

  #time(timestamp) {
    const text = String(timestamp ?? "");
    const moment = momentOf(text);
    const time = make("time", "", moment ? clockOf(moment) : text);
    time.title = text;
    if (moment) time.dateTime = moment.toISOString();
    return time;
  }

  /** A list left open overnight: what was today's gets its date. */
  restamp() {
    const today = new Date().toDateString();
    if (today === this.#today) return;
    this.#today = today;
    for (const time of this.element.querySelectorAll("time[datetime]")) {
      time.textContent = clockOf(new Date(time.dateTime));
    }
  }

  /** Source and ids, without those that the sentence already names. */
  #meta(event, parts) {
    const said = new Set(parts.filter(([, isName]) => isName).map(([text]) => text));
    const meta = make("span", "meta");
    for (const field of ["source", "task_id", "agent_id"]) {
      const value = event[field];
      if (!value || said.has(String(value))) continue;
      const item = make("span", field, shorten(String(value)));
      item.title = `${field} ${value}`;
      meta.append(item);
    }
    return meta;
  }

  /** The details are made when a row is first opened: most never are. */
  #fillDetails(details) {
    if (!details.open || details.childElementCount > 1) return;
    const { data, omitted_bytes: omitted, ...fields } = this.#items.get(details.closest("li")).event;
    const list = make("dl");
    for (const [name, value] of Object.entries(fields)) {
      if (value) list.append(make("div", "", make("dt", "", name), make("dd", "", String(value))));
    }
    const left = omitted ? `${NUMBER.format(omitted)} bytes of data are too large to be sent here.` : null;
    details.append(make("div", "more", list));
    if (left || data !== null) details.lastChild.append(make("pre", "", left ?? JSON.stringify(data, null, 2)));
  }
}

function noticeRow(title, text, link) {
  const row = make("li", "notice", make("b", "", title), make("span", "", ` ${text} `));
  if (link) row.append(link);
  row.tabIndex = -1;
  return row;
}

function rangeOf(from, to) {
  return from === to ? NUMBER.format(from) : `${NUMBER.format(from)} to ${NUMBER.format(to)}`;
}

function linkTo(href, text) {
  const link = make("a", "", text);
  link.href = href;
  return link;
}

// --- the element -----------------------------------------------------------------------------------------------------

class EventFeed extends HTMLElement {
  static observedAttributes = ["src", "types", "source", "task-id", "agent-id", "limit", "batch"];

  #sentences = new Sentences();
  #filter = new Filter(() => this.#sift());
  #list = new List(this.#sentences, this.#filter);
  #subscription = null;
  #connection = null;
  #link = "closed";
  #retryAt = 0;
  #isRefused = false;
  #hasBegun = false; // since the page was opened
  #hasBeenLive = false;
  #isPaused = false;
  #isHeld = false;
  #wasHeld = false;
  #isReady = false;
  #waiting = [];
  #cursor = 0;
  #isInterrupted = true; // between two verdicts there was no way in
  #replayedUntil = 0; // events up to here had happened before the feed went live
  #isStale = false; // an attribute changed
  #shownBefore = { ids: new Set(), until: 0 };
  #gap = null;
  #isReading = false; // scrolled away from the top, or a row is open: rows must not move
  #frame = 0;
  #frameTimer = 0;
  #tick = 0;
  #announceTimer = 0;
  #state = "";
  #stopListening = null;
  #view = this.#build();

  /** One of connecting, live, polling, catching-up, paused, reconnecting, signed-out, refused. */
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
    for (const timer of [this.#tick, this.#announceTimer, this.#frameTimer]) clearTimeout(timer);
    cancelAnimationFrame(this.#frame);
    this.#frame = 0;
  }

  attributeChangedCallback(name, before, now) {
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
    this.#schedule();
    this.#update();
  }

  /** Show what waits, from the top. */
  showNew() {
    this.#list.close();
    this.#view.scroller.scrollTop = 0;
    this.#isReading = false;
    this.#schedule();
  }

  /** Put the cursor into the filter's text field. */
  focusFilter() {
    this.#filter.focus();
  }

  // Reading

  #newConnection() {
    return new Connection(this.#address(), this.getAttribute("ticket-url"), {
      link: (link, until) => this.#linkChanged(link, until),
      frame: (frame) => this.#read(frame),
      page: (page) => this.#readPage(page),
      request: () => this.#subscription.request(),
      query: (wait) => this.#subscription.query(wait),
    });
  }

  #newSubscription() {
    return new Subscription(this.#wanted(), this.getAttribute("batch") !== "false");
  }

  /** Forget what came by other attributes, and subscribe by the present ones. */
  #beginAnew() {
    this.#isStale = false;
    this.#subscription = this.#newSubscription();
    this.#waiting = [];
    this.#cursor = 0;
    this.#replayedUntil = 0;
    this.#gap = null;
    this.#shownBefore = { ids: new Set(), until: 0 };
    this.#isRefused = this.#hasBeenLive = this.#isReading = false;
    this.#list.clear();
    if (!this.isConnected) return;
    this.#connection.close();
    this.#connection = this.#newConnection();
    this.#connect();
  }

  #address() {
    const url = new URL(this.getAttribute("src") || "/ws", import.meta.url);
    url.protocol = url.protocol.replace("http", "ws");
    return url.href;
  }

  #wanted() {
    const limit = Number(this.getAttribute("limit") ?? 100);
    const wanted = limit >= 1 ? { last: Math.min(MAX_LAST, Math.floor(limit)) } : {};
    const types = this.getAttribute("types")?.split(",").map((type) => type.trim()).filter(Boolean);
    if (types?.length) wanted.types = types;
    for (const name of ["source", "task-id", "agent-id"]) {
      const value = this.getAttribute(name);
      if (value) wanted[name.replace("-", "_")] = value;
    }
    return wanted;
  }

  async #load() {
    await this.#sentences.load();
    this.#isReady = true;
    this.#schedule();
  }

  #connect() {
    this.#isHeld = false;
    this.#connection.connect();
  }

  #wake() {
    this.#list.restamp();
    this.#connection.resume();
    this.#schedule();
  }

  #linkChanged(link, until) {
    this.#link = link;
    this.#retryAt = until;
    if (link === "open" || link === "polling") this.#load();
    else {
      this.#isInterrupted = true;
      this.#subscription.interrupt();
    }
    this.#update();
  }

  #read({ type, seq, prev, payload }) {
    if (type === "subscribed") this.#begin(payload);
    else if (type === "event") this.#receive(this.#subscription.take(prev, [{ ...payload, seq }]));
    else if (type === "events") this.#receive(this.#subscription.take(prev, payload));
    else if (type === "heartbeat") this.#reach(payload.cursor);
    else if (type === "error") this.#refuse(payload);
  }

  /** Long poll tells the same, a page at a time. */
  #readPage(page) {
    const verdict = this.#subscription.verdictOf(page);
    if (verdict) this.#begin(verdict);
    this.#receive(this.#subscription.take(this.#subscription.received, page.events));
    this.#reach(page.cursor, page.head);
  }

  #begin(verdict) {
    const before = this.#hasBegun ? null : this.#remembered();
    this.#hasBegun = true;
    this.#isRefused = false;
    this.#subscription.accept(verdict);
    if (this.#isInterrupted || verdict.verdict === "reset") this.#replayedUntil = verdict.head;
    this.#isInterrupted = false;
    if (verdict.verdict === "gap") this.#tellGap(verdict.missing);
    else if (verdict.verdict === "reset") this.#tellReset(verdict);
    else if (before?.epoch === verdict.epoch) this.#tellAway(before.cursor + 1, verdict.after);
    this.#fire("verdict", verdict);
    this.#schedule();
    this.#update();
  }

  #receive(events) {
    if (events === null) return this.#connection.subscribe();
    const { ids, until } = this.#shownBefore;
    const received = [];
    const isAudited = this.hasAttribute("types") || this.hasAttribute("audit");
    for (const event of events) {
      if (event.seq <= until && ids.has(event.id)) continue;
      if (AUDIT.test(event.event_type) && !isAudited) continue;
      received.push({ event, seq: event.seq, replayed: event.seq <= this.#replayedUntil });
    }
    this.#waiting.push(...received);
    if (received.length) this.#fire("received", { events: received });
    this.#schedule();
    this.#hold();
    this.#update();
  }

  /** All up to *cursor* has come; only a live subscriber gets heartbeats, so that by default is the head. */
  #reach(cursor, head = cursor) {
    this.#subscription.reach(cursor, head);
    this.#schedule();
    this.#update();
  }

  #refuse({ message }) {
    if (this.#isRefused) return;
    this.#isRefused = true;
    this.#tell(noticeRow("The server refused this.", String(message)));
  }

  /** Enough waits: put the connection down. What comes meanwhile waits on the server, and follows `received`. */
  #hold() {
    if (this.#waiting.length < MAX_WAITING || this.#isHeld || !(this.#isPaused || this.#isReading)) return;
    this.#isHeld = true;
    this.#connection.close();
  }

  // Telling

  #tell(notice) {
    this.#waiting.push({ notice });
    this.#schedule();
    this.#update();
  }

  #tellGap({ from, to }) {
    const range = rangeOf(from, to);
    const text = "They were pruned before this page could show them. The log is kept longer:";
    this.#mark(`Gap ${range}`, noticeRow(`Gap: events ${range} are not in the feed any more.`, text, this.#logLink()));
  }

  #tellReset({ head }) {
    const ids = [...this.#list.ids, ...this.#waiting.map(({ event }) => event?.id)];
    this.#shownBefore = { ids: new Set(ids.filter(Boolean)), until: head }; // a restored backup sends them once more
    const text = "The database was replaced or restored; rows below this line are from before it. What it holds now:";
    this.#mark("Feed began anew", noticeRow("Reset: the feed began anew.", text, this.#logLink()));
  }

  #tellAway(from, to) {
    if (from > to) return;
    const title = `Events ${rangeOf(from, to)} went by while this page was closed.`;
    this.#tell(noticeRow(title, "They are in the log:", this.#logLink()));
  }

  #logLink() {
    return linkTo(this.getAttribute("log-href") ?? "/swarm/events", "show all events");
  }

  #mark(text, notice) {
    this.#gap = notice;
    this.#view.gap.textContent = text;
    this.#announce(text);
    this.#tell(notice);
  }

  #showGap() {
    const notice = this.#gap;
    this.#gap = null;
    if (this.#waiting.some((item) => item.notice === notice)) {
      this.#isPaused = false;
      this.showNew();
      while (this.#isReady && this.#waiting.some((item) => item.notice === notice)) this.#flush();
    }
    if (!notice.isConnected) this.#list.render([{ notice }]); // newer rows have pushed it out
    notice.scrollIntoView({ block: "nearest" });
    notice.focus();
    this.#update();
  }

  // Showing

  /** Render with the next frame. A hidden page gets no frames and slow timers, so it renders at once. */
  #schedule() {
    if (document.hidden) return this.#flush();
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => this.#flush());
    this.#frameTimer = setTimeout(() => this.#flush(), 250); // for a page that is hidden before its frame came
  }

  #flush() {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#frameTimer);
    this.#frame = 0;
    if (this.#isReady && !this.#isPaused && !this.#isReading) this.#show();
    if (this.#isHeld && !this.#waiting.length) this.#connect();
    this.#update();
  }

  /** Take as many steps as a frame has time for. */
  #show() {
    const end = performance.now() + FRAME_MS;
    const isCalm = this.#waiting.length <= MAX_NEW;
    do this.#step(isCalm);
    while (this.#waiting.length && performance.now() < end);
    if (this.#waiting.length) this.#schedule();
  }

  /** Give the next of what waits their rows; none to those that newer ones, which wait as well, would push out. */
  #step(isCalm) {
    const surplus = Math.max(0, this.#waiting.length - MAX_ROWS);
    const items = this.#waiting.splice(0, surplus ? Math.min(surplus, EVENTS_A_STEP) : EVENTS_A_STEP);
    if (items.length && !surplus) {
      this.#view.fallback.hidden = true;
      this.#list.render(items, isCalm);
    }
    const last = this.#waiting.length ? items.findLast(({ event }) => event)?.event.seq : this.#subscription.received;
    this.#remember(last ?? this.#cursor);
    for (const { event, replayed } of items) {
      if (event) this.#fire("event", { event, seq: event.seq, replayed });
    }
  }

  /** Show what the filter lets through. */
  #sift() {
    this.#list.sift();
    this.#look();
    this.#update();
  }

  #remember(cursor) {
    const { epoch } = this.#subscription;
    if (epoch === null || cursor === this.#cursor) return;
    this.#cursor = cursor;
    try {
      sessionStorage.setItem(this.#storageKey, JSON.stringify({ epoch, cursor }));
    } catch {
      // Storage is full or forbidden: a reload then can't say what went by while the page was closed.
    }
  }

  #remembered() {
    try {
      return JSON.parse(sessionStorage.getItem(this.#storageKey));
    } catch {
      return null;
    }
  }

  get #storageKey() {
    return `event-feed ${this.#address()} ${JSON.stringify(this.#wanted())}`;
  }

  // The bar

  #currentState() {
    if (this.#link === "signed-out") return "signed-out";
    if (this.#isRefused) return "refused";
    if (this.#isHeld) return "paused";
    if (!this.#subscription.isAnswered) {
      if (this.#link === "open") return this.#state; // for a moment, also between two ways in
      return this.#hasBeenLive || this.#link === "waiting" ? "reconnecting" : "connecting";
    }
    if (this.#isPaused) return "paused";
    if (this.#subscription.behind) return "catching-up";
    return this.#link === "polling" ? "polling" : "live";
  }

  #describe(state) {
    const secs = Math.ceil((this.#retryAt - Date.now()) / 1000);
    const wait = this.#waiting.length;
    const texts = {
      connecting: "Connecting",
      live: "Live",
      polling: "Polling",
      "catching-up": `Catching up · ${NUMBER.format(this.#subscription.behind)} behind`,
      paused: wait ? `Paused · ${NUMBER.format(wait)}${this.#isHeld ? "+" : ""} waiting` : "Paused",
      reconnecting: secs > 1 ? `Reconnecting in ${secs} s` : "Reconnecting",
      "signed-out": "Signed out",
      refused: "Refused",
    };
    return texts[state];
  }

  #update() {
    if (!this.#subscription) return; // not in a page yet
    const { bar, chip, label, login, pause, pill, gap, scroller } = this.#view;
    const state = this.#currentState();
    const wait = this.#waiting.length;
    if (state === "live" || state === "polling") this.#hasBeenLive = true;
    setText(label, this.#describe(state));
    chip.title = this.#link === "polling" ? "No WebSocket gets through, so the feed asks over HTTP" : "";
    bar.dataset.state = state;
    login.hidden = state !== "signed-out";
    login.href = this.getAttribute("login-href") ?? "/login";
    setText(pause, this.#isPaused ? "Resume" : "Pause");
    pause.dataset.paused = this.#isPaused;
    pill.hidden = this.#isPaused || !wait || !this.#isReading;
    setText(pill, `${NUMBER.format(wait)}${this.#isHeld ? "+" : ""} new`);
    gap.hidden = this.#gap === null;
    scroller.ariaBusy = String(state === "catching-up");
    clearTimeout(this.#tick);
    if (state === "reconnecting") this.#tick = setTimeout(() => this.#update(), 1000);
    if (state !== this.#state || this.#isHeld !== this.#wasHeld) this.#changeState(state);
  }

  #changeState(state) {
    const before = this.#state;
    this.#state = state;
    this.#wasHeld = this.#isHeld;
    if (before && before !== state) this.#announce(this.#describe(state));
    const { behind } = this.#subscription;
    this.#fire("state", { state, behind, waiting: this.#waiting.length, cursor: this.#cursor, held: this.#isHeld });
  }

  /** Say it to those who listen instead of looking; a flicker of states is said as its end. */
  #announce(text) {
    clearTimeout(this.#announceTimer);
    this.#announceTimer = setTimeout(() => setText(this.#view.status, text), ANNOUNCE_AFTER_MS);
  }

  #fire(name, detail) {
    this.dispatchEvent(new CustomEvent(`event-feed:${name}`, { detail, bubbles: true, composed: true }));
  }

  /** Learn whether someone reads below the top. */
  #look() {
    this.#isReading = this.#view.scroller.scrollTop > 4 || this.#list.isOpen;
    if (this.#waiting.length) this.#schedule();
  }

  #press(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("a, button")) return;
    if (event.key === " ") this.#isPaused ? this.resume() : this.pause();
    else if (event.key in steps) this.#list.move(steps[event.key]);
    else if (event.key === "Escape") this.#escape();
    else if (event.key === "/") this.focusFilter();
    else return;
    event.preventDefault();
  }

  /** Close the row that has the focus; else let go of the filter; else leave where the focus is. */
  #escape() {
    const open = this.shadowRoot.activeElement?.closest("details[open]");
    if (open) open.open = false;
    else if (this.#filter.isOn) this.#filter.clear();
    else this.#view.scroller.focus();
  }

  #build() {
    const slot = (name) => Object.assign(make("slot"), { name });
    const view = {
      label: make("span", "label"),
      login: linkTo("/login", "Sign in"),
      gap: make("button", "gap"),
      pause: make("button", "pause"),
      pill: make("button", "pill"),
      status: make("div", "unseen"),
      fallback: make("slot"),
      scroller: make("div", "scroller"),
    };
    view.chip = make("span", "chip", make("span", "dot"), view.label, view.login);
    view.bar = make("div", "bar", slot("title"), view.chip, view.gap, this.#filter.element, view.pause);
    view.scroller.append(this.#list.element, this.#filter.nothing, view.fallback);
    view.scroller.tabIndex = 0;
    view.scroller.role = "region";
    view.scroller.ariaLabel = "Events, newest first";
    view.status.role = "status";
    view.gap.title = "Show where";
    view.pause.title = "Pause or resume (space in the list)";
    view.pause.onclick = () => (this.#isPaused ? this.resume() : this.pause());
    view.pill.onclick = () => this.showNew();
    view.gap.onclick = () => this.#showGap();
    view.scroller.onscroll = () => this.#look();
    view.scroller.addEventListener("toggle", () => this.#look(), true);
    view.scroller.onkeydown = (event) => this.#press(event);
    this.#filter.element.onkeydown = ({ key }) => {
      if (key === "Escape") this.#escape();
    };
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [STYLE];
    const frame = make("div", "frame", view.pill, view.scroller);
    root.append(make("div", "head", view.bar), frame, slot("footer"), view.status);
    return view;
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // the same text would be laid out and announced anew
}

// --- the look --------------------------------------------------------------------------------------------------------

// A constructable stylesheet: allowed by `style-src 'self'`, and no second file. The rows of outfeed.css look the same.
const STYLE = new CSSStyleSheet();
STYLE.replaceSync(`
:host {
  --_surface: var(--surface, light-dark(#fff, #161b22));
  --_ink: var(--ink, light-dark(#1b2430, #e3e8ef));
  --_muted: var(--muted, light-dark(#5c6878, #93a0b1));
  --_line: var(--line, light-dark(#e6eaef, #252d38));
  --_hover: var(--hover, light-dark(#f6f8fa, #1b222b));
  --_accent: var(--accent, light-dark(#2a5fd0, #7aa7ff));
  --_good: var(--good, light-dark(#128253, #3fcf8e));
  --_warn: var(--warn, light-dark(#9a5b00, #f0b849));
  --_warn-ground: var(--warn-ground, light-dark(#fdf6e7, #2a2314));
  --_error: var(--error, light-dark(#bf2c2c, #ff8a80));
  --_error-ground: var(--error-ground, light-dark(#fdf0ef, #2d1a1c));
  --_field: var(--field, light-dark(#8a94a3, #5d6a7a));
  --_task: var(--task, light-dark(#3b74e0, #6ea0ff));
  --_agent: var(--agent, light-dark(#14957a, #37c2a2));
  --_bid: var(--bid, light-dark(#d19a1c, #e5b445));
  --_tool: var(--tool, light-dark(#8458d4, #b08cf5));
  --_system: var(--system, light-dark(#5d6b7d, #8794a6));
  --_other: var(--other, light-dark(#98a2b0, #6b7685));
  --_mono: var(--mono, ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace);
  display: flex;
  flex-direction: column;
  min-height: 12rem;
  min-width: min(100%, 16rem);
  max-height: var(--event-feed-height, 70vh);
  overflow: hidden;
  border: 1px solid var(--_line);
  border-radius: 10px;
  background: var(--_surface);
  color: var(--_ink);
  font: var(--event-feed-font, 0.875rem/1.4 -apple-system, "Segoe UI", "Noto Sans", Helvetica, Arial, sans-serif);
}
:host([hidden]), [hidden] { display: none !important; }
:host([theme="light"]) { color-scheme: light; }
:host([theme="dark"]) { color-scheme: dark; }
:host([theme="auto"]) { color-scheme: light dark; }
* { box-sizing: border-box; }
:focus-visible { outline: 2px solid var(--_accent); outline-offset: -2px; }
a { color: var(--_accent); }

.head { container-type: inline-size; }
.bar {
  display: flex;
  flex-wrap: wrap;
  align-items: center;
  gap: 0.5rem 1rem;
  min-height: 3rem;
  padding: 0.5rem 0.625rem 0.5rem 1rem;
  border-bottom: 1px solid var(--_line);
}
.chip {
  display: inline-flex;
  align-items: center;
  gap: 0.5rem;
  color: var(--_muted);
  font-variant-numeric: tabular-nums;
}
.dot { flex: none; width: 0.5rem; height: 0.5rem; border-radius: 50%; background: var(--_state); }
.bar { --_state: var(--_muted); }
.bar[data-state="live"] { --_state: var(--_good); }
.bar[data-state="live"] .dot { box-shadow: 0 0 0 3px color-mix(in srgb, var(--_state) 20%, transparent); }
.bar:is([data-state="catching-up"], [data-state="polling"]) { --_state: var(--_accent); }
.bar:is([data-state="reconnecting"], [data-state="paused"]) { --_state: var(--_warn); }
.bar:is([data-state="signed-out"], [data-state="refused"]) { --_state: var(--_error); }
.bar:is([data-state="reconnecting"], [data-state="connecting"]) .dot {
  background: none;
  border: 2px solid var(--_state);
}
.bar[data-state="paused"] .dot { border-radius: 1px; }
.bar:is([data-state="reconnecting"], [data-state="paused"], [data-state="signed-out"], [data-state="refused"]) .label {
  color: var(--_state);
}

button {
  min-height: 2rem;
  padding: 0 0.75rem;
  border: 1px solid var(--_line);
  border-radius: 6px;
  background: var(--_surface);
  color: inherit;
  font: inherit;
  cursor: pointer;
}
button:hover { background: var(--_hover); }
.gap {
  border-color: color-mix(in srgb, var(--_warn) 45%, transparent);
  background: var(--_warn-ground);
  color: var(--_warn);
}
.pause { display: inline-flex; align-items: center; gap: 0.5rem; margin-left: auto; }

.filter { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem; margin-left: auto; }
.filter + .pause { margin-left: 0; }
.chips { display: flex; flex-wrap: wrap; gap: 0.25rem; }
.chips button {
  display: inline-flex;
  align-items: center;
  gap: 0.375rem;
  min-height: 1.75rem;
  padding: 0 0.5rem;
  border-color: transparent;
  background: none;
  color: var(--_muted);
  font-size: 0.8125rem;
}
.chips button::before { content: ""; width: 3px; height: 0.75rem; border-radius: 1px; background: var(--_kind); }
.chips button:hover { background: var(--_hover); color: var(--_ink); }
.chips button[aria-pressed="true"] {
  border-color: var(--_kind);
  background: color-mix(in srgb, var(--_kind) 12%, transparent);
  color: var(--_ink);
}
.count { color: var(--_muted); font-size: 0.8125rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.count:empty { display: none; }
input {
  flex: 1 1 9rem;
  min-width: 0;
  min-height: 2rem;
  padding: 0 0.625rem;
  border: 1px solid var(--_field);
  border-radius: 6px;
  background: var(--_surface);
  color: inherit;
  font: inherit;
}
input::placeholder { color: var(--_muted); opacity: 1; }
.nothing { margin: 0; padding: 2.5rem 1rem; color: var(--_muted); text-align: center; }
.nothing button { margin-left: 0.5rem; color: var(--_ink); }
@container (max-width: 60rem) {
  .filter { flex: 1 1 100%; order: 1; margin: 0; }
  .filter + .pause { margin-left: auto; }
  .chips { margin-left: -0.5rem; }
  .count { order: 1; }
}
@container (max-width: 30rem) {
  .chip { flex: 1 1 0; min-width: 8rem; }
  .label { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  .gap { order: 1; }
  .pause { gap: 0; width: 2.25rem; padding: 0; justify-content: center; font-size: 0; }
}
.pause::before {
  content: "";
  width: 0.25rem;
  height: 0.6875rem;
  border: solid currentcolor;
  border-width: 0 0.1875rem;
  box-sizing: content-box;
}
.pause[data-paused="true"]::before {
  width: 0;
  height: 0;
  border: solid transparent;
  border-width: 0.3125rem 0 0.3125rem 0.5625rem;
  border-left-color: currentcolor;
}

.frame { position: relative; display: flex; flex: 1; min-height: 0; }
.scroller {
  flex: 1;
  min-width: 0;
  overflow: hidden auto;
  overflow-anchor: none;
  container-type: inline-size;
  scrollbar-width: thin;
  scrollbar-color: var(--_line) transparent;
}
.pill {
  position: absolute;
  z-index: 1;
  top: 0.625rem;
  left: 50%;
  translate: -50%;
  padding: 0 1rem;
  border: 0;
  border-radius: 1rem;
  background: var(--_accent);
  color: var(--_surface);
  font-weight: 600;
  font-variant-numeric: tabular-nums;
  box-shadow: 0 2px 10px rgb(0 0 0 / 25%);
}
.pill::before { content: "↑ "; }
.pill:hover { background: color-mix(in srgb, var(--_accent) 88%, var(--_ink)); }
.pill:focus-visible { outline-offset: 2px; }

.rows { margin: 0; padding: 0; list-style: none; }
li { border-bottom: 1px solid var(--_line); }
.event { border-left: 3px solid var(--_kind); content-visibility: auto; contain-intrinsic-size: auto 2.125rem; }
[data-kind="task"] { --_kind: var(--_task); }
[data-kind="agent"] { --_kind: var(--_agent); }
[data-kind="bid"] { --_kind: var(--_bid); }
[data-kind="tool"] { --_kind: var(--_tool); }
[data-kind="system"] { --_kind: var(--_system); }
[data-kind="other"] { --_kind: var(--_other); }
summary {
  display: grid;
  grid-template-columns: minmax(4.25rem, max-content) 1.375rem minmax(0, 1fr) auto;
  align-items: baseline;
  gap: 0 0.75rem;
  padding: 0.375rem 1rem 0.375rem 0.8125rem;
  line-height: 1.25rem; /* rows of whole pixels: a line between two that starts at half of one is not drawn */
  list-style: none;
  cursor: pointer;
}
summary::-webkit-details-marker { display: none; }
summary:hover { background: var(--_hover); }
time, .meta, dl, pre { font-family: var(--_mono); font-size: 0.78125rem; font-variant-numeric: tabular-nums; }
time {
  grid-area: 1 / 1;
  max-width: 9rem;
  overflow: hidden;
  color: var(--_muted);
  text-overflow: ellipsis;
  white-space: nowrap;
}
.icon { grid-area: 1 / 2; text-align: center; line-height: 1; }
.sentence { overflow: hidden; color: var(--_muted); text-overflow: ellipsis; white-space: nowrap; }
b { color: var(--_ink); font-weight: 500; unicode-bidi: isolate; }
.meta { display: flex; gap: 0.875rem; color: var(--_muted); white-space: nowrap; }
details[open] .sentence { white-space: normal; overflow-wrap: anywhere; }
details[open] summary { background: var(--_hover); }
.event.error { --_kind: var(--_error); background: var(--_error-ground); }
.error :is(.sentence, b) { color: var(--_error); }
.error b { font-weight: 600; }
.error :is(summary:hover, [open] summary) { background: color-mix(in srgb, var(--_error) 8%, transparent); }
.more { padding: 0.25rem 1rem 0.875rem 0.8125rem; background: var(--_hover); }
.error .more { background: none; }
dl { display: grid; gap: 0.125rem; margin: 0; }
dl div { display: grid; grid-template-columns: 6.5rem minmax(0, 1fr); gap: 0.75rem; }
dt { color: var(--_muted); }
dd { margin: 0; overflow-wrap: anywhere; }
pre {
  max-height: 20rem;
  margin: 0.625rem 0 0;
  padding: 0.625rem 0.75rem;
  overflow: auto;
  border: 1px solid var(--_line);
  border-radius: 6px;
  background: var(--_surface);
  white-space: pre-wrap;
  overflow-wrap: anywhere;
}
.notice {
  padding: 0.625rem 1rem 0.625rem 0.8125rem;
  border-left: 3px solid var(--_warn);
  background: var(--_warn-ground);
}
.notice b { color: var(--_warn); font-weight: 600; }

.new { animation: arrive 2.4s ease-out; }
@keyframes arrive { from { background-color: color-mix(in srgb, var(--_kind) 14%, transparent); } }
@media (prefers-reduced-motion: reduce) { .new { animation: none; } }

@container (max-width: 44rem) {
  .event { contain-intrinsic-size: auto 3.4375rem; }
  summary {
    grid-template-columns: 1.375rem auto minmax(0, 1fr);
    gap: 0.0625rem 0.625rem;
    padding: 0.5rem 0.75rem 0.5rem 0.625rem;
  }
  .icon { grid-area: 1 / 1; }
  .sentence { grid-area: 1 / 2 / auto / -1; }
  .error .sentence {
    display: -webkit-box;
    white-space: normal;
    overflow-wrap: anywhere;
    -webkit-box-orient: vertical;
    -webkit-line-clamp: 2;
  }
  [open] .sentence { display: block; }
  time { grid-area: 2 / 2; }
  .meta { grid-area: 2 / 3; gap: 0.625rem; min-width: 0; overflow: hidden; }
  .meta span { min-width: 0; overflow: hidden; text-overflow: ellipsis; }
  time, .meta { font-size: 0.75rem; line-height: 1.0625rem; }
}
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
`);

customElements.define("event-feed", EventFeed);
