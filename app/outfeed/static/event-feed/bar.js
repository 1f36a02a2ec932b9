// The bar: the state of the feed in one small place, visible and announced, with its actions and the filter.

import { NUMBER, clockOf, linkTo, make, setText } from "./elements.js";
import { KINDS, OTHER, SPACES, colourOf } from "./sentences.js";

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
    this.element = make("div", "bar", title, ...news, filter.opener, filter.element, this.#pause);
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

const MAX_CHIPS = 16;

/** The known kinds first, in their order, then the others as they come, then "other". */
function placeOf(kind) {
  if (kind === OTHER) return Infinity;
  return KINDS.includes(kind) ? KINDS.indexOf(kind) : KINDS.length;
}

/**
 * Controls that filter the list: a chip for each kind that has occurred, and text. With no chip pressed, all match.
 * The page may give the chips counts, which makes them the legend of its chart.
 */
export class Filter {
  element = make("div", "filter");
  opener = make("button", "find"); // for compact controls, which hide the filter
  nothing = make("p", "nothing", "Nothing in this list matches. ");
  #input = make("input");
  #count = make("span", "count");
  #group = make("div", "chips");
  #chips = new Map(); // by kind, in the order of the chips
  #pressed = new Set();
  #words = [];
  #onchange;

  constructor(onchange) {
    this.#onchange = onchange;
    this.#group.setAttribute("role", "group");
    this.#group.setAttribute("aria-label", "Show only");
    Object.assign(this.#input, { type: "search", placeholder: "Filter…", maxLength: 200, autocomplete: "off" });
    this.#input.dir = "auto";
    this.#input.spellcheck = false;
    this.#input.setAttribute("aria-label", "Filter the rows by text");
    this.#input.setAttribute("aria-keyshortcuts", "/");
    this.#input.oninput = () => this.#change();
    this.opener.title = "Filter (/ in the list)";
    this.opener.setAttribute("aria-label", "Filter");
    this.opener.setAttribute("aria-expanded", "false");
    this.opener.onclick = () => this.#toggle();
    this.element.setAttribute("role", "search");
    this.element.setAttribute("aria-label", "Rows");
    this.element.append(this.#group, this.#count, this.#input);
    const button = make("button", "", "Clear filter");
    button.onclick = () => this.clear();
    this.nothing.append(button);
    this.nothing.hidden = true;
  }

  get isOn() {
    return this.#pressed.size > 0 || this.#words.length > 0;
  }

  /** The pressed kinds, and the text as it is written. */
  get value() {
    return { kinds: [...this.#pressed], text: this.#input.value };
  }

  set value({ kinds, text }) {
    for (const kind of kinds.filter(Boolean)) this.showChip(kind, colourOf(kind));
    this.#pressed = new Set(kinds.filter((kind) => this.#chips.has(kind)));
    this.#input.value = text;
    this.#change();
  }

  /** Show the chip of each of *kinds*, with its count as text. */
  set kinds(kinds) {
    for (const { kind, colour } of kinds) this.showChip(kind, colour);
    const counts = new Map(kinds.map(({ kind, count }) => [kind, count]));
    for (const [kind, chip] of this.#chips) setText(chip.lastElementChild, counts.get(kind) ?? "");
  }

  /** Whether a row's kind is pressed and its text contains all words. */
  matches({ kind, text }) {
    const isChosen = !this.#pressed.size || this.#pressed.has(this.#chips.has(kind) ? kind : OTHER);
    return isChosen && this.#words.every((word) => text.includes(word));
  }

  /** Show the chip of *kind*: a row of it exists. Beyond MAX_CHIPS, a kind counts as other. */
  showChip(kind, colour) {
    if (this.#chips.has(kind)) return;
    if (kind !== OTHER && this.#chips.size >= MAX_CHIPS) return this.showChip(OTHER, OTHER);
    const chip = this.#chip(kind, colour);
    this.#chips.set(kind, chip);
    const order = [...this.#chips.keys()].sort((one, another) => placeOf(one) - placeOf(another));
    const next = order[order.indexOf(kind) + 1];
    this.#group.insertBefore(chip, this.#chips.get(next) ?? null);
  }

  showCounts(shown, all) {
    setText(this.#count, this.isOn ? `${NUMBER.format(shown)} of ${NUMBER.format(all)}` : "");
    this.nothing.hidden = !this.isOn || shown > 0;
  }

  focus() {
    this.#open(true);
    this.#input.focus();
    this.#input.select();
  }

  #toggle() {
    if (this.element.dataset.open === "true") this.#open(false);
    else this.focus();
  }

  /** With compact controls, show the text field, or hide it and end its filter. */
  #open(isOpen) {
    this.element.dataset.open = isOpen;
    this.opener.setAttribute("aria-expanded", isOpen);
    if (!isOpen && this.isOn) this.clear();
  }

  clear() {
    this.value = { kinds: [], text: "" };
  }

  #chip(kind, colour) {
    const words = kind.replaceAll("_", " ");
    const name = make("span", "", words.charAt(0).toUpperCase() + words.slice(1));
    const number = make("span", "number");
    number.setAttribute("aria-hidden", "true"); // the table of the chart has it too
    const chip = make("button", "", name, number);
    Object.assign(chip.dataset, { kind, colour });
    chip.setAttribute("aria-pressed", "false");
    chip.onclick = () => this.#press(kind);
    return chip;
  }

  #press(kind) {
    if (!this.#pressed.delete(kind)) this.#pressed.add(kind);
    this.#change();
  }

  #change() {
    for (const [kind, chip] of this.#chips) chip.setAttribute("aria-pressed", this.#pressed.has(kind));
    this.#group.dataset.pressed = this.#pressed.size > 0;
    this.#words = this.#input.value.toLowerCase().split(SPACES).filter(Boolean);
    this.#onchange();
  }
}
