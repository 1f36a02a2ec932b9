// The log with a script: times of the filter in the reader's zone, short addresses, and new rows on top.
//
// The server alone knows what matches. <event-feed> subscribes to as much of the filter as the feed knows, out of sight,
// and says when something has happened; then the page is asked for again. The rows it has more are put on top, and those
// that it has no more are taken out. After a restore or an erasure the list is that of the new page.

import { ROOT } from "./event-feed/root.js";
import { align, localise } from "./page.js";

const AT_ONCE_MS = 100; // events come in groups
const ANSWER_MS = 10_000;
const RETRY_MS = 3_000;
const BEAT_MS = 1000; // the page is asked for once a second at most
const MAX_ROWS = 300; // beyond it the list begins anew
const SAY_MS = 10_000; // who listens is told once in so long at most
const NUMBER = new Intl.NumberFormat();

// --- the filter ------------------------------------------------------------------------------------------------------

const form = document.querySelector("form.filter");
const times = form.querySelectorAll("input[type=datetime-local]");

/** *moment* as such an input has it, in the reader's zone or in UTC. */
function written(moment, isUtc) {
  const shifted = new Date(moment.valueOf() - (isUtc ? 0 : moment.getTimezoneOffset() * 60_000));
  return shifted.toISOString().slice(0, 19);
}

for (const input of times) {
  const given = input.getAttribute("value");
  const moment = new Date(/(Z|[+-]\d\d:?\d\d)$/i.test(given) ? given : `${given}Z`);
  if (given && !Number.isNaN(moment.valueOf())) input.value = written(moment, false);
}

form.addEventListener("formdata", ({ formData }) => {
  for (const { name, value } of times) if (value) formData.set(name, written(new Date(value), true));
  for (const [name, value] of [...formData]) if (!value) formData.delete(name);
  if (live?.checked) formData.set("live", "1");
});

// --- live ------------------------------------------------------------------------------------------------------------

const live = document.getElementById("live");
const FEED = { type: "types", source: "source", task: "task-id", agent: "agent-id" };
const STATES = {
  live: "", polling: "", connecting: "connecting", "catching-up": "catching up",
  reconnecting: "reconnecting", "signed-out": "signed out", refused: "refused", paused: "paused",
  stale: "stale",
};

/** Says how many rows are new: to who listens at once and then now and then, and to who is elsewhere in the title. */
class Announcer {
  #place = document.getElementById("news");
  #title = document.title;
  #unsaid = just(0);
  #unseen = just(0);
  #saidAt = -Infinity;
  #timer = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#see());
  }

  tell(number) {
    this.#unsaid = sum(this.#unsaid, number);
    this.#timer ||= setTimeout(() => this.#say(), Math.max(0, this.#saidAt + SAY_MS - performance.now()));
    if (!document.hidden) return;
    this.#unseen = sum(this.#unseen, number);
    document.title = `(${textOf(this.#unseen)}) ${this.#title}`;
  }

  /** What was not said yet need not be said any more, but for *text*. */
  end(text) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#unsaid = just(0);
    this.#place.textContent = text;
  }

  #say() {
    const { count } = this.#unsaid;
    const text = `${textOf(this.#unsaid)} new event${count === 1 ? "" : "s"}`;
    this.#saidAt = performance.now();
    this.end(text);
  }

  #see() {
    if (document.hidden) return;
    this.#unseen = just(0);
    document.title = this.#title;
  }
}

function just(count) {
  return { count, isAtLeast: false };
}

function sum(one, other) {
  return { count: one.count + other.count, isAtLeast: one.isAtLeast || other.isAtLeast };
}

function textOf({ count, isAtLeast }) {
  return `${NUMBER.format(count)}${isAtLeast ? "+" : ""}`;
}

/** The switch, and what it does. */
class Live {
  #switch;
  #state = document.getElementById("live-state");
  #login = document.getElementById("sign-in");
  #announcer = new Announcer();
  #total = totalOf(document); // of the events that matched when the list was made
  #pill = null;
  #feed = null;
  #timer = 0;
  #askedAt = 0;
  #pauseMs = BEAT_MS;
  #isAsking = false;
  #isOwed = false; // something has happened since the page was asked for
  #isAnother = false; // the log may have lost any row
  #isRestored = false;

  constructor(input) {
    this.#switch = input;
    input.closest("label").hidden = false;
    input.checked = new URLSearchParams(location.search).has("live");
    input.onchange = () => this.#turn();
    addEventListener("scroll", () => this.#pill && scrollY === 0 && this.#show(), { passive: true });
    if (input.checked) this.#begin();
  }

  #turn() {
    const url = new URL(location);
    if (this.#switch.checked) url.searchParams.set("live", "1");
    else url.searchParams.delete("live");
    history.replaceState(null, "", url);
    if (this.#switch.checked) this.#begin();
    else this.#end();
  }

  #begin() {
    const given = new URLSearchParams(location.search);
    const feed = document.createElement("event-feed");
    feed.hidden = true;
    feed.setAttribute("limit", "0");
    feed.setAttribute("audit", "");
    for (const [name, attribute] of Object.entries(FEED)) {
      const value = given.get(name)?.trim(); // as the server takes it
      if (value) feed.setAttribute(attribute, value);
    }
    feed.addEventListener("event-feed:event", () => this.#expect());
    feed.addEventListener("event-feed:verdict", ({ detail }) => this.#begun(detail.verdict));
    feed.addEventListener("event-feed:erased", () => this.#distrust());
    feed.addEventListener("event-feed:state", ({ detail }) => this.#tellState(detail));
    this.#feed = feed;
    document.querySelector("main").append(feed);
  }

  #end() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#feed?.remove();
    this.#feed = null;
    this.#dropPill();
    this.#announcer.end("");
    this.#tellState({ state: "live" });
  }

  #begun(verdict) {
    this.#isRestored ||= verdict === "reset";
    if (verdict === "reset") this.#distrust();
    this.#expect();
  }

  #distrust() {
    this.#isAnother = true;
    this.#expect();
  }

  #tellState({ state, reason = null }) {
    this.#state.textContent = reason ? `${STATES[state]}: ${reason}` : STATES[state];
    this.#login.hidden = state !== "signed-out";
    if (this.#login.hidden) return;
    this.#login.href = `${ROOT}login?next=${encodeURIComponent(location.pathname + location.search)}`;
    this.#announcer.end("Signed out");
  }

  /** Ask for the page soon: at once after a quiet moment, else with the beat. */
  #expect() {
    this.#isOwed = true;
    if (this.#timer || this.#isAsking) return;
    const ms = Math.max(AT_ONCE_MS, this.#askedAt + this.#pauseMs - performance.now());
    this.#timer = setTimeout(() => this.#ask(), ms);
  }

  async #ask() {
    this.#timer = 0;
    this.#askedAt = performance.now();
    this.#isAsking = true;
    this.#isOwed = false;
    const isAnother = this.#isAnother;
    this.#isAnother = false;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
      if (!answer.ok) throw new Error(`GET ${location}: ${answer.status}`);
      const text = await answer.text();
      if (!answer.redirected && this.#feed) this.#take(text, isAnother);
      this.#pauseMs = BEAT_MS;
    } catch {
      this.#isOwed = true;
      this.#isAnother ||= isAnother;
      this.#pauseMs = RETRY_MS * (1 + Math.random());
    }
    this.#isAsking = false;
    if (this.#isOwed && this.#feed) this.#expect();
  }

  #take(text, isAnother) {
    const page = new DOMParser().parseFromString(text, "text/html");
    localise(page);
    const total = totalOf(page);
    const counts = document.getElementById("counts");
    // Who has the focus in there keeps it, and sees the counts of now with the next answer.
    if (!counts.contains(document.activeElement)) counts.replaceWith(page.getElementById("counts"));
    if (this.#isRestored) this.#tellRestored();
    this.#drop(page, isAnother);
    const known = new Set(Array.from(rowsOf(document), (row) => row.dataset.id));
    const fresh = Array.from(rowsOf(page)).filter((row) => !known.has(row.dataset.id));
    if (!fresh.length) return;
    const isAll = fresh.length === rowsOf(page).length;
    const number = isAll && page.querySelector(".paging .older") ? this.#grownTo(total, fresh.length) : just(fresh.length);
    if (this.#isReading) return this.#offer(number);
    this.#put(page, fresh, isAll);
    this.#total = total;
    this.#announcer.tell(number);
  }

  /** Take out the rows that the log has no more; those below the page's may be gone too if it is *isAnother*. */
  #drop(page, isAnother) {
    const ids = new Set(Array.from(rowsOf(page), (row) => row.dataset.id));
    const shown = Array.from(rowsOf(document));
    const isWhole = isAnother || !page.querySelector(".paging .older");
    const end = isWhole ? shown.length : shown.findLastIndex((row) => ids.has(row.dataset.id));
    const gone = shown.slice(0, Math.max(0, end)).filter((row) => !ids.has(row.dataset.id));
    for (const row of gone) row.remove();
    if (gone.length && !rowsOf(document).length) this.#replace(page);
    else if (isAnother) swap(".paging", page);
    if (gone.length) this.#total = totalOf(page);
  }

  #replace(page) {
    for (const part of [".panel", ".paging"]) swap(part, page);
  }

  #tellRestored() {
    this.#isRestored = false;
    const text = "The database was restored. This list shows what it holds now.";
    const notice = document.getElementById("restored") ?? document.createElement("p");
    Object.assign(notice, { id: "restored", className: "restored", textContent: text });
    document.querySelector(".panel").before(notice);
    this.#announcer.end(text);
  }

  /** How many are new where the page has no room for all: at least *count*. The server counts up to a limit. */
  #grownTo(total, count) {
    const grown = total - this.#total;
    return grown >= count ? just(grown) : { count, isAtLeast: true };
  }

  /** Whether rows would move under somebody's eyes. */
  get #isReading() {
    return scrollY > 0 || document.querySelector("#rows :is(details[open], :focus-visible)") !== null;
  }

  /** Put rows on top; where there may be others between them and the list, in place of it. */
  #put(page, fresh, isAll) {
    this.#dropPill();
    const list = document.getElementById("rows");
    for (const row of fresh) row.classList.add("new");
    if (list && !isAll && list.childElementCount + fresh.length <= MAX_ROWS) list.prepend(...fresh);
    else this.#replace(page);
    align(document.getElementById("rows"));
  }

  #offer(number) {
    if (!this.#pill) {
      this.#pill = Object.assign(document.createElement("button"), { className: "pill", type: "button" });
      this.#pill.onclick = () => this.#show();
      document.body.append(this.#pill);
    }
    this.#pill.textContent = `↑ ${textOf(number)} new`;
  }

  #dropPill() {
    this.#pill?.remove();
    this.#pill = null;
  }

  /** Show what waits, from the top. */
  #show() {
    this.#dropPill();
    for (const details of document.querySelectorAll("#rows details[open]")) details.open = false;
    scrollTo(0, 0);
    this.#expect();
  }
}

/** Put a part of *page* in the place of the document's. */
function swap(part, page) {
  document.querySelector(part).replaceWith(document.importNode(page.querySelector(part), true));
}

function rowsOf(page) {
  return page.querySelectorAll("#rows > .event");
}

/** How many events match; NaN where the server counted no further. */
function totalOf(page) {
  return Number(page.getElementById("counts").dataset.total ?? NaN);
}

if (live) new Live(live);
