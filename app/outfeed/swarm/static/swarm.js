/*
 * The dashboard: panels of the swarm, and a chart of its events, that move by what <event-feed> receives.
 *
 * The swarm is asked for once (GET /api/swarm); from then on each event says what it changes. So a thousand viewers cost
 * the server nothing but the feed. It is asked again where events are missing (gap, reset), or speak of what is unknown.
 * What stands in a row is decided here as in web/dashboard.py; the rows themselves are the page's <template>s.
 */

import "./event-feed.js";
import "./page.js"; // in one go with the feed: none of them misses what it says first
import { clockOf, setText } from "./event-feed/elements.js";
import { parse } from "./event-feed/numbers.js";
import { Chart, keepNewest } from "./swarm/chart.js";
import { Panel, postInPlace } from "./swarm/panel.js";
import { countText, rowsOf } from "./swarm/rows.js";
import { SHOWN, Swarm } from "./swarm/state.js";

const MAX_AGENTS = 500; // that the server tells of, as SHOWN_AGENTS in web/swarm.py
const OPEN = ["bidding", "assigned", "started"];
const MINUTE_MS = 60_000;

const PAINT_MS = 250;
const TICK_MS = 1_000;
const ANSWER_MS = 10_000;
const SPREAD_MS = 3_000; // who misses events misses them with everybody else: not all ask at once
const RETRY_MS = 5_000;
const AGAIN_MS = 10_000; // at most so often for what is unknown
const AGAIN_CUT_MS = 120_000; // where there is more than the server tells: what is unknown stays so

/** Brings the feed to the swarm, the chart and the panels. */
class Board {
  #element;
  #swarm = new Swarm();
  #chart;
  #panels;
  #timeoutSecs;
  #ahead = null; // of the server's clock before the viewer's, in ms; null while that is not known
  #clockSetAt = 0; // by the viewer's wall clock, when the page began; another one once it was set
  #isLoaded = false;
  #isCut = false; // the swarm is larger than what the server tells of it
  #isOwed = false; // asked for while signed out
  #waiting = []; // what came since the swarm was asked for
  #feedEpoch = null;
  #askTimer = 0;
  #askedAt = -Infinity;
  #asked = 0;
  #renewal = 0;
  #paintTimer = 0;

  constructor(element) {
    this.#element = element;
    this.#chart = new Chart(element.querySelector(".chart"), () => this.#schedule());
    this.#panels = new Map(
      Array.from(element.querySelectorAll("[data-panel]"), (panel) => [panel.dataset.panel, new Panel(panel)]),
    );
    this.#timeoutSecs = Number(element.dataset.agentTimeoutSecs);
    element.addEventListener("event-feed:received", ({ detail }) => this.#receive(detail.events));
    element.addEventListener("event-feed:verdict", ({ detail }) => this.#judge(detail));
    element.addEventListener("event-feed:state", ({ detail }) => this.#tellState(detail));
    document.addEventListener("visibilitychange", () => document.hidden || this.#schedule());
    setInterval(() => this.#schedule(), TICK_MS);
    this.#ask();
  }

  get #now() {
    return Date.now() + (this.#ahead ?? 0);
  }

  /** Let minutes go by in the chart, by the server's clock alone: they don't come back. */
  #advance() {
    if (this.#ahead === null) return;
    if (Math.abs(clockSetAt() - this.#clockSetAt) > MINUTE_MS) {
      this.#ahead = null;
      this.#askLater(SPREAD_MS);
      return;
    }
    this.#chart.advance(this.#now);
  }

  // The feed

  #receive(events) {
    this.#advance(); // painting does so too, but nobody paints a page that is hidden
    for (const { event, seq } of events) this.#chart.add(event, seq);
    if (this.#isLoaded) this.#apply(events);
    else keepNewest(this.#waiting, events);
    this.#schedule();
  }

  #apply(events) {
    const isKnown = events.map(({ event, seq }) => this.#swarm.apply(event, seq)).every(Boolean);
    const againMs = this.#isCut ? AGAIN_CUT_MS : AGAIN_MS;
    if (!isKnown) this.#askLater(Math.max(SPREAD_MS, this.#askedAt + againMs - performance.now()));
  }

  /** Ask again where events were missed: at the beginning more than the feed begins with, later by a gap or a reset. */
  #judge({ verdict, after, epoch, missing }) {
    this.#feedEpoch = epoch;
    const isMissing = verdict === "reset" || missing !== undefined || (verdict === "live" && after > this.#chart.seq);
    if (!isMissing) return;
    if (verdict === "reset") this.#waiting = [];
    if (verdict !== "live") this.#asked += 1; // an answer that is on its way lacks what is missing, too
    this.#chart.hold(verdict === "reset");
    this.#renewChartLater(Math.random() * SPREAD_MS);
    this.#isLoaded = false;
    this.#askLater(SPREAD_MS);
  }

  #tellState({ state, held }) {
    if (this.#isOwed && ["live", "polling"].includes(state)) {
      this.#isOwed = false;
      this.#askLater(SPREAD_MS);
    }
    const isFresh = !held && ["live", "polling", "paused", "catching-up", "connecting"].includes(state);
    this.#element.classList.toggle("is-stale", !isFresh);
    const note = this.#element.querySelector(".stale");
    if (note && (isFresh || !note.textContent)) setText(note, isFresh ? "" : `Not live: as of ${clockOf(new Date())}`);
  }

  // The swarm

  #askLater(most) {
    clearTimeout(this.#askTimer);
    this.#askTimer = setTimeout(() => this.#ask(), Math.random() * most);
  }

  async #ask() {
    clearTimeout(this.#askTimer);
    const { src } = this.#element.dataset;
    if (!src) {
      this.#ahead = 0; // nobody says what the server's clock says
      this.#clockSetAt = clockSetAt();
      return;
    }
    this.#isLoaded = false;
    this.#askedAt = performance.now();
    const number = ++this.#asked;
    try {
      const answer = await fetch(src, { signal: AbortSignal.timeout(ANSWER_MS) });
      if (answer.status === 401) {
        this.#isOwed = true; // the feed says so, and when that has changed
        return;
      }
      if (!answer.ok) throw new Error(`GET ${src}: ${answer.status}`);
      const snapshot = parse(await answer.text());
      if (number === this.#asked) this.#load(snapshot);
    } catch {
      if (number === this.#asked) this.#askLater(RETRY_MS); // the server is away, or busy
    }
  }

  #load(snapshot) {
    this.#ahead = Date.parse(snapshot.now) - Date.now();
    this.#clockSetAt = clockSetAt();
    this.#isCut = isCut(snapshot);
    this.#swarm.load(snapshot);
    this.#isLoaded = true;
    const waiting = this.#waiting.splice(0);
    if (this.#feedEpoch === null || this.#feedEpoch === snapshot.epoch) this.#apply(waiting);
    this.#schedule();
  }

  #renewChartLater(ms) {
    const number = ++this.#renewal;
    setTimeout(() => this.#renewChart(number), ms);
  }

  /** The server draws it; what it has counted stands in its page. */
  async #renewChart(number) {
    if (number !== this.#renewal) return;
    try {
      const answer = await fetch(location.href, { signal: AbortSignal.timeout(ANSWER_MS) });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      if (number !== this.#renewal) return;
      this.#chart.load(page.querySelector(".chart").dataset);
      this.#schedule();
    } catch {
      if (number === this.#renewal) this.#renewChartLater(RETRY_MS * (1 + Math.random()));
    }
  }

  // Painting

  /** Paint soon, at most once in PAINT_MS; not at all while nobody looks. */
  #schedule() {
    if (document.hidden) return;
    this.#paintTimer ||= setTimeout(() => {
      this.#paintTimer = 0;
      this.#paint();
    }, PAINT_MS);
  }

  #paint() {
    const now = this.#now;
    this.#advance();
    this.#chart.draw();
    if (this.#swarm.epoch === null) return;
    for (const [state, count] of Object.entries(this.#swarm.counts)) {
      setText(this.#element.querySelector(`.counts [data-state="${state}"] dd`), countText(count));
    }
    const rows = rowsOf(this.#swarm, now, this.#timeoutSecs);
    for (const [name, panel] of this.#panels) panel.show(rows[name], SHOWN[name]);
  }
}

/** When by the wall clock the page began: the same for as long as nobody sets that clock. */
function clockSetAt() {
  return Date.now() - performance.now();
}

function isCut({ agents, tasks, counts }) {
  return agents.length >= MAX_AGENTS || OPEN.some((state) => counts[state] > tasks[state].length);
}

new Board(document.querySelector(".board"));
const form = document.querySelector("form.post");
if (form) postInPlace(form);
