// The rows on screen, newest first, at most MAX_ROWS: events and notices, shown or hidden by the filter. A reader who
// scrolls back gets more rows, until new ones are shown.

import { clockOf, make, widthOf } from "./elements.js";
import { Groups, isGroup, rowsIn } from "./groups.js";
import { detailsOf, paint, rowOf } from "./row.js";

export const MAX_ROWS = 500;
const MAX_PAST_ROWS = 5000; // while a reader scrolls back

export class List {
  element = make("ol", "rows");
  #sentences;
  #filter;
  #logHref;
  #today = "";
  #longest = 0; // length of the longest time, in characters
  #items = new WeakMap(); // row → {event, kind, text}
  #past = new Map(); // id → row, for rows from the log
  #groups = new Groups(this.element, (row) => this.#items.get(row)?.event, (row, event) => this.#paintGroup(row, event));
  #focused = null; // the row that last got the focus by the keyboard: a pointer focuses rows by accident

  /** *logHref* returns the address of the log. It is called when a row is opened. */
  constructor(sentences, filter, logHref) {
    this.#sentences = sentences;
    this.#filter = filter;
    this.#logHref = logHref;
    this.element.addEventListener("toggle", ({ target }) => this.#fillDetails(target), true);
    this.element.addEventListener("focusin", ({ target }) => {
      this.#focused = target.matches(":focus-visible") ? target.closest("li") : null;
    });
    this.element.addEventListener("click", (event) => {
      // A click at the end of a text selection does not open the row. A click by the keyboard has no detail.
      if (event.detail && getSelection().type === "Range") event.preventDefault();
    });
  }

  get ids() {
    return this.#events.map(({ id }) => id);
  }

  /** The id of the oldest event, or null. */
  get lastId() {
    const last = this.element.lastElementChild;
    return last ? this.#items.get(rowsIn(last).at(-1))?.event.id ?? null : null;
  }

  /** The seqs of the rows that the feed sent. */
  get seqs() {
    return this.#events.map(({ seq }) => seq).filter(Boolean);
  }

  /** The notices, oldest first. */
  get notices() {
    return [...this.element.querySelectorAll(":scope > .notice")].reverse();
  }

  get #rows() {
    return [...this.element.querySelectorAll(".event:not(.group)")];
  }

  get #events() {
    return this.#rows.map((row) => this.#items.get(row).event);
  }

  /** Add *items*, oldest first, at the top. Live ones are highlighted if they are few. Return whether old rows went. */
  render(items, isCalm = true) {
    this.refreshDates();
    for (const { event } of items) this.#dropPast(event?.id);
    this.element.prepend(...items.map((item) => item.notice ?? this.#row(item, isCalm && !item.replayed && !item.isAgain)).reverse());
    this.#groups.foldTop(items.length);
    return this.#trim(MAX_ROWS);
  }

  /** Remove the row of the log that a row of the feed replaces. */
  #dropPast(id) {
    const row = this.#past.get(id);
    const group = row?.closest(".group");
    row?.remove();
    if (group) this.#groups.update(group);
  }

  /** Whether there is space for earlier rows. */
  get hasSpace() {
    return this.#rows.length < MAX_PAST_ROWS;
  }

  /** Add *items* of the log, newest first, below the rows. Return the number of those that had no row. */
  append(items, isReading = false) {
    const ids = new Set(this.ids);
    const known = items.findLastIndex(({ event }) => ids.has(event.id)); // the feed sends the newer ones
    const missing = items.slice(known + 1);
    for (const item of missing) this.#past.set(item.event.id, this.#row(item, false));
    this.element.append(...missing.map(({ event }) => this.#past.get(event.id)));
    if (missing.length) this.#groups.foldFrom(this.#past.get(missing[0].event.id));
    this.#trim(isReading ? MAX_PAST_ROWS : MAX_ROWS);
    return missing.length;
  }

  /** Give the times one width, so that the sentences form a column. */
  #align() {
    const times = widthOf(this.#longest);
    if (this.element.dataset.times !== times) this.element.dataset.times = times;
  }

  /** Remove the oldest rows beyond *most*; return whether there are some. */
  #trim(most) {
    this.#align();
    const count = this.element.querySelectorAll(".event:not(.group), .notice").length;
    for (let surplus = count - most; surplus > 0; surplus -= 1) this.#dropLast();
    if (this.#filter.isOn) this.#updateCounts();
    return count > most;
  }

  #dropLast() {
    const last = this.element.lastElementChild;
    const row = rowsIn(last).at(-1);
    this.#past.delete(this.#items.get(row)?.event.id);
    row.remove();
    if (isGroup(last)) this.#groups.update(last);
  }

  clear() {
    this.#past.clear();
    this.#longest = 0;
    this.element.replaceChildren();
    this.applyFilter();
  }

  /** Show the notices, and the rows that match the filter. */
  applyFilter() {
    for (const row of this.#rows) row.hidden = !this.#filter.matches(this.#items.get(row));
    this.#groups.updateAll();
    this.#updateCounts();
  }

  #updateCounts() {
    const rows = this.#rows;
    this.#filter.showCounts(rows.filter((row) => !row.hidden).length, rows.length);
  }

  get isOpen() {
    return this.element.querySelector("li:not([hidden]) details[open]") !== null;
  }

  /** Whether a row has the focus. True also if another window has the keyboard: the reader continues here later. */
  get isFocused() {
    return this.#focused?.contains(this.element.getRootNode().activeElement) ?? false;
  }

  close() {
    for (const details of this.element.querySelectorAll("details[open]")) details.open = false;
  }

  /** Move the focus by *step* rows; from outside the rows, to the next visible one. Return false if it is above. */
  move(step) {
    const all = [...this.element.querySelectorAll("li:not([hidden]) > details > summary, .notice")];
    const handles = all.filter((handle) => !handle.closest("details:not([open]) > .members"));
    const row = this.element.getRootNode().activeElement?.closest("li"); // of a handle, or of a link in it
    const focused = handles.findIndex((handle) => handle.closest("li") === row);
    const top = this.element.parentElement.getBoundingClientRect().top;
    const first = handles.findIndex((handle) => handle.getBoundingClientRect().top >= top);
    const next = focused < 0 ? first + Math.min(0, step) : focused + step;
    handles[next]?.focus();
    return next >= 0;
  }

  /** Return the row of *item*. If that fails, return a text: one bad event must not stop the others. */
  #row(item, isNew) {
    try {
      return this.#rowOf(item, isNew);
    } catch (error) {
      console.error("event-feed: an event can't be shown:", error);
      const { seq, id, event_type: type } = item.event;
      return make("li", "notice", `Event ${seq ?? ""} can't be shown: ${type} ${id}`);
    }
  }

  #rowOf({ event }, isNew) {
    const row = rowOf(event);
    row.classList.toggle("new", isNew);
    this.#paint(row, event);
    this.#longest = Math.max(this.#longest, row.querySelector("time").textContent.length);
    return row;
  }

  /** Give *row* the present look of its event. */
  #paint(row, event) {
    const look = this.#sentences.lookOf(event);
    paint(row, event, look);
    const said = [event.event_type, event.source, event.task_id, event.agent_id, ...look.parts.map(([text]) => text)];
    const item = { event, kind: look.kind, text: said.join(" ").toLowerCase() };
    this.#items.set(row, item);
    this.#filter.showChip(look.kind, look.colour);
    row.hidden = !this.#filter.matches(item);
  }

  #paintGroup(group, event) {
    paint(group, event, this.#sentences.lookOf(event));
  }

  /** Give every row its look again: the displays have changed. */
  repaint() {
    for (const row of this.#rows) this.#paint(row, this.#items.get(row).event);
    this.#groups.updateAll();
    this.#updateCounts();
  }

  /** Add the date to the times of former days, in a list that stays open past midnight. */
  refreshDates() {
    const today = new Date().toDateString();
    if (today === this.#today) return;
    this.#today = today;
    for (const time of this.element.querySelectorAll("time[datetime]")) {
      time.textContent = clockOf(new Date(time.dateTime));
      this.#longest = Math.max(this.#longest, time.textContent.length);
    }
    this.#align();
  }

  /** Fill the details when a row is first opened: most rows are never opened. */
  #fillDetails(details) {
    if (!details.open || details.childElementCount > 1) return; // a group has its rows
    details.append(detailsOf(this.#items.get(details.closest("li")).event, this.#logHref()));
  }
}
