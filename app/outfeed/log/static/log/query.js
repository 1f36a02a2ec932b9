// The query bar: pills that Backspace turns back into text, and completion of fields and values.
//
// The server alone reads the query language. This script only splits off the word at the caret.

import { ROOT } from "../event-feed/root.js";

const FIELDS = [
  ["type:", "Event type, or all of task.*"],
  ["source:", "Component that wrote the event"],
  ["task:", "Task id"],
  ["agent:", "Agent id"],
  ["data.", "Value in the data, like data.status:500"],
  ["since:", "15m, 6h, 7d or a date"],
  ["until:", "15m, 6h, 7d or a date"],
];
const SPANS = ["5m", "15m", "1h", "6h", "24h", "7d", "30d"];
const NAMED = /^(-?)(type|source|task|agent|since|until):"?([^"]*)$/;
const WAIT_MS = 120;
const TIMEOUT_MS = 3_000;

export class QueryBar {
  #form;
  #input;
  #list = document.createElement("ul");
  #active = -1;
  #timer = 0;
  #asked = "";

  constructor(form) {
    this.#form = form;
    this.#input = form.querySelector("input[type=search]");
    Object.assign(this.#list, { id: "completion", className: "completion", hidden: true });
    this.#list.setAttribute("role", "listbox");
    this.#list.setAttribute("aria-label", "Suggestions");
    this.#input.after(this.#list);
    for (const [name, value] of [["role", "combobox"], ["aria-controls", "completion"], ["aria-autocomplete", "list"]]) {
      this.#input.setAttribute(name, value);
    }
    this.#close();
    this.#input.addEventListener("input", () => this.#suggest());
    this.#input.addEventListener("keydown", (event) => this.#press(event));
    this.#input.addEventListener("blur", () => this.#close());
    this.#list.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the input keeps the focus
      const option = event.target.closest("li");
      if (option) this.#accept(option);
    });
    form.querySelector(".terms").addEventListener("click", ({ target, currentTarget }) => {
      if (target === currentTarget) this.#input.focus();
    });
    form.addEventListener("formdata", ({ formData }) => {
      const query = formData.getAll("q").map((text) => text.trim()).filter(Boolean).join(" ");
      formData.delete("q");
      if (query) formData.set("q", query);
    });
  }

  #press(event) {
    const options = this.#list.children;
    const isOpen = !this.#list.hidden;
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (!isOpen) return this.#suggest();
      const last = options.length - 1;
      if (event.key === "ArrowDown") this.#mark(this.#active < last ? this.#active + 1 : 0);
      else this.#mark(this.#active > 0 ? this.#active - 1 : last);
    } else if (isOpen && (event.key === "Enter" || event.key === "Tab") && this.#active >= 0) {
      event.preventDefault();
      this.#accept(options[this.#active]);
    } else if (isOpen && event.key === "Escape") {
      event.preventDefault();
      this.#close();
    } else if (event.key === "Backspace" && !this.#input.value) {
      this.#editLastPill(event);
    }
  }

  /** Turn the last pill into text again. */
  #editLastPill(event) {
    const pill = [...this.#form.querySelectorAll(".pill-term")].at(-1);
    if (!pill) return;
    event.preventDefault();
    const rest = new URL(pill.href).searchParams.get("q") ?? "";
    this.#form.querySelector("input[type=hidden][name=q]").value = rest;
    this.#input.value = pill.dataset.term;
    pill.remove();
    this.#suggest();
  }

  // --- suggestions -----------------------------------------------------------------------------------------------

  #suggest() {
    clearTimeout(this.#timer);
    const word = this.#word();
    const named = NAMED.exec(word);
    if (!named) return this.#show(this.#fieldsLike(word));
    const [, minus, field, prefix] = named;
    if (field === "since" || field === "until") {
      return this.#show(SPANS.filter((span) => span.startsWith(prefix)).map((span) => [`${minus}${field}:${span}`, ""]));
    }
    this.#timer = setTimeout(() => this.#ask(word, minus, field, prefix), WAIT_MS);
  }

  #fieldsLike(word) {
    const minus = word.startsWith("-") ? "-" : "";
    const start = word.slice(minus.length);
    const fields = minus ? FIELDS.slice(0, 5) : FIELDS;
    return fields.filter(([name]) => name.startsWith(start) && name !== start).map(([name, about]) => [minus + name, about]);
  }

  async #ask(word, minus, field, prefix) {
    this.#asked = word;
    try {
      const query = new URLSearchParams({ field, prefix });
      const answer = await fetch(`${ROOT}api/events/values?${query}`, { signal: AbortSignal.timeout(TIMEOUT_MS) });
      if (!answer.ok || this.#asked !== word || this.#word() !== word) return;
      const { values } = await answer.json();
      this.#show(values.map((value) => [`${minus}${field}:${quoted(value)}`, ""]));
    } catch {
      this.#close(); // without suggestions the query can be typed in full
    }
  }

  #show(suggestions) {
    this.#list.replaceChildren(...suggestions.map(([text, about], place) => optionOf(text, about, place)));
    this.#list.hidden = !suggestions.length;
    this.#input.setAttribute("aria-expanded", String(!this.#list.hidden));
    this.#mark(-1);
  }

  #close() {
    clearTimeout(this.#timer);
    this.#show([]);
  }

  #mark(place) {
    this.#active = place;
    for (const [index, option] of [...this.#list.children].entries()) {
      option.setAttribute("aria-selected", String(index === place));
      if (index === place) option.scrollIntoView({ block: "nearest" });
    }
    if (place < 0) this.#input.removeAttribute("aria-activedescendant");
    else this.#input.setAttribute("aria-activedescendant", `suggestion-${place}`);
  }

  #accept(option) {
    const { value, selectionStart } = this.#input;
    const { text } = option.dataset;
    const isField = text.endsWith(":") || text.endsWith(".");
    const start = selectionStart - this.#word().length;
    this.#input.setRangeText(isField ? text : `${text} `, start, selectionStart, "end");
    this.#close();
    if (isField && value !== this.#input.value) this.#suggest();
  }

  /** Return the word before the caret, with an open quote's text. */
  #word() {
    const before = this.#input.value.slice(0, this.#input.selectionStart);
    return /(?:[^\s"]|"[^"]*(?:"|$))*$/.exec(before)[0];
  }
}

function optionOf(text, about, place) {
  const option = Object.assign(document.createElement("li"), { id: `suggestion-${place}` });
  option.setAttribute("role", "option");
  option.dataset.text = text;
  const name = Object.assign(document.createElement("b"), { textContent: text });
  const note = Object.assign(document.createElement("span"), { textContent: about });
  option.append(name, ...(about ? [note] : []));
  return option;
}

function quoted(value) {
  return /^[^\s"]+$/.test(value) ? value : `"${value.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
}
