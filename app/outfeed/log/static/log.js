// The log's script: the query bar, times in the reader's zone, days, and new rows on top.
//
// Only the server decides which events match. A hidden <event-feed> subscribes with the part of the filter that the feed
// supports, and fires an event when something has changed. Then the script fetches the page again. It adds the new rows
// on top and removes the missing ones. After a restore or an erasure the list is that of the new page.

import { IS_UTC } from "./event-feed/elements.js";
import { ROOT } from "./event-feed/root.js";
import { showConnection } from "./favicon.js";
import { separateDays } from "./log/days.js";
import { watchHistogram } from "./log/histogram.js";
import { MoreRows } from "./log/more.js";
import { QueryBar } from "./log/query.js";
import { align, localise } from "./page.js";

const GROUP_MS = 100; // events come in groups
const TIMEOUT_MS = 10_000;
const RETRY_MS = 3_000;
const INTERVAL_MS = 1000; // between two fetches of the page
const MAX_ROWS = 300; // a longer list is replaced by the newest page
const ANNOUNCE_MS = 10_000; // between two announcements to a screen reader
const NUMBER = new Intl.NumberFormat();

// --- the filter ------------------------------------------------------------------------------------------------------

const forms = document.querySelectorAll("form:is(.query, .period, .jump)");
const times = document.querySelectorAll("input[type=datetime-local]");
new QueryBar(document.querySelector("form.query"));
watchHistogram(document.getElementById("histogram"));

/** Return *moment* in the form of such an input, in the reader's zone or in UTC. */
function inputValue(moment, isUtc) {
  const shifted = new Date(moment.valueOf() - (isUtc || IS_UTC ? 0 : moment.getTimezoneOffset() * 60_000));
  return shifted.toISOString().slice(0, 19);
}

for (const input of times) {
  const given = input.getAttribute("value");
  const moment = new Date(/(Z|[+-]\d\d:?\d\d)$/i.test(given) ? given : `${given}Z`);
  if (given && !Number.isNaN(moment.valueOf())) input.value = inputValue(moment, false);
}

for (const form of forms) {
  form.addEventListener("formdata", ({ formData }) => {
    for (const input of form.querySelectorAll("input[type=datetime-local]")) {
      if (input.value) formData.set(input.name, inputValue(new Date(input.value + (IS_UTC ? "Z" : "")), true));
    }
    for (const [name, value] of [...formData]) if (!value) formData.delete(name);
    if (live?.checked) formData.set("live", "1");
  });
}

// --- menus and rows --------------------------------------------------------------------------------------------------

const menus = document.querySelectorAll("details.popover");

function closeMenus(kept) {
  for (const menu of menus) if (menu !== kept) menu.open = false;
}

document.addEventListener("click", ({ target }) => closeMenus(target.closest("details.popover")));
document.addEventListener("keydown", ({ key }) => {
  const open = document.querySelector("details.popover[open]");
  if (key !== "Escape" || !open) return;
  open.open = false;
  open.querySelector("summary").focus();
});

/** Show the rows of *list* below days, in the reader's zone. */
function arrange(list) {
  if (!list) return;
  separateDays(list);
  align(list);
}

// The server cuts long data, so that the page is small. A row that opens gets the rest.
document.querySelector("main").addEventListener("toggle", ({ target }) => {
  const part = target.open && target.querySelector(":scope > .more pre[data-json]");
  if (part) showWhole(part);
}, { capture: true });

async function showWhole(part) {
  try {
    const answer = await fetch(part.dataset.json, { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!answer.ok) return; // the beginning stays, and the link beside it leads to all of it
    const found = await answer.json();
    part.textContent = JSON.stringify((found.events?.[0] ?? found).data, null, 2);
    delete part.dataset.json;
  } catch {
    // The same.
  }
}

const shown = document.getElementById("rows");
arrange(shown);
const more = new MoreRows(arrange);
const here = shown?.dataset.here && shown.querySelector(`[data-id="${CSS.escape(shown.dataset.here)}"]`);
if (here) {
  here.classList.add("here");
  here.scrollIntoView({ block: "center" });
}

// --- live ------------------------------------------------------------------------------------------------------------

const live = document.getElementById("live");
const FEED = { types: "types", source: "source", taskId: "task-id", agentId: "agent-id" };
const STATES = {
  live: "", polling: "", connecting: "connecting", "catching-up": "catching up",
  reconnecting: "reconnecting", "signed-out": "signed out", refused: "refused", paused: "paused",
  stale: "stale",
};

/** Announces the number of new rows to screen readers, and in the title of a hidden tab. */
class Announcer {
  #place = document.getElementById("news");
  #title = document.title;
  #unannounced = exactly(0);
  #unseen = exactly(0);
  #announcedAt = -Infinity;
  #timer = 0;

  constructor() {
    document.addEventListener("visibilitychange", () => this.#resetTitle());
  }

  tell(number) {
    this.#unannounced = sum(this.#unannounced, number);
    this.#timer ||= setTimeout(() => this.#announce(), Math.max(0, this.#announcedAt + ANNOUNCE_MS - performance.now()));
    if (!document.hidden) return;
    this.#unseen = sum(this.#unseen, number);
    document.title = `(${textOf(this.#unseen)}) ${this.#title}`;
  }

  /** Drop the pending announcement and announce *text*. */
  end(text) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#unannounced = exactly(0);
    this.#place.textContent = text;
  }

  #announce() {
    const { count } = this.#unannounced;
    const text = `${textOf(this.#unannounced)} new event${count === 1 ? "" : "s"}`;
    this.#announcedAt = performance.now();
    this.end(text);
  }

  #resetTitle() {
    if (document.hidden) return;
    this.#unseen = exactly(0);
    document.title = this.#title;
  }
}

function exactly(count) {
  return { count, isAtLeast: false };
}

function sum(one, other) {
  return { count: one.count + other.count, isAtLeast: one.isAtLeast || other.isAtLeast };
}

function textOf({ count, isAtLeast }) {
  return `${NUMBER.format(count)}${isAtLeast ? "+" : ""}`;
}

/** The switch that keeps the list current. */
class Live {
  #switch;
  #state = document.getElementById("live-state");
  #login = document.getElementById("sign-in");
  #announcer = new Announcer();
  #total = totalOf(document); // of the events that matched when the list was made
  #pill = null;
  #feed = null;
  #timer = 0;
  #fetchedAt = 0;
  #pauseMs = INTERVAL_MS;
  #isFetching = false;
  #isOutdated = false; // something has changed since the last fetch began
  #mayHaveLost = false; // the log may have lost any row
  #isRestored = false;

  constructor(input) {
    this.#switch = input;
    input.closest("label").hidden = false;
    input.checked = new URLSearchParams(location.search).has("live");
    input.onchange = () => this.#toggle();
    addEventListener("scroll", () => this.#pill && scrollY === 0 && this.#show(), { passive: true });
    if (input.checked) this.#start();
  }

  #toggle() {
    const url = new URL(location);
    if (this.#switch.checked) url.searchParams.set("live", "1");
    else url.searchParams.delete("live");
    history.replaceState(history.state, "", url);
    if (this.#switch.checked) this.#start();
    else this.#stop();
  }

  #start() {
    const feed = document.createElement("event-feed");
    feed.hidden = true;
    feed.setAttribute("limit", "0");
    feed.setAttribute("audit", "");
    for (const [name, attribute] of Object.entries(FEED)) {
      const value = this.#switch.dataset[name];
      if (value) feed.setAttribute(attribute, value);
    }
    feed.addEventListener("event-feed:event", () => this.#scheduleFetch());
    feed.addEventListener("event-feed:verdict", ({ detail }) => this.#takeVerdict(detail.verdict));
    feed.addEventListener("event-feed:types", () => this.#expectLoss());
    feed.addEventListener("event-feed:erased", () => this.#expectLoss());
    feed.addEventListener("event-feed:state", ({ detail }) => this.#showState(detail));
    this.#feed = feed;
    document.querySelector("main").append(feed);
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#feed?.remove();
    this.#feed = null;
    this.#dropPill();
    this.#announcer.end("");
    this.#showState({ state: "live" });
  }

  #takeVerdict(verdict) {
    this.#isRestored ||= verdict === "reset";
    if (verdict === "reset") this.#expectLoss();
    this.#scheduleFetch();
  }

  #expectLoss() {
    this.#mayHaveLost = true;
    this.#scheduleFetch();
  }

  #showState({ state, reason = null }) {
    showConnection(state);
    this.#state.textContent = reason ? `${STATES[state]}: ${reason}` : STATES[state];
    this.#login.hidden = state !== "signed-out";
    if (this.#login.hidden) return;
    this.#login.href = `${ROOT}login?next=${encodeURIComponent(location.pathname + location.search)}`;
    this.#announcer.end("Signed out");
  }

  /** Fetch the page soon: almost at once after a quiet second, else at the interval. */
  #scheduleFetch() {
    this.#isOutdated = true;
    if (this.#timer || this.#isFetching) return;
    const ms = Math.max(GROUP_MS, this.#fetchedAt + this.#pauseMs - performance.now());
    this.#timer = setTimeout(() => this.#fetch(), ms);
  }

  async #fetch() {
    this.#timer = 0;
    this.#fetchedAt = performance.now();
    this.#isFetching = true;
    this.#isOutdated = false;
    const mayHaveLost = this.#mayHaveLost;
    this.#mayHaveLost = false;
    try {
      const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!answer.ok) throw new Error(`GET ${location}: ${answer.status}`);
      const text = await answer.text();
      if (!answer.redirected && this.#feed) this.#update(text, mayHaveLost);
      this.#pauseMs = INTERVAL_MS;
    } catch {
      this.#isOutdated = true;
      this.#mayHaveLost ||= mayHaveLost;
      this.#pauseMs = RETRY_MS * (1 + Math.random());
    }
    this.#isFetching = false;
    if (this.#isOutdated && this.#feed) this.#scheduleFetch();
  }

  #update(text, mayHaveLost) {
    const page = new DOMParser().parseFromString(text, "text/html");
    localise(page);
    const total = totalOf(page);
    const counts = document.getElementById("counts");
    counts.replaceWith(page.getElementById("counts"));
    // A reader with the focus or the pointer in a part keeps it. The next fetch updates the part.
    for (const part of ["#facets", "#histogram"]) {
      if (document.querySelector(`${part}:is(:hover, :focus-within)`)) continue;
      swap(part, page);
      if (part === "#histogram") watchHistogram(document.querySelector(part));
    }
    if (this.#isRestored) this.#showRestored();
    this.#removeGone(page, mayHaveLost);
    if (mayHaveLost) renew(page);
    const known = new Set(Array.from(rowsOf(document), idOf));
    const fresh = Array.from(rowsOf(page)).filter((row) => !known.has(idOf(row)));
    if (!fresh.length) return;
    const isAll = fresh.length === rowsOf(page).length;
    const count = fresh.reduce((sum, row) => sum + countIn(row), 0);
    const number = isAll && page.querySelector(".paging .older") ? this.#growth(total, count) : exactly(count);
    if (this.#isReading) return this.#offerRows(number);
    this.#addRows(page, fresh, isAll);
    this.#total = total;
    this.#announcer.tell(number);
  }

  /** Remove the rows that are gone from the log. If it *mayHaveLost* some, rows below the page's may be gone too. */
  #removeGone(page, mayHaveLost) {
    const ids = new Set(Array.from(rowsOf(page), idOf));
    const shown = Array.from(rowsOf(document));
    const isWhole = mayHaveLost || !page.querySelector(".paging .older");
    const end = isWhole ? shown.length : shown.findLastIndex((row) => ids.has(idOf(row)));
    const gone = shown.slice(0, Math.max(0, end)).filter((row) => !ids.has(idOf(row)));
    for (const row of gone) row.remove();
    if (gone.length && !rowsOf(document).length) this.#replace(page);
    else if (mayHaveLost) swap(".paging", page);
    more.refresh();
    if (gone.length) this.#total = totalOf(page);
  }

  #replace(page) {
    for (const part of [".panel.log", ".paging"]) swap(part, page);
    more.reset();
  }

  #showRestored() {
    this.#isRestored = false;
    const text = "The database was restored. This list shows what it holds now.";
    const notice = document.getElementById("restored") ?? document.createElement("p");
    Object.assign(notice, { id: "restored", className: "restored", textContent: text });
    document.querySelector(".panel.log").before(notice);
    this.#announcer.end(text);
  }

  /** Return the number of new events if the page can't hold them all: at least *count*. The server counts up to a limit. */
  #growth(total, count) {
    const grown = total - this.#total;
    return grown >= count ? exactly(grown) : { count, isAtLeast: true };
  }

  /** Whether the reader has scrolled, opened a row or focused one, so that rows must not move. */
  get #isReading() {
    return scrollY > 0 || document.querySelector("#rows :is(details[open], :focus-visible)") !== null;
  }

  /** Put rows on top. If the list may lack rows below them, the page replaces it. */
  #addRows(page, fresh, isAll) {
    this.#dropPill();
    const list = document.getElementById("rows");
    for (const row of fresh) row.classList.add("new");
    if (list && !isAll && list.childElementCount + fresh.length <= MAX_ROWS) list.prepend(...fresh);
    else this.#replace(page);
    arrange(document.getElementById("rows"));
  }

  #offerRows(number) {
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

  /** Scroll to the top and show the waiting rows. */
  #show() {
    this.#dropPill();
    for (const details of document.querySelectorAll("#rows details[open]")) details.open = false;
    scrollTo(0, 0);
    this.#scheduleFetch();
  }
}

/** Replace a part of the document by that of *page*. */
function swap(part, page) {
  document.querySelector(part).replaceWith(document.importNode(page.querySelector(part), true));
}

/** The displays may have changed, or an event of a group may be gone: take the rows of *page* for those of now. */
function renew(page) {
  const shown = new Map(Array.from(rowsOf(document), (row) => [idOf(row), row]));
  for (const row of rowsOf(page)) {
    const old = shown.get(idOf(row));
    const isLeft = !old || (old.dataset.id && old.querySelector("details[open]"));
    if (!isLeft) old.replaceWith(document.importNode(row, true));
  }
}

function rowsOf(page) {
  return page.querySelectorAll("#rows > .event");
}

/** Return the id of an event, or of the first event of a group. */
function idOf({ dataset }) {
  return dataset.id ?? dataset.group;
}

/** Return the number of events in *row* that no row of the document shows. */
function countIn(row) {
  const known = new Set(Array.from(document.querySelectorAll("#rows .event[data-id]"), idOf));
  return [row, ...row.querySelectorAll(".event")].filter(({ dataset }) => dataset.id && !known.has(dataset.id)).length;
}

/** Return the number of matching events, or NaN if the server stopped counting. */
function totalOf(page) {
  return Number(page.getElementById("counts").dataset.total ?? NaN);
}

if (live) new Live(live);
