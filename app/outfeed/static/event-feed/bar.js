// The bar: the state of the feed in one small place, visible and announced, with its actions and the filter.

import { NUMBER, clockOf, linkTo, make, setText } from "./elements.js";
import { KINDS, SPACES } from "./sentences.js";

// --- the bar ---------------------------------------------------------------------------------------------------------

const ANNOUNCE_AFTER_MS = 1_000;

export class Bar {
  element;
  status = make("div", "unseen");
  #label = make("span", "label");
  #login = linkTo("", "Sign in");
  #chip = make("span", "chip", make("span", "dot"), this.#label, this.#login);
  #retry = make("button", "retry", "Try now");
  #pill = make("button", "pill");
  #gap = make("button", "gap");
  #pause = make("button", "pause");
  #announceTimer = 0;

  /** Contains *title* and *filter*. Calls `on.retry`, `on.pill`, `on.gap` and `on.pause` when the user asks for it. */
  constructor(title, filter, on) {
    const news = [this.#chip, this.#retry, this.#pill, this.#gap];
    this.element = make("div", "bar", title, ...news, filter.element, this.#pause);
    this.status.setAttribute("role", "status");
    this.#retry.onclick = () => on.retry();
    this.#pill.title = "Show them (Home in the list)";
    this.#pill.onclick = () => on.pill();
    this.#gap.title = "Show where";
    this.#gap.onclick = () => on.gap();
    this.#pause.title = "Pause or resume (space in the list)";
    this.#pause.onclick = () => on.pause();
  }

  /** The state as text. */
  get text() {
    return this.#label.textContent;
  }

  /** Show the state. *retryAt* is a time in ms; *waiting* a number as text, empty for none. */
  show({ state, behind, waiting, outage, refusal, retryAt, loginHref, news, isPolling, isPaused, hasGap }) {
    const secs = Math.ceil((retryAt - Date.now()) / 1000);
    setText(this.#label, describe(state, { behind, waiting, outage, refusal, secs }));
    this.#retry.hidden = !["reconnecting", "stale"].includes(state) || secs <= 1;
    this.#chip.title = isPolling ? "WebSockets are blocked; using HTTP polling" : "";
    this.element.dataset.state = state;
    this.#login.hidden = state !== "signed-out";
    this.#login.href = loginHref;
    setText(this.#pill, news);
    this.#pill.hidden = !news;
    this.element.dataset.crowded = !this.#retry.hidden || !this.#pill.hidden;
    setText(this.#pause, isPaused ? "Resume" : "Pause");
    this.#pause.dataset.paused = isPaused;
    this.#gap.hidden = !hasGap;
  }

  /** Show the button that leads to the missing events. */
  mark(text) {
    this.#gap.textContent = text;
    this.announce(text);
  }

  /** Announce *text* to screen readers. Of quickly changing states, only the last is announced. */
  announce(text) {
    this.cancelAnnouncement();
    this.#announceTimer = setTimeout(() => setText(this.status, text), ANNOUNCE_AFTER_MS);
  }

  /** Cancel a pending announcement. */
  cancelAnnouncement() {
    clearTimeout(this.#announceTimer);
  }
}

function describe(state, { behind, waiting, outage, refusal, secs }) {
  const texts = {
    connecting: "Connecting",
    live: "Live",
    polling: "Live (polling)",
    "catching-up": `Catching up · ${NUMBER.format(behind)} behind`,
    paused: waiting ? `Paused · ${waiting} waiting` : "Paused",
    reconnecting: secs > 1 ? `Reconnecting in ${secs} s` : "Reconnecting",
    stale: `Stale: ${outage?.reason}${outage?.since ? ` · last data ${clockOf(outage.since)}` : ""}`,
    "signed-out": "Signed out",
    refused: refusal ?? "Refused",
  };
  return texts[state];
}

// --- the filter ------------------------------------------------------------------------------------------------------

/** Controls that filter the list: a chip for each kind that has occurred, and text. With no chip pressed, all match. */
export class Filter {
  element = make("div", "filter");
  nothing = make("p", "nothing", "Nothing in this list matches. ");
  #input = make("input");
  #count = make("span", "count");
  #chips = new Map(KINDS.map((kind) => [kind, this.#chip(kind)]));
  #pressed = new Set();
  #words = [];
  #onchange;

  constructor(onchange) {
    this.#onchange = onchange;
    const chips = make("div", "chips", ...this.#chips.values());
    chips.setAttribute("role", "group");
    chips.setAttribute("aria-label", "Show only");
    Object.assign(this.#input, { type: "search", placeholder: "Filter…", maxLength: 200, autocomplete: "off" });
    this.#input.dir = "auto";
    this.#input.spellcheck = false;
    this.#input.setAttribute("aria-label", "Filter the rows by text");
    this.#input.setAttribute("aria-keyshortcuts", "/");
    this.#input.oninput = () => this.#change();
    this.element.setAttribute("role", "search");
    this.element.setAttribute("aria-label", "Rows");
    this.element.append(this.#count, chips, this.#input);
    const button = make("button", "", "Clear filter");
    button.onclick = () => this.clear();
    this.nothing.append(button);
    this.nothing.hidden = true;
  }

  get isOn() {
    return this.#pressed.size > 0 || this.#words.length > 0;
  }

  /** Whether a row's kind is pressed and its text contains all words. */
  matches({ kind, text }) {
    return (!this.#pressed.size || this.#pressed.has(kind)) && this.#words.every((word) => text.includes(word));
  }

  /** Show the chip of *kind*: a row of it exists. */
  showChip(kind) {
    this.#chips.get(kind)?.removeAttribute("hidden");
  }

  showCounts(shown, all) {
    setText(this.#count, this.isOn ? `${NUMBER.format(shown)} of ${NUMBER.format(all)}` : "");
    this.nothing.hidden = !this.isOn || shown > 0;
  }

  focus() {
    this.#input.focus();
    this.#input.select();
  }

  clear() {
    for (const chip of this.#chips.values()) chip.setAttribute("aria-pressed", "false");
    this.#pressed.clear();
    this.#input.value = "";
    this.#change();
  }

  #chip(kind) {
    const chip = make("button", "", kind.charAt(0).toUpperCase() + kind.slice(1));
    chip.dataset.kind = kind;
    chip.setAttribute("aria-pressed", "false");
    chip.hidden = true;
    chip.onclick = () => this.#press(chip, kind);
    return chip;
  }

  #press(chip, kind) {
    if (!this.#pressed.delete(kind)) this.#pressed.add(kind);
    chip.setAttribute("aria-pressed", this.#pressed.has(kind));
    this.#change();
  }

  #change() {
    this.#words = this.#input.value.toLowerCase().split(SPACES).filter(Boolean);
    this.#onchange();
  }
}
