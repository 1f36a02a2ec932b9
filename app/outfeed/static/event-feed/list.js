// The rows on screen, newest first, at most MAX_ROWS: events and notices, shown or hidden by the filter.

import { NUMBER, clockOf, linkTo, make, momentOf, widthOf } from "./elements.js";

// --- the list --------------------------------------------------------------------------------------------------------

export const MAX_ROWS = 500;

export class List {
  element = make("ol", "rows");
  #sentences;
  #filter;
  #logHref;
  #today = "";
  #longest = 0; // length of the longest time, in characters
  #items = new WeakMap(); // row → {event, kind, text}
  #past = new Map(); // id → row, for rows from the log
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

  /** The seqs of the rows that the feed sent. */
  get seqs() {
    return this.#events.map(({ seq }) => seq).filter(Boolean);
  }

  /** The notices, oldest first. */
  get notices() {
    return [...this.element.querySelectorAll(":scope > .notice")].reverse();
  }

  get #events() {
    return Array.from(this.element.children, (row) => this.#items.get(row)?.event).filter(Boolean);
  }

  /** Add *items*, oldest first, at the top. Live ones are highlighted if they are few. */
  render(items, isCalm = true) {
    this.refreshDates();
    for (const { event } of items) this.#past.get(event?.id)?.remove();
    this.element.prepend(...items.map((item) => item.notice ?? this.#row(item, isCalm && !item.replayed && !item.isAgain)).reverse());
    this.#trim();
  }

  /** Add *items* of the log, newest first, below the rows. Return the number of those that had no row. */
  append(items) {
    const ids = new Set(this.ids);
    const known = items.findLastIndex(({ event }) => ids.has(event.id)); // the feed sends the newer ones
    const missing = items.slice(known + 1);
    for (const item of missing) this.#past.set(item.event.id, this.#row(item, false));
    this.element.append(...missing.map(({ event }) => this.#past.get(event.id)));
    this.#trim();
    return missing.length;
  }

  /** Give the times one width, so that the sentences form a column. */
  #align() {
    const times = widthOf(this.#longest);
    if (this.element.dataset.times !== times) this.element.dataset.times = times;
  }

  #trim() {
    this.#align();
    while (this.element.childElementCount > MAX_ROWS) this.element.lastElementChild.remove();
    if (this.#filter.isOn) this.#updateCounts();
  }

  clear() {
    this.#past.clear();
    this.#longest = 0;
    this.element.replaceChildren();
    this.applyFilter();
  }

  /** Show the notices, and the rows that match the filter. */
  applyFilter() {
    for (const row of this.element.children) {
      const item = this.#items.get(row);
      row.hidden = item !== undefined && !this.#filter.matches(item);
    }
    this.#updateCounts();
  }

  #updateCounts() {
    const rows = [...this.element.querySelectorAll(".event")];
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
    const handles = [...this.element.querySelectorAll("li:not([hidden]) summary, .notice")];
    const active = this.element.getRootNode().activeElement;
    const focused = handles.findIndex((handle) => handle.closest("li").contains(active)); // it, or a link in it
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
    const display = this.#sentences.displayOf(String(event.event_type));
    const parts = this.#sentences.partsOf(event, display);
    const row = rowOf(event, display, parts);
    row.classList.toggle("new", isNew);
    const said = [event.event_type, event.source, event.task_id, event.agent_id, ...parts.map(([text]) => text)];
    const item = { event, kind: display.kind, text: said.join(" ").toLowerCase() };
    this.#items.set(row, item);
    this.#longest = Math.max(this.#longest, row.querySelector("time").textContent.length);
    this.#filter.showChip(display.kind);
    row.hidden = !this.#filter.matches(item);
    return row;
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
    if (!details.open || details.childElementCount > 1) return;
    details.append(detailsOf(this.#items.get(details.closest("li")).event, this.#logHref()));
  }
}

// --- a row -----------------------------------------------------------------------------------------------------------

/** Return a closed row with time, icon, sentence, source and ids, as in `_event.html`. *parts* are the sentence's. */
function rowOf(event, display, parts) {
  const sentence = make("span", "sentence", ...parts.map(([text, isName]) => (isName ? make("b", "", text) : text)));
  const icon = make("span", "icon", display.icon);
  icon.setAttribute("aria-hidden", "true");
  const summary = make("summary", "", icon, sentence, timeOf(event.timestamp), metaOf(event, parts));
  summary.tabIndex = -1;
  const row = make("li", "event", make("details", "", summary));
  row.dataset.kind = display.kind;
  if (event.seq) row.dataset.seq = event.seq;
  row.classList.toggle("error", display.error);
  return row;
}

function timeOf(timestamp) {
  const text = String(timestamp ?? "");
  const moment = momentOf(text);
  const time = make("time", "", moment ? clockOf(moment) : text);
  time.title = text;
  if (moment) time.dateTime = moment.toISOString();
  return time;
}

/** Return the source and the ids that the sentence does not contain. */
function metaOf(event, parts) {
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

/** Cut a long id to its end: time-ordered ids of one moment begin alike. */
function shorten(id) {
  return id.length > 20 ? `…${id.slice(-8)}` : id;
}

// --- an opened row ---------------------------------------------------------------------------------------------------

const MAX_NAME_CHARS = 200; // the limit of a filter's value
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9._:@~-]*$/; // names that are safe in a path, as in http/addresses.py
// For each field, its parameter in the log's address, and its own pages beside the log, if any.
const LINKS = {
  id: ["id", "./"],
  event_type: ["type"],
  source: ["source"],
  task_id: ["task", "../tasks/"],
  agent_id: ["agent", "../agents/"],
};

/** Return all fields of the event, with links to the log, as `Row.fields` in log/live.py does. */
function detailsOf({ data, omitted_bytes: omitted, ...fields }, logHref) {
  const list = make("dl");
  for (const [name, value] of Object.entries(fields)) {
    if (value) list.append(make("div", "", make("dt", "", name), make("dd", "", shown(name, String(value), logHref))));
  }
  const left = omitted ? `${NUMBER.format(omitted)} bytes of data are too large to show here.` : null;
  const details = make("div", "more", list);
  if (left || data !== null) details.append(make("pre", "", left ?? JSON.stringify(data, null, 2)));
  return details;
}

function shown(name, value, logHref) {
  if (!Object.hasOwn(LINKS, name) || [...value].length > MAX_NAME_CHARS) return value;
  const [parameter, pages] = LINKS[name];
  const log = new URL(logHref, document.baseURI);
  const query = `${log.pathname}?${new URLSearchParams({ [parameter]: value })}`;
  const address = pages && PLAIN.test(value) ? `${log.pathname}/${pages}${value}` : query;
  return linkTo(new URL(address, log).href, value);
}
