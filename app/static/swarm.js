/*
 * The dashboard: panels of the swarm, and a chart of its events, that move by what <event-feed> receives.
 *
 * The swarm is asked for once (GET /api/swarm); from then on each event says what it changes. So a thousand viewers cost
 * the server nothing but the feed. It is asked again where events are missing (gap, reset), or speak of what is unknown.
 * What stands in a row is decided here as in web/dashboard.py; the rows themselves are the page's <template>s.
 */

import "./event-feed.js";
import { clockOf } from "./event-feed/elements.js";
import "./page.js"; // in one go with the feed: none of them misses what it says first

const SHOWN = { agents: 50, auctions: 50, work: 50, ended: 20 };
const MAX_COUNTED = 10_000; // more are "10,000+", and are counted no further
const MAX_TEXT_CHARS = 200;
const MAX_AGENTS = 500; // that the server tells of, as SHOWN_AGENTS in web/swarm.py
const OPEN = ["bidding", "assigned", "started"];
const KINDS = ["task", "agent", "bid", "tool", "system", "other"];
const MINUTE_MS = 60_000;
const MINUTES = 60;
const KEPT_MINUTES = 2 * MINUTES; // an event of a minute that has not begun by our clock is shown once it has
const MINUTES_A_ROW = 5;
const BAR = 10, GAP = 2, HEIGHT = 100;

const PAINT_MS = 250;
const TICK_MS = 1_000;
const ANSWER_MS = 10_000;
const SPREAD_MS = 3_000; // who misses events misses them with everybody else: not all ask at once
const RETRY_MS = 5_000;
const AGAIN_MS = 10_000; // at most so often for what is unknown
const AGAIN_CUT_MS = 120_000; // where there is more than the server tells: what is unknown stays so
const MAX_WAITING = 10_000; // more than any server is late with its answer

const NUMBER = new Intl.NumberFormat("en-GB"); // as the server writes them
const OURS = /^(task|agent)-[0-9a-f]{16}$/; // the coordinator's own: others may log such types as well
const MINUTE = /^\d{4}-\d\d-\d\dT\d\d:\d\d/; // what the server counts by
const TIMESTAMP = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

// --- the swarm -------------------------------------------------------------------------------------------------------

/** Agents, tasks and counts, as a snapshot had them and the events since have changed them. Knows no DOM. */
class Swarm {
  seq = 0;
  epoch = null;
  counts = {};
  agents = new Map();
  tasks = new Map();

  load({ epoch, seq, agents, tasks, counts }) {
    Object.assign(this, { epoch, seq, counts: { ...counts } });
    this.agents = new Map(agents.map((agent) => [agent.id, { ...agent }]));
    this.tasks = new Map(Object.values(tasks).flat().map((task) => [task.id, { ...task }]));
  }

  /** Take in what the event says; false where it speaks of what is not known here. */
  apply(event, seq) {
    if (seq <= this.seq) return true;
    this.seq = seq;
    const change = Object.hasOwn(CHANGES, event.event_type) ? CHANGES[event.event_type] : null;
    const ids = [event.task_id, event.agent_id].filter(Boolean);
    if (!change || event.source !== "coordinator" || !ids.every((id) => OURS.test(id))) return true;
    const about = /^(task|bid)\./.test(event.event_type) ? event.task_id : event.agent_id;
    if (!about || !isMoment(event.timestamp)) return true;
    const data = event.data ?? {};
    if (HEARD.has(event.event_type)) this.#hear(event);
    return change(this, { event, data, task: this.tasks.get(event.task_id), agent: this.agents.get(event.agent_id) });
  }

  #hear({ agent_id: id, timestamp }) {
    const agent = this.agents.get(id);
    if (agent && timestamp > agent.seen_at) agent.seen_at = timestamp;
  }

  add(task) {
    this.tasks.set(task.id, task);
    this.#count(task.state, 1);
  }

  move(task, state, changes) {
    if (!task) return false;
    if (task.state !== state) {
      this.#count(task.state, -1);
      this.#count(state, 1);
    }
    Object.assign(task, { state, ...changes });
    return true;
  }

  end(task, state, changes) {
    const isKnown = this.move(task, state, changes);
    for (const { id } of this.ended.slice(SHOWN.ended)) this.tasks.delete(id);
    return isKnown;
  }

  #count(state, by) {
    if (this.counts[state] <= MAX_COUNTED) this.counts[state] = Math.max(0, this.counts[state] + by);
  }

  /** The first to close first. */
  get auctions() {
    return this.#in("bidding").sort((one, other) => compare(one.closes_at, other.closes_at));
  }

  get work() {
    return this.#latest("started", "assigned");
  }

  get ended() {
    return this.#latest("completed", "failed");
  }

  #latest(...states) {
    return this.#in(...states).sort((one, other) => compare(latestOf(other), latestOf(one)));
  }

  #in(...states) {
    return [...this.tasks.values()].filter(({ state }) => states.includes(state));
  }
}

function latestOf(task) {
  return task.ended_at ?? task.started_at ?? task.assigned_at ?? task.created_at;
}

function compare(one, other) {
  return one < other ? -1 : Number(one > other);
}

function isMoment(text) {
  return TIMESTAMP.test(text) && !Number.isNaN(Date.parse(text));
}

// Whoever did these was there: the coordinator takes them for a heartbeat.
const HEARD = new Set([
  "agent.joined", "bid.submitted", "task.started", "task.completed", "tool.called", "tool.completed", "tool.failed",
]);

// What each type changes; false where something is missing.
const CHANGES = {
  "agent.joined": ({ agents }, { event, data }) => {
    const { agent_id: id, timestamp } = event;
    agents.set(id, { id, name: String(data.name), state: "idle", joined_at: timestamp, seen_at: timestamp });
    return true;
  },
  "agent.left": ({ agents }, { event }) => agents.delete(event.agent_id) || true,
  "agent.status_changed": (_, { agent, data }) => Boolean(agent && Object.assign(agent, { state: data.status })),
  "task.bidding": (swarm, { event, data, task }) => {
    if (!task && isMoment(data.closes_at)) {
      const { task_id: id, timestamp } = event;
      const { description, closes_at } = data;
      const auction = { bid_count: 0, lowest_bid_sats: null, agent_id: null, created_at: timestamp, closes_at };
      swarm.add({ id, description: String(description), state: "bidding", ...auction });
    }
    return true;
  },
  "bid.submitted": (_, { data, task }) => {
    if (!task) return false;
    if (!Number.isFinite(data.bid_sats)) return true;
    task.bid_count += 1;
    task.lowest_bid_sats = Math.min(task.lowest_bid_sats ?? Infinity, data.bid_sats);
    return true;
  },
  "task.assigned": (swarm, { event, data, task }) => swarm.move(task, "assigned", {
    agent_id: event.agent_id, agent_name: data.name, bid_sats: Number(data.bid_sats) || 0, assigned_at: event.timestamp,
  }),
  "task.started": (swarm, { event, task }) => swarm.move(task, "started", { started_at: event.timestamp }),
  "task.completed": (swarm, { event, data, task }) => swarm.end(task, "completed", {
    ended_at: event.timestamp, result: data.result,
  }),
  "task.failed": (swarm, { event, data, task }) => swarm.end(task, "failed", {
    ended_at: event.timestamp, reason: String(data.reason ?? ""),
  }),
  "tool.called": () => true,
  "tool.completed": () => true,
  "tool.failed": () => true,
};

// --- what stands in the rows -----------------------------------------------------------------------------------------

function cut(text) {
  const chars = [...text];
  return chars.length <= MAX_TEXT_CHARS ? text : `${chars.slice(0, MAX_TEXT_CHARS).join("")}…`;
}

function lengthText(secs) {
  return secs < 120 ? `${secs} s` : `${Math.floor(secs / 60)} min`;
}

/** Beats leave no event; but who is still there was heard of in time. */
function seenText(at, now, timeoutSecs) {
  const secs = Math.max(0, Math.floor((now - Date.parse(at)) / 1000));
  return secs >= timeoutSecs ? `< ${lengthText(Math.floor(timeoutSecs))} ago` : `${lengthText(secs)} ago`;
}

function bidsText(count, lowest) {
  return count ? `${NUMBER.format(count)} bid${count === 1 ? "" : "s"}, lowest ${NUMBER.format(lowest)} sats` : "no bid yet";
}

function countText(count) {
  return count > MAX_COUNTED ? `${NUMBER.format(MAX_COUNTED)}+` : NUMBER.format(count);
}

function resultText(result) {
  if (result === null || result === undefined) return "";
  return typeof result === "string" ? result : JSON.stringify(result);
}

/** The rows of each panel, as `Board` in web/dashboard.py has them. */
function rowsOf(swarm, now, timeoutSecs) {
  const { auctions, work, ended } = swarm;
  const doing = new Map(work.toReversed().map((task) => [task.agent_id, task]));
  return {
    agents: [...swarm.agents.values()].map((agent) => ({
      key: agent.id,
      state: agent.state,
      name: agent.name,
      doing: doing.has(agent.id) ? cut(doing.get(agent.id).description) : "waits for work",
      seen: seenText(agent.seen_at, now, timeoutSecs),
      seen_at: agent.seen_at,
    })),
    auctions: auctions.map((task) => {
      const left = (Date.parse(task.closes_at) - now) / 1000;
      return {
        key: task.id,
        description: cut(task.description),
        bids: bidsText(task.bid_count, task.lowest_bid_sats),
        left: left > 0 ? lengthText(Math.ceil(left)) : "closing",
        whole_secs: Math.max(1, Math.round((Date.parse(task.closes_at) - Date.parse(task.created_at)) / 1000)),
        left_secs: Math.max(0, Math.round(left)),
      };
    }),
    work: work.map(taskRow),
    ended: ended.map(taskRow),
  };
}

function taskRow(task) {
  const outcomes = { completed: resultText(task.result), failed: task.reason ?? "" };
  const outcome = outcomes[task.state] ?? `${NUMBER.format(task.bid_sats)} sats`;
  return {
    key: task.id,
    state: task.state,
    description: cut(task.description),
    about: [task.state, task.agent_name, cut(outcome)].filter(Boolean).join(" · "),
    at: latestOf(task),
  };
}

// --- the panels ------------------------------------------------------------------------------------------------------

/** One panel: its rows are kept by key, and only what has changed is touched. */
class Panel {
  #list;
  #none;
  #count;
  #template;
  #rows = new Map(); // key → {row, places}

  constructor(section) {
    this.#list = section.querySelector("ul");
    this.#none = section.querySelector(".none");
    this.#count = section.querySelector("h2 .count");
    this.#template = section.querySelector("template").content.querySelector("li");
    for (const row of this.#list.children) this.#keep(row, row.dataset.key);
  }

  /** Show the first *most* of the rows. */
  show(all, most) {
    if (this.#count) setText(this.#count, NUMBER.format(all.length));
    const focused = this.#list.contains(document.activeElement) ? document.activeElement : null;
    const wanted = all.slice(0, most);
    const keys = new Set(wanted.map(({ key }) => key));
    for (const [key, { row }] of this.#rows) {
      if (!keys.has(key) && this.#rows.delete(key)) row.remove();
    }
    wanted.forEach((fields, index) => {
      const { row, places } = this.#rows.get(fields.key) ?? this.#make(fields.key);
      fill(row, places, fields);
      if (this.#list.children[index] !== row) this.#list.insertBefore(row, this.#list.children[index] ?? null);
    });
    if (focused?.isConnected) focused.focus({ preventScroll: true }); // a row that was moved lost it
    this.#none.hidden = wanted.length > 0;
  }

  #make(key) {
    const row = document.importNode(this.#template, true);
    row.dataset.key = key;
    row.classList.add("new");
    return this.#keep(row, key);
  }

  #keep(row, key) {
    const places = new Map(Array.from(row.querySelectorAll("[data-field]"), (place) => [place.dataset.field, place]));
    this.#rows.set(key, { row, places });
    return { row, places };
  }
}

function fill(row, places, fields) {
  if (fields.state && row.dataset.state !== fields.state) row.dataset.state = fields.state;
  for (const [name, place] of places) {
    const value = fields[name];
    if (place.localName === "time") setTime(place, value);
    else setText(place, value);
    if (place.localName === "a") setLink(place, fields.key, value);
    else if (name in TITLES && place.title !== TITLES[name](fields)) place.title = TITLES[name](fields);
  }
  const progress = row.querySelector("progress");
  if (progress) Object.assign(progress, { max: fields.whole_secs, value: fields.left_secs });
}

const TITLES = {
  doing: ({ doing }) => doing,
  about: ({ about }) => about,
  seen: ({ seen_at: at }) => `last heard of ${at}`,
};

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function setTime(time, at) {
  if (time.dateTime !== at) time.dateTime = time.title = at;
  setText(time, clockOf(new Date(at))); // at midnight it gets its date
}

/** A name or a description leads to its story. */
function setLink(link, key, text) {
  if (link.title !== text) link.title = text;
  if (!link.href) link.href = `/swarm/${link.dataset.kind}/${encodeURIComponent(key)}`;
}

// --- the chart -------------------------------------------------------------------------------------------------------

/** Events per minute over the last hour, stacked by kind. Minutes are those of the server's clock. */
class Chart {
  #figure;
  #begin = 0;
  #counts = {};
  #hidden = new Set();
  #held = null; // what came since the server was asked to count anew
  seq = 0;
  isStale = false;

  constructor(figure, onchange) {
    this.#figure = figure;
    this.load(figure.dataset);
    for (const box of figure.querySelectorAll(".legend input")) {
      box.checked = true; // a reload may bring another state back
      box.onchange = () => {
        if (!this.#hidden.delete(box.value)) this.#hidden.add(box.value);
        this.isStale = true;
        onchange();
      };
    }
    figure.querySelector("details").ontoggle = () => this.#fillTable();
  }

  /** Begin anew with what the server has counted. */
  load({ begin, counts, seq }) {
    this.#begin = Date.parse(begin);
    this.#counts = JSON.parse(counts);
    this.#fillUp();
    this.seq = Number(seq);
    this.isStale = true;
    const held = this.#held ?? [];
    this.#held = null;
    for (const [event, seq] of held) this.add(event, seq);
  }

  /** What comes now is counted once `load` says what the server has counted. */
  hold(isAnotherHistory = false) {
    if (isAnotherHistory) this.#held = [];
    this.#held ??= [];
  }

  add(event, seq) {
    if (this.#held) return keepNewest(this.#held, [[event, seq]]);
    if (seq <= this.seq) return;
    this.seq = seq;
    const [begun] = MINUTE.exec(event.timestamp) ?? [];
    const minute = Math.floor((Date.parse(`${begun}Z`) - this.#begin) / MINUTE_MS);
    if (!(minute >= 0 && minute < KEPT_MINUTES)) return;
    this.#counts[kindOf(event.event_type)][minute] += 1;
    this.isStale = true;
  }

  /** Let go of minutes that are more than an hour ago. */
  advance(now) {
    const passed = Math.floor((now - this.#begin) / MINUTE_MS) - (MINUTES - 1);
    if (passed <= 0) return;
    this.#begin += passed * MINUTE_MS;
    for (const counts of Object.values(this.#counts)) counts.splice(0, passed);
    this.#fillUp();
    this.isStale = true;
  }

  #fillUp() {
    for (const counts of Object.values(this.#counts)) {
      while (counts.length < KEPT_MINUTES) counts.push(0);
    }
  }

  #lastHour(kind) {
    return this.#counts[kind].slice(0, MINUTES);
  }

  draw() {
    if (!this.isStale) return;
    this.isStale = false;
    const shown = KINDS.filter((kind) => !this.#hidden.has(kind));
    const sums = Array.from({ length: MINUTES }, (_, minute) => sum(shown.map((kind) => this.#counts[kind][minute])));
    const peak = Math.max(...sums);
    const top = axisEnd(peak);
    const floors = new Array(MINUTES).fill(0);
    for (const kind of KINDS) {
      const isShown = !this.#hidden.has(kind);
      const counts = this.#lastHour(kind);
      this.#draw(kind, isShown ? path(floors, counts, top) : "", sum(counts));
      if (isShown) counts.forEach((count, minute) => (floors[minute] += count));
    }
    this.#label(top, `${NUMBER.format(sum(sums))} in all, at most ${NUMBER.format(peak)} in a minute`);
    this.#fillTable();
  }

  #draw(kind, bars, total) {
    const drawn = this.#figure.querySelector(`path[data-kind="${kind}"]`);
    if (drawn.getAttribute("d") !== bars) drawn.setAttribute("d", bars);
    setText(this.#figure.querySelector(`label[data-kind="${kind}"] .count`), NUMBER.format(total));
  }

  #label(top, about) {
    const [end, half] = this.#figure.querySelectorAll(".axis span");
    setText(end, NUMBER.format(top));
    setText(half, NUMBER.format(Math.floor(top / 2)));
    setText(this.#figure.querySelector("desc"), about);
  }

  /** The table, where it is open. */
  #fillTable() {
    if (!this.#figure.querySelector("details").open) return;
    this.#figure.querySelectorAll("tbody tr").forEach((row, index) => {
      const start = MINUTES - (index + 1) * MINUTES_A_ROW;
      const begin = new Date(this.#begin + start * MINUTE_MS);
      const time = row.querySelector("time");
      time.dateTime = begin.toISOString();
      setText(time, clockOf(begin, true));
      row.querySelectorAll("td").forEach((cell, column) => {
        setText(cell, NUMBER.format(sum(this.#counts[KINDS[column]].slice(start, start + MINUTES_A_ROW))));
      });
    });
  }
}

function kindOf(type) {
  if (type === "auction.closed") return "bid";
  const [prefix] = String(type).split(".");
  return KINDS.includes(prefix) ? prefix : "other";
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

function axisEnd(peak) {
  let end = 10;
  while (end < peak) end = String(end).startsWith("2") ? end * 2.5 : end * 2;
  return end;
}

function path(floors, counts, top) {
  return counts.map((count, minute) => {
    if (!count) return "";
    const y = HEIGHT * (1 - (floors[minute] + count) / top);
    const height = (HEIGHT * count) / top;
    return `M${minute * BAR} ${y.toFixed(2)}h${BAR - GAP}v${height.toFixed(2)}h${GAP - BAR}z`;
  }).join("");
}

// --- the page --------------------------------------------------------------------------------------------------------

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
      const snapshot = await answer.json();
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

function keepNewest(list, items) {
  list.push(...items);
  if (list.length > 2 * MAX_WAITING) list.splice(0, list.length - MAX_WAITING);
}

// --- posting ---------------------------------------------------------------------------------------------------------

/** The form, without leaving the page. */
function postInPlace(form) {
  const { description } = form.elements;
  const problem = form.querySelector("[role=alert]");
  form.onsubmit = async (event) => {
    event.preventDefault();
    if (form.ariaBusy === "true") return;
    form.ariaBusy = "true";
    const { value } = description;
    setText(problem, await post(value, form.elements.csrf_token?.value));
    form.ariaBusy = "false";
    if (!problem.textContent && description.value === value) form.reset();
    description.focus();
  };
}

/** Return what went wrong; nothing where all went well. */
async function post(description, token) {
  const headers = { "Content-Type": "application/json", ...(token && { "X-CSRFToken": token }) };
  const body = JSON.stringify({ description });
  const signal = AbortSignal.timeout(ANSWER_MS);
  try {
    const answer = await fetch("/api/swarm/tasks", { method: "POST", headers, body, signal });
    return answer.ok ? "" : (await answer.json()).detail;
  } catch {
    return "No answer. It may have been posted all the same: look before you post it again.";
  }
}

new Board(document.querySelector(".board"));
const form = document.querySelector("form.post");
if (form) postInPlace(form);
