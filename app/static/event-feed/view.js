// When and where rows are shown: with the next frame; and in a box that scrolls, where none moves under who reads.

import { make, setText } from "./elements.js";

// --- the next frame --------------------------------------------------------------------------------------------------

const LATEST_MS = 250; // for a page that is hidden before its frame came

/** A hidden page gets no frames and slow timers, so it renders at once. */
export class Frame {
  #render;
  #frame = 0;
  #timer = 0;

  constructor(render) {
    this.#render = render;
  }

  request() {
    if (document.hidden) return this.now();
    if (this.#frame) return;
    this.#frame = requestAnimationFrame(() => this.now());
    this.#timer = setTimeout(() => this.now(), LATEST_MS);
  }

  /** Render in place of what was asked for. */
  now() {
    this.cancel();
    this.#render();
  }

  cancel() {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = 0;
  }
}

// --- the scroller ----------------------------------------------------------------------------------------------------

/** Knows whether somebody reads below the top; has the pill that leads back there, and the keys. */
export class Scroller {
  element;
  isReading = false; // scrolled away from the top, or a row is open: rows must not move
  #list;
  #filter;
  #on;
  #pill = make("button", "pill");
  #fallback = make("slot");
  #box = make("div", "scroller");

  /** Calls `on.look` when `isReading` was learnt anew, `on.pill` and `on.pause` when somebody wants that. */
  constructor(list, filter, on) {
    this.#list = list;
    this.#filter = filter;
    this.#on = on;
    this.#box.append(list.element, filter.nothing, this.#fallback);
    this.#box.tabIndex = 0;
    this.#box.role = "region";
    this.#box.ariaLabel = "Events, newest first";
    this.#box.onscroll = () => this.look();
    this.#box.addEventListener("toggle", () => this.look(), true);
    this.#box.onkeydown = (event) => this.#press(event);
    this.#pill.onclick = () => on.pill();
    filter.element.onkeydown = ({ key }) => {
      if (key === "Escape") this.#escape();
    };
    this.element = make("div", "frame", this.#pill, this.#box);
  }

  /** Learn whether someone reads below the top. */
  look() {
    this.isReading = this.#box.scrollTop > 4 || this.#list.isOpen;
    this.#on.look();
  }

  /** Go where nobody reads. */
  toTop() {
    this.#list.close();
    this.#box.scrollTop = 0;
    this.isReading = false;
  }

  /** The first row takes the place of what the page put there. */
  hideFallback() {
    this.#fallback.hidden = true;
  }

  /** The pill is for who reads. */
  show({ text, isOffered, isBusy }) {
    this.#pill.hidden = !isOffered || !this.isReading;
    setText(this.#pill, text);
    this.#box.ariaBusy = String(isBusy);
  }

  #press(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("a, button")) return;
    if (event.key === " ") this.#on.pause();
    else if (event.key in steps) this.#list.move(steps[event.key]);
    else if (event.key === "Escape") this.#escape();
    else if (event.key === "/") this.#filter.focus();
    else return;
    event.preventDefault();
  }

  /** Close the row that has the focus; else let go of the filter; else leave where the focus is. */
  #escape() {
    const open = this.element.getRootNode().activeElement?.closest("details[open]");
    if (open) open.open = false;
    else if (this.#filter.isOn) this.#filter.clear();
    else this.#box.focus();
  }
}
