// Events per minute over the last hour, stacked by kind. Minutes are those of the server's clock; what comes while it
// counts anew waits.

import { clockOf, setText } from "../event-feed/elements.js";
import { NUMBER } from "./rows.js";

const KINDS = ["task", "agent", "bid", "tool", "system", "other"];
const MINUTE_MS = 60_000;
const MINUTES = 60;
const KEPT_MINUTES = 2 * MINUTES; // an event of a minute that has not begun by our clock is shown once it has
const MINUTES_A_ROW = 5;
const BAR = 10, GAP = 2, HEIGHT = 100;
const MINUTE = /^\d{4}-\d\d-\d\dT\d\d:\d\d/; // what the server counts by

export class Chart {
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

// --- what waits ------------------------------------------------------------------------------------------------------

const MAX_WAITING = 10_000; // more than any server is late with its answer

/** Of what waits for an answer of the server the newest is enough. */
export function keepNewest(list, items) {
  list.push(...items);
  if (list.length > 2 * MAX_WAITING) list.splice(0, list.length - MAX_WAITING);
}
