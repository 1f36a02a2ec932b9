// The rows on screen, newest first, at most MAX_ROWS: events and notices, shown or hidden as the filter says.

import { NUMBER, clockOf, make, momentOf } from "./elements.js";

// --- the list --------------------------------------------------------------------------------------------------------

export const MAX_ROWS = 500;

export class List {
  element = make("ol", "rows");
  #sentences;
  #filter;
  #today = "";
  #items = new WeakMap(); // row → {event, kind, text}

  constructor(sentences, filter) {
    this.#sentences = sentences;
    this.#filter = filter;
    this.element.addEventListener("toggle", ({ target }) => this.#fillDetails(target), true);
    this.element.addEventListener("click", (event) => {
      // By a pointer that selected text: not meant to open the row. A click by the keyboard has no detail.
      if (event.detail && getSelection().type === "Range") event.preventDefault();
    });
  }

  get ids() {
    return Array.from(this.element.children, (row) => this.#items.get(row)?.event.id);
  }

  /** Put *items*, oldest first, on top; those that are live are highlighted if they are few. */
  render(items, isCalm = true) {
    this.restamp();
    this.element.prepend(...items.map((item) => item.notice ?? this.#row(item, isCalm && !item.replayed)).reverse());
    while (this.element.childElementCount > MAX_ROWS) this.element.lastElementChild.remove();
    if (this.#filter.isOn) this.#tellFilter();
  }

  clear() {
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

  close() {
    for (const details of this.element.querySelectorAll("details[open]")) details.open = false;
  }

  /** Move the focus by *step* rows; from outside the rows to the first one in view. */
  move(step) {
    const handles = [...this.element.querySelectorAll("li:not([hidden]) summary, .notice")];
    const focused = handles.indexOf(this.element.getRootNode().activeElement);
    const top = this.element.parentElement.getBoundingClientRect().top;
    const first = handles.findIndex((handle) => handle.getBoundingClientRect().top >= top);
    handles[focused < 0 ? first : Math.max(0, focused + step)]?.focus();
  }

  #row({ event }, isNew) {
    const display = this.#sentences.displayOf(String(event.event_type));
    const parts = this.#sentences.partsOf(event, display);
    const row = rowOf(event, display, parts);
    row.classList.toggle("new", isNew);
    const said = [event.event_type, event.source, event.task_id, event.agent_id, ...parts.map(([text]) => text)];
    const item = { event, kind: display.kind, text: said.join(" ").toLowerCase() };
    this.#items.set(row, item);
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
    }
  }

  /** The details are made when a row is first opened: most never are. */
  #fillDetails(details) {
    if (!details.open || details.childElementCount > 1) return;
    details.append(detailsOf(this.#items.get(details.closest("li")).event));
  }
}

// --- a row -----------------------------------------------------------------------------------------------------------

/** Time, icon, sentence, source and ids, as in `_event.html`; closed. *parts* are those of the sentence. */
function rowOf(event, display, parts) {
  const sentence = make("span", "sentence", ...parts.map(([text, isName]) => (isName ? make("b", "", text) : text)));
  const icon = make("span", "icon", display.icon);
  icon.ariaHidden = "true";
  const summary = make("summary", "", icon, sentence, timeOf(event.timestamp), metaOf(event, parts));
  summary.tabIndex = -1;
  const row = make("li", "event", make("details", "", summary));
  row.dataset.kind = display.kind;
  row.dataset.seq = event.seq;
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

/** What an opened row shows: all that the event holds. */
function detailsOf({ data, omitted_bytes: omitted, ...fields }) {
  const list = make("dl");
  for (const [name, value] of Object.entries(fields)) {
    if (value) list.append(make("div", "", make("dt", "", name), make("dd", "", String(value))));
  }
  const left = omitted ? `${NUMBER.format(omitted)} bytes of data are too large to be sent here.` : null;
  const details = make("div", "more", list);
  if (left || data !== null) details.append(make("pre", "", left ?? JSON.stringify(data, null, 2)));
  return details;
}
