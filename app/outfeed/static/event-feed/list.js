// The rows on screen, newest first, at most MAX_ROWS: events and notices, shown or hidden as the filter says.

import { NUMBER, clockOf, linkTo, make, momentOf, widthOf } from "./elements.js";

// --- the list --------------------------------------------------------------------------------------------------------

export const MAX_ROWS = 500;

export class List {
  element = make("ol", "rows");
  #sentences;
  #filter;
  #logHref;
  #today = "";
  #longest = 0; // of the times, in characters
  #items = new WeakMap(); // row → {event, kind, text}
  #past = new Map(); // id → row, of those that came from the log
  #focused = null; // the row that last got the focus, if by the keyboard: a pointer leaves it where it happens to be

  /** *logHref* is asked, when a row is opened, where the log is. */
  constructor(sentences, filter, logHref) {
    this.#sentences = sentences;
    this.#filter = filter;
    this.#logHref = logHref;
    this.element.addEventListener("toggle", ({ target }) => this.#fillDetails(target), true);
    this.element.addEventListener("focusin", ({ target }) => {
      this.#focused = target.matches(":focus-visible") ? target.closest("li") : null;
    });
    this.element.addEventListener("click", (event) => {
      // By a pointer that selected text: not meant to open the row. A click by the keyboard has no detail.
      if (event.detail && getSelection().type === "Range") event.preventDefault();
    });
  }

  get ids() {
    return this.#events.map(({ id }) => id);
  }

  /** Of the rows that came by the feed. */
  get seqs() {
    return this.#events.map(({ seq }) => seq).filter(Boolean);
  }

  /** Oldest first. */
  get notices() {
    return [...this.element.querySelectorAll(":scope > .notice")].reverse();
  }

  get #events() {
    return Array.from(this.element.children, (row) => this.#items.get(row)?.event).filter(Boolean);
  }

  /** Put *items*, oldest first, on top; those that are live are highlighted if they are few. */
  render(items, isCalm = true) {
    this.restamp();
    for (const { event } of items) this.#past.get(event?.id)?.remove();
    this.element.prepend(...items.map((item) => item.notice ?? this.#row(item, isCalm && !item.replayed && !item.isAgain)).reverse());
    this.#trim();
  }

  /** Put *items* of the log, newest first, below the rows. Return how many there are that no row shows. */
  append(items) {
    const ids = new Set(this.ids);
    const known = items.findLastIndex(({ event }) => ids.has(event.id)); // what is newer comes by the feed
    const missing = items.slice(known + 1);
    for (const item of missing) this.#past.set(item.event.id, this.#row(item, false));
    this.element.append(...missing.map(({ event }) => this.#past.get(event.id)));
    this.#trim();
    return missing.length;
  }

  /** The times have one width, so that what follows them stands in columns. */
  #align() {
    const times = widthOf(this.#longest);
    if (this.element.dataset.times !== times) this.element.dataset.times = times;
  }

  #trim() {
    this.#align();
    while (this.element.childElementCount > MAX_ROWS) this.element.lastElementChild.remove();
    if (this.#filter.isOn) this.#tellFilter();
  }

  clear() {
    this.#past.clear();
    this.#longest = 0;
    this.element.replaceChildren();
    this.sift();
  }

  /** Show the rows that the filter lets through, and the notices. */
  sift() {
    for (const row of this.element.children) {
      const item = this.#items.get(row);
      row.hidden = item !== undefined && !this.#filter.matches(item);
    }
    this.#tellFilter();
  }

  #tellFilter() {
    const rows = [...this.element.querySelectorAll(".event")];
    this.#filter.tell(rows.filter((row) => !row.hidden).length, rows.length);
  }

  get isOpen() {
    return this.element.querySelector("li:not([hidden]) details[open]") !== null;
  }

  /** Also while another window has the keyboard: who comes back goes on where they were. */
  get isFocused() {
    return this.#focused?.contains(this.element.getRootNode().activeElement) ?? false;
  }

  close() {
    for (const details of this.element.querySelectorAll("details[open]")) details.open = false;
  }

  /** Move the focus by *step* rows, from outside the rows to the next one in view; false where that is above them. */
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

  /** An event that no row can be made of is shown as text: it must not stop those after it. */
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
    this.#filter.offer(display.kind);
    row.hidden = !this.#filter.matches(item);
    return row;
  }

  /** A list left open overnight: what was today's gets its date. */
  restamp() {
    const today = new Date().toDateString();
    if (today === this.#today) return;
    this.#today = today;
    for (const time of this.element.querySelectorAll("time[datetime]")) {
      time.textContent = clockOf(new Date(time.dateTime));
      this.#longest = Math.max(this.#longest, time.textContent.length);
    }
    this.#align();
  }

  /** The details are made when a row is first opened: most never are. */
  #fillDetails(details) {
    if (!details.open || details.childElementCount > 1) return;
    details.append(detailsOf(this.#items.get(details.closest("li")).event, this.#logHref()));
  }
}

// --- a row -----------------------------------------------------------------------------------------------------------

/** Time, icon, sentence, source and ids, as in `_event.html`; closed. *parts* are those of the sentence. */
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

/** Source and ids, without those that the sentence already names. */
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

/** Long ids keep their end: time-ordered ids made together all begin alike. */
function shorten(id) {
  return id.length > 20 ? `…${id.slice(-8)}` : id;
}

// --- an opened row ---------------------------------------------------------------------------------------------------

const MAX_NAME_CHARS = 200; // a filter takes no more
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9._:@~-]*$/; // what can stand in a path, as in http/addresses.py
// Each with its parameter in the log's address, and the pages of its own that lie there.
const WAYS = {
  id: ["id", "./"],
  event_type: ["type"],
  source: ["source"],
  task_id: ["task", "../tasks/"],
  agent_id: ["agent", "../agents/"],
};

/** All that the event holds, with ways into the log, as `Row.fields` in log/live.py has them. */
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
  if (!Object.hasOwn(WAYS, name) || [...value].length > MAX_NAME_CHARS) return value;
  const [parameter, pages] = WAYS[name];
  const log = new URL(logHref, document.baseURI);
  const query = `${log.pathname}?${new URLSearchParams({ [parameter]: value })}`;
  const address = pages && PLAIN.test(value) ? `${log.pathname}/${pages}${value}` : query;
  return linkTo(new URL(address, log).href, value);
}
