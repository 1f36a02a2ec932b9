// The chart under the pointer and the keyboard: a tooltip for a bar, and a range that opens in the log.

import { NUMBER, clockOf, make } from "../event-feed/elements.js";
import { ROOT } from "../event-feed/root.js";

// The types of a kind that has another name than the first word of its types.
const TYPES = { bid: ["bid.*", "auction.*"], system: ["system.*", "access.*"] };
const SECOND_MS = 1000;

/** Handles the picker of the chart in *board*, which stays while the chart is updated. */
export class Picker {
  #board;
  #picker;
  #selection = make("div", "selection");
  #tip = make("div", "tip");
  #bar = null; // the bar under the pointer, or that the keyboard has chosen
  #anchor = null; // the other end of a range
  #isDragging = false;

  constructor(board) {
    this.#board = board;
    document.addEventListener("live:board", () => this.#attach());
    this.#attach();
  }

  /** The picker is replaced only with the chart itself. */
  #attach() {
    const picker = this.#board.querySelector(".chart .picker");
    if (picker && picker !== this.#picker) this.#prepare(picker);
    this.#show();
  }

  #prepare(picker) {
    this.#picker = picker;
    picker.replaceChildren(this.#selection, this.#tip);
    picker.tabIndex = 0;
    picker.setAttribute("role", "slider");
    picker.setAttribute("aria-label", "Time in the chart. Arrow keys move, Shift extends, Enter opens the log.");
    picker.onpointerdown = (event) => this.#press(event);
    picker.onpointermove = (event) => this.#point(event);
    picker.onpointerup = (event) => this.#release(event);
    picker.onpointerleave = picker.onpointercancel = picker.onblur = () => this.#clear();
    picker.onfocus = () => picker.matches(":focus-visible") && this.#choose(this.#bar ?? this.#count - 1);
    picker.onkeydown = (event) => this.#type(event);
  }

  get #chart() {
    return this.#board.querySelector(".chart");
  }

  /** The kinds that are drawn, each with its counts. */
  get #bands() {
    const paths = [...this.#chart.querySelectorAll("path[data-counts]")].filter((path) => path.getAttribute("d"));
    return paths.map(({ dataset }) => ({ ...dataset, counts: dataset.counts.split(",").map(Number) }));
  }

  get #count() {
    return Number(this.#chart.dataset.bars);
  }

  #barAt({ clientX }) {
    const { left, width } = this.#picker.getBoundingClientRect();
    return Math.max(0, Math.min(this.#count - 1, Math.floor(((clientX - left) / width) * this.#count)));
  }

  // The pointer

  #press(event) {
    if (event.button) return;
    event.preventDefault(); // selects no text
    this.#picker.setPointerCapture(event.pointerId);
    this.#isDragging = true;
    this.#anchor = this.#barAt(event);
    this.#choose(this.#anchor);
  }

  #point(event) {
    if (!this.#isDragging) this.#anchor = null;
    this.#choose(this.#barAt(event));
  }

  #release(event) {
    if (!this.#isDragging) return;
    this.#isDragging = false;
    this.#choose(this.#barAt(event));
    this.#open();
  }

  #clear() {
    this.#bar = this.#anchor = null;
    this.#isDragging = false;
    this.#show();
  }

  // The keyboard

  #type(event) {
    const last = this.#count - 1;
    const bar = this.#bar ?? last;
    const places = { ArrowLeft: bar - 1, ArrowRight: bar + 1, Home: 0, End: last };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in places) {
      this.#anchor = event.shiftKey ? this.#anchor ?? bar : null;
      this.#choose(Math.max(0, Math.min(last, places[event.key])));
    } else if (event.key === "Enter") this.#open();
    else if (event.key === "Escape") this.#clear();
    else return;
    event.preventDefault();
  }

  // The range

  #choose(bar) {
    this.#bar = bar;
    this.#show();
  }

  get #range() {
    const ends = [this.#bar, this.#anchor ?? this.#bar];
    return [Math.min(...ends), Math.max(...ends)];
  }

  /** The begin of *bar*. */
  #momentOf(bar) {
    const { begin, stepSecs } = this.#chart.dataset;
    return new Date(Date.parse(begin) + bar * stepSecs * SECOND_MS);
  }

  #open() {
    if (this.#bar === null) return;
    const [first, last] = this.#range;
    const kinds = this.#board.dataset.kinds?.split(",").filter(Boolean) ?? [];
    const types = kinds.includes("other") ? [] : kinds.flatMap((kind) => TYPES[kind] ?? [`${kind}.*`]);
    const query = new URLSearchParams({
      ...(types.length && { type: types.join(",") }),
      from: inputOf(this.#momentOf(first)),
      to: inputOf(this.#momentOf(last + 1)),
    });
    location.assign(`${ROOT}swarm/events?${query}`);
  }

  #show() {
    if (!this.#picker) return;
    const isOn = this.#bar !== null && this.#bar < this.#count;
    this.#selection.hidden = this.#tip.hidden = !isOn;
    const range = isOn ? this.#range : [this.#count - 1, this.#count - 1];
    const { title, rows } = this.#summaryOf(range);
    const said = [title, ...rows.map(({ kind, count }) => `${kind} ${NUMBER.format(count)}`)].join(", ");
    const values = { valuemin: 0, valuemax: this.#count - 1, valuenow: range[1], valuetext: said };
    for (const [name, value] of Object.entries(values)) this.#picker.setAttribute(`aria-${name}`, value);
    if (isOn) this.#showTip(range, title, rows);
  }

  /** Return the time and the number of events of the bars *first* to *last*, and the numbers of each kind. */
  #summaryOf([first, last]) {
    const rows = this.#bands
      .map(({ kind, colour, counts }) => ({ kind, colour, count: sum(counts.slice(first, last + 1)) }))
      .filter(({ count }) => count)
      .sort((one, another) => another.count - one.count);
    const all = sum(rows.map(({ count }) => count));
    const time = `${this.#label(first)} – ${this.#label(last + 1)}`;
    return { title: `${time}: ${NUMBER.format(all)} ${all === 1 ? "event" : "events"}`, rows };
  }

  #showTip([first, last], title, rows) {
    const items = rows.map(({ kind, colour, count }) => {
      const item = make("li", "", make("span", "mark"), ` ${kind} `, make("b", "", NUMBER.format(count)));
      item.dataset.colour = colour;
      return item;
    });
    this.#tip.replaceChildren(make("p", "", title), make("ul", "", ...items));
    this.#selection.style.left = `${(100 * first) / this.#count}%`;
    this.#selection.style.width = `${(100 * (last + 1 - first)) / this.#count}%`;
    const middle = (first + last + 1) / 2 / this.#count;
    this.#tip.style.left = `${100 * middle}%`;
    this.#tip.style.translate = `${-100 * middle}%`; // stays within the chart
  }

  #label(bar) {
    return clockOf(this.#momentOf(bar), this.#chart.dataset.stepSecs % 60 === 0);
  }
}

function sum(numbers) {
  return numbers.reduce((one, another) => one + another, 0);
}

/** Return *moment* in UTC as the log's address has it: 2026-01-31T12:00, with seconds if there are some. */
function inputOf(moment) {
  return moment.toISOString().slice(0, 19).replace(/:00$/, "");
}
