/*
 * The board: what the server renders of the swarm, renewed when <event-feed> receives events.
 *
 * Agents, tasks and counts are known to the server alone. While events flow the page asks for the board once a second,
 * with one request at a time, until the board has every event that the feed has received. A hidden page does not ask.
 * Only the time that is left or has gone by runs on here, by the server's clock.
 */

import { clockOf, setText } from "./event-feed/elements.js";
import { localise } from "./page.js";
import { postInPlace } from "./swarm/form.js";
import { patch } from "./swarm/patch.js";
import { showTimes } from "./swarm/times.js";

const EVERY_MS = 1_000; // or as long as the server wants the requests of all viewers to be spread over
const SOON_MS = 200;
const MINUTE_SPREAD_MS = 5_000;
const VERDICT_SPREAD_MS = 2_000; // after a restart all viewers ask
const MAX_SHARE = 4; // a page pauses so many times longer than the answer took: a busy server is asked less often
const ANSWER_MS = 10_000;
const RETRY_MS = 2_000;
const MAX_RETRY_MS = 60_000;
const MINUTE_MS = 60_000;

class Board {
  #element;
  #form;
  #received = { epoch: null, seq: 0 }; // of the feed
  #etag = "";
  #spread; // over how many ms all viewers spread their requests
  #isOwed = false; // the board may lack something
  #isAsking = false;
  #timer = 0;
  #earliest = 0; // the next request, by performance.now()
  #failures = 0;
  #ahead; // of the server's clock before performance.now()
  #minute;
  #isStale = false;

  constructor(element, feed) {
    this.#element = element;
    this.#form = element.querySelector("form");
    if (this.#form) postInPlace(this.#form);
    this.#spread = 1000 * element.dataset.spread;
    const [page] = performance.getEntriesByType("navigation");
    this.#setClock(element.dataset.now, page?.responseStart ?? 0);
    element.addEventListener("change", ({ target }) => target.matches(".legend input") && this.#ask());
    document.addEventListener("event-feed:received", ({ detail }) => this.#receive(detail.events.at(-1)));
    // Events that came before this module ran are shown later. After a verdict, a shown event may be of another epoch.
    document.addEventListener("event-feed:event", ({ detail }) => this.#received.epoch ?? this.#receive(detail));
    document.addEventListener("event-feed:verdict", ({ detail }) => this.#judge(detail));
    document.addEventListener("event-feed:erased", () => this.#owe(SOON_MS));
    document.addEventListener("event-feed:state", ({ detail }) => this.#tellState(detail));
    document.addEventListener("visibilitychange", () => document.hidden || this.#owe(0));
    setInterval(() => this.#tick(), EVERY_MS);
    this.#restoreLegend();
    this.#receive({ seq: feed.cursor });
    this.#tick();
  }

  get #now() {
    return performance.now() + this.#ahead;
  }

  #setClock(now, at) {
    this.#ahead = Date.parse(now) - at;
    this.#minute = Math.floor(this.#now / MINUTE_MS);
  }

  #tick() {
    if (document.hidden) return;
    this.#showTimes(this.#element);
    localise(this.#element); // at midnight a time gets its date
    if (this.#isStale || Math.floor(this.#now / MINUTE_MS) === this.#minute) return;
    this.#minute = Math.floor(this.#now / MINUTE_MS);
    this.#owe(MINUTE_SPREAD_MS);
  }

  #showTimes(root) {
    showTimes(root, this.#now, Number(this.#element.dataset.agentTimeoutSecs));
  }

  // The feed

  #receive({ seq }) {
    this.#received.seq = Math.max(this.#received.seq, seq);
    if (this.#isBehind) this.#owe(SOON_MS);
  }

  #judge({ epoch, head }) {
    if (epoch !== this.#received.epoch) this.#received = { epoch, seq: 0 };
    this.#received.seq = Math.max(this.#received.seq, head);
    if (this.#isBehind) this.#owe(VERDICT_SPREAD_MS);
  }

  /** Whether the board lacks something that the feed has received. */
  get #isBehind() {
    const { epoch, seq } = this.#element.querySelector(".chart").dataset;
    return this.#received.seq > Number(seq) || (this.#received.epoch ?? epoch) !== epoch;
  }

  #tellState({ state, held }) {
    const isFresh = !held && ["live", "polling", "paused", "catching-up", "connecting"].includes(state);
    this.#element.classList.toggle("is-stale", !isFresh);
    const note = this.#element.querySelector(".stale");
    if (note && (isFresh || !note.textContent)) setText(note, isFresh ? "" : `Not live: as of ${clockOf(new Date())}`);
    if (isFresh && this.#isStale && this.#form) setText(this.#form.querySelector("[role=alert]"), "");
    this.#isStale = !isFresh;
    if (!["live", "polling"].includes(state) || !this.#failures) return;
    this.#earliest = 0; // the server is there again
    this.#askSoon(VERDICT_SPREAD_MS);
  }

  // The server

  #owe(spread) {
    this.#isOwed = true;
    if (!this.#timer && !this.#isAsking) this.#askSoon(spread);
  }

  /** Ask within *spread* ms, but not before a new request is due. */
  #askSoon(spread) {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (document.hidden || this.#isAsking) return; // it asks when it is shown, or when the answer has come
    const wait = Math.random() * Math.max(spread, this.#spread);
    this.#timer = setTimeout(() => this.#ask(), Math.max(wait, this.#earliest - performance.now()));
  }

  async #ask() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.#isOwed = true;
    if (this.#isAsking || document.hidden) return;
    this.#isAsking = true;
    this.#isOwed = false;
    const began = performance.now();
    let pause = EVERY_MS;
    try {
      await this.#renew();
      this.#failures = 0;
      pause = Math.max(EVERY_MS, this.#spread, MAX_SHARE * (performance.now() - began));
    } catch {
      this.#isOwed = true; // the server is away, busy, or has signed this viewer out
      pause = Math.min(MAX_RETRY_MS, RETRY_MS * 2 ** this.#failures++) * (0.5 + Math.random());
    }
    this.#earliest = began + pause;
    this.#isAsking = false;
    if (this.#isOwed || this.#isBehind) this.#owe(0);
  }

  async #renew() {
    const headers = this.#etag && { "If-None-Match": this.#etag };
    const url = `${this.#element.dataset.src}?${new URLSearchParams({ hide: this.#hiddenKinds })}`;
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
    for (const part of fresh.children) {
      const shown = this.#element.querySelector(`:scope > .${part.classList[part.classList.length - 1]}`);
      if (shown) patch(shown, part);
    }
  }

  get #hiddenKinds() {
    return Array.from(this.#element.querySelectorAll(".legend input:not(:checked)"), ({ value }) => value).join(",");
  }

  /** A reload may restore unchecked boxes, while the server has drawn all kinds. */
  #restoreLegend() {
    if (this.#hiddenKinds) this.#ask();
  }
}

new Board(document.querySelector(".board"), document.querySelector("event-feed"));
