/*
 * The board: figures, chart and panels as the server renders them, updated when <event-feed> receives events.
 *
 * The server alone computes counts, agents and tasks. While events flow, the page requests the board once a second, one
 * request at a time, until the board contains every event that the feed has received. A hidden page sends no requests.
 * Only remaining and elapsed times are updated here, by the server's clock. The page's address has the range of the
 * chart, and the filter of the list and the chart.
 *
 * Fires on the document: live:board, after an update.
 */
import { clockOf, setText } from "./event-feed/elements.js";
import { Picker } from "./live/chart.js";
import { patchChildren } from "./live/patch.js";
import { showTimes } from "./live/times.js";
import { localise } from "./page.js";

const EVERY_MS = 1_000; // a longer interval if the server spreads the requests of all viewers over more
const SOON_MS = 200;
const BAR_SPREAD = 12; // at a new bar of the chart, viewers spread their requests over this part of its time
const VERDICT_SPREAD_MS = 2_000; // after a restart all viewers send a request
const MAX_SHARE = 4; // the pause is this many times the duration of the request, so a busy server gets fewer requests
const ANSWER_MS = 10_000;
const RETRY_MS = 2_000;
const MAX_RETRY_MS = 60_000;
const SECOND_MS = 1_000;

class Board {
  #element;
  #feed;
  #received = { epoch: null, seq: 0 }; // the feed's position
  #etag = "";
  #spread; // all viewers spread their requests over this many ms
  #needsUpdate = false; // the board may lack an event
  #isRequesting = false;
  #timer = 0;
  #earliest = 0; // time of the next request, by performance.now()
  #failures = 0;
  #clockOffset; // the server's clock minus performance.now()
  #bar; // number of the chart's newest bar
  #isStale = false;

  constructor(element, feed) {
    this.#element = element;
    this.#feed = feed;
    this.#spread = 1000 * element.dataset.spread;
    const [page] = performance.getEntriesByType("navigation");
    this.#setClock(element.dataset.now, page?.responseStart ?? 0);
    element.addEventListener("click", (event) => this.#click(event));
    document.addEventListener("event-feed:received", ({ detail }) => this.#receive(detail.events.at(-1)));
    // Events received before this module ran are shown later. After a verdict, a shown event may be of another epoch.
    document.addEventListener("event-feed:event", ({ detail }) => this.#received.epoch ?? this.#receive(detail));
    document.addEventListener("event-feed:verdict", ({ detail }) => this.#handleVerdict(detail));
    document.addEventListener("event-feed:erased", () => this.#scheduleUpdate(SOON_MS));
    document.addEventListener("event-feed:state", ({ detail }) => this.#showState(detail));
    document.addEventListener("visibilitychange", () => document.hidden || this.#scheduleUpdate(0));
    document.addEventListener("event-feed:filter", ({ detail }) => this.#handleFilter(detail));
    setInterval(() => this.#tick(), EVERY_MS);
    this.#applyAddress();
    this.#receive({ seq: feed.cursor });
    new Picker(element);
    this.#tick();
  }

  get #now() {
    return performance.now() + this.#clockOffset;
  }

  #setClock(now, at) {
    this.#clockOffset = Date.parse(now) - at;
    this.#bar = Math.floor(this.#now / this.#barMs);
  }

  get #barMs() {
    return SECOND_MS * this.#element.querySelector(".chart").dataset.stepSecs;
  }

  #tick() {
    if (document.hidden) return;
    this.#showTimes(this.#element);
    localise(this.#element); // adds the date to times before midnight
    if (this.#isStale || Math.floor(this.#now / this.#barMs) === this.#bar) return;
    this.#bar = Math.floor(this.#now / this.#barMs);
    this.#scheduleUpdate(this.#barMs / BAR_SPREAD);
  }

  #showTimes(root) {
    showTimes(root, this.#now, Number(this.#element.dataset.agentTimeoutSecs));
  }

  // The feed

  #receive({ seq }) {
    this.#received.seq = Math.max(this.#received.seq, seq);
    if (this.#isBehind) this.#scheduleUpdate(SOON_MS);
  }

  #handleVerdict({ epoch, head }) {
    if (epoch !== this.#received.epoch) this.#received = { epoch, seq: 0 };
    this.#received.seq = Math.max(this.#received.seq, head);
    if (this.#isBehind) this.#scheduleUpdate(VERDICT_SPREAD_MS);
  }

  /** Whether the board lacks an event that the feed has received. */
  get #isBehind() {
    const { epoch, seq } = this.#element.querySelector(".chart").dataset;
    return this.#received.seq > Number(seq) || (this.#received.epoch ?? epoch) !== epoch;
  }

  #showState({ state, held }) {
    const isFresh = !held && ["live", "polling", "paused", "catching-up", "connecting"].includes(state);
    this.#element.classList.toggle("is-stale", !isFresh);
    if (isFresh !== !this.#isStale) showStale(isFresh ? "" : `Not live: as of ${clockOf(new Date())}`);
    this.#isStale = !isFresh;
    if (!["live", "polling"].includes(state) || !this.#failures) return;
    this.#earliest = 0; // the server is reachable again
    this.#scheduleRequest(VERDICT_SPREAD_MS);
  }

  // The server

  #scheduleUpdate(spread) {
    this.#needsUpdate = true;
    if (!this.#timer && !this.#isRequesting) this.#scheduleRequest(spread);
  }

  /** Send a request within *spread* ms, but not before the next one is due. */
  #scheduleRequest(spread) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (document.hidden || this.#isRequesting) return; // requested when the page is shown, or after the answer
    const wait = Math.random() * Math.max(spread, this.#spread);
    this.#timer = setTimeout(() => this.#request(), Math.max(wait, this.#earliest - performance.now()));
  }

  async #request() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#needsUpdate = true;
    if (this.#isRequesting || document.hidden) return;
    this.#isRequesting = true;
    this.#needsUpdate = false;
    const began = performance.now();
    let pause = EVERY_MS;
    try {
      await this.#fetchBoard();
      this.#failures = 0;
      pause = Math.max(EVERY_MS, this.#spread, MAX_SHARE * (performance.now() - began));
    } catch {
      this.#needsUpdate = true; // the server is down or busy, or the viewer is signed out
      pause = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** this.#failures++) * (0.5 + Math.random());
    }
    this.#earliest = began + pause;
    this.#isRequesting = false;
    if (this.#needsUpdate || this.#isBehind) this.#scheduleUpdate(0);
  }

  async #fetchBoard() {
    const headers = this.#etag && { "If-None-Match": this.#etag };
    const url = `${this.#element.dataset.src}?${this.#query}`;
    const signal = AbortSignal.timeout(ANSWER_MS);
    const answer = await fetch(url, { headers: headers || {}, redirect: "error", signal });
    if (!answer.ok && answer.status !== 304) throw new Error(`GET ${url}: ${answer.status}`);
    const text = await answer.text();
    this.#setClock(answer.headers.get("Outfeed-Now"), performance.now());
    this.#spread = 1000 * answer.headers.get("Outfeed-Spread");
    if (answer.status === 304) return;
    this.#show(new DOMParser().parseFromString(text, "text/html").body);
    this.#etag = answer.headers.get("ETag");
  }

  #show(fresh) {
    localise(fresh);
    this.#showTimes(fresh);
    patchChildren(this.#element, fresh);
    this.#showKinds();
    document.dispatchEvent(new Event("live:board"));
  }

  // The filter and the range, in the page's address

  /** The part of the address that the board depends on. */
  get #query() {
    const { searchParams } = new URL(location.href);
    const names = ["range", "scale", "kind"].filter((name) => searchParams.get(name));
    return new URLSearchParams(names.map((name) => [name, searchParams.get(name)]));
  }

  #applyAddress() {
    const { searchParams } = new URL(location.href);
    this.#showKinds();
    this.#feed.filter = { kinds: searchParams.get("kind")?.split(",") ?? [], text: searchParams.get("text") ?? "" };
    this.#element.dataset.kinds = searchParams.get("kind") ?? "";
  }

  #handleFilter({ kinds, text }) {
    const before = String(this.#query);
    setAddress({ kind: kinds.join(","), text });
    this.#element.dataset.kinds = kinds.join(",");
    if (before !== String(this.#query)) this.#request();
  }

  #click(event) {
    const link = event.target.closest(".ranges a");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    setAddress({ ...link.dataset }); // range, or scale
    this.#request();
  }

  /** Give the chips of the list the kinds and counts of the chart. */
  #showKinds() {
    const items = [...this.#element.querySelectorAll(".legend li")];
    this.#feed.kinds = items.map(({ dataset, lastElementChild }) => ({ ...dataset, count: lastElementChild.textContent }));
    this.#element.parentElement.classList.toggle("with-side", this.#element.querySelector(".side") !== null);
  }
}

/** Show *text* below the menu, or nothing. */
function showStale(text) {
  const bar = document.getElementById("stale");
  bar.hidden = !text;
  setText(bar, text);
}

/** Set parameters of the page's address; an empty value removes one. */
function setAddress(values) {
  const url = new URL(location.href);
  for (const [name, value] of Object.entries(values)) {
    if (value) url.searchParams.set(name, value);
    else url.searchParams.delete(name);
  }
  history.replaceState(history.state, "", url);
}

new Board(document.querySelector(".board"), document.querySelector("event-feed"));
