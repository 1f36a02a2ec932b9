// What changes in its place: the rows of a panel, and the form that posts a task.

import { clockOf, setText } from "../event-feed/elements.js";
import { NUMBER } from "./rows.js";

// --- a panel ---------------------------------------------------------------------------------------------------------

/** Its rows are kept by key, and only what has changed is touched. New ones come from the page's <template>. */
export class Panel {
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

function setTime(time, at) {
  if (time.dateTime !== at) time.dateTime = time.title = at;
  setText(time, clockOf(new Date(at))); // at midnight it gets its date
}

/** A name or a description leads to its story. */
function setLink(link, key, text) {
  if (link.title !== text) link.title = text;
  if (!link.href) link.href = `/swarm/${link.dataset.kind}/${encodeURIComponent(key)}`;
}

// --- the form --------------------------------------------------------------------------------------------------------

const ANSWER_MS = 10_000;

export function postInPlace(form) {
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
    if (answer.status === 401) return "You are signed out. Sign in, then post it again.";
    return answer.ok ? "" : (await answer.json()).detail;
  } catch {
    return "No answer. It may have been posted all the same: look before you post it again.";
  }
}
