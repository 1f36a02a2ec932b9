// When and where rows are shown: with the next frame; and in a box that scrolls, where none moves under who reads.

import { make } from "./elements.js";

// --- the next frame --------------------------------------------------------------------------------------------------

const LATEST_MS = 250; // for a page that is hidden before its frame came
const RETRY_MS = 1000;

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
    try {
      this.#render();
    } catch (error) {
      console.error("event-feed: showing again after", error);
      this.#timer = setTimeout(() => this.request(), RETRY_MS);
    }
  }

  cancel() {
    cancelAnimationFrame(this.#frame);
    clearTimeout(this.#timer);
    this.#frame = 0;
  }
}

// --- the scroller ----------------------------------------------------------------------------------------------------

/** Knows whether somebody reads, and so no row may move; has the keys. */
export class Scroller {
  element = make("div", "scroller");
  isReading = false; // scrolled away from the top, or a row is open or has the keyboard's focus
  #list;
  #filter;
  #on;
  #fallback = make("slot");

  /** Calls `on.look` when `isReading` was learnt anew, `on.top` and `on.pause` when somebody wants that. */
  constructor(list, filter, on) {
    this.#list = list;
    this.#filter = filter;
    this.#on = on;
    this.element.append(list.element, filter.nothing, this.#fallback);
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "region");
    this.element.setAttribute("aria-label", "Events, newest first");
    this.element.onscroll = () => this.look();
    this.element.addEventListener("toggle", () => this.look(), true);
    for (const name of ["focusin", "focusout"]) this.element.addEventListener(name, () => this.look());
    this.element.onkeydown = (event) => this.#press(event);
    filter.element.onkeydown = ({ key }) => {
      if (key === "Escape") this.#escape();
    };
  }

  /** Learn whether someone reads below the top. */
  look() {
    this.isReading = this.element.scrollTop > 4 || this.#list.isOpen || this.#list.isFocused;
    this.#on.look();
  }

  /** Go where nobody reads. */
  toTop() {
    this.#list.close();
    this.element.scrollTop = 0;
    if (this.#list.isFocused) this.focus();
    this.isReading = false;
  }

  /** The first row takes the place of what the page put there. */
  hideFallback() {
    this.#fallback.hidden = true;
  }

  focus() {
    this.element.focus();
  }

  set isBusy(isBusy) {
    this.element.setAttribute("aria-busy", isBusy);
  }

  #press(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === " " && event.target.closest("a, button")) return;
    if (event.key === " ") this.#on.pause();
    else if (event.key in steps) this.#move(steps[event.key]);
    else if (event.key === "Home") this.#on.top();
    else if (event.key === "Escape") this.#escape();
    else if (event.key === "/") this.#filter.focus();
    else return;
    event.preventDefault();
  }

  /** Up from the first row leads to the list as a whole, and what waits comes. */
  #move(step) {
    if (!this.#list.move(step)) this.focus();
  }

  /** Close the row that has the focus; else leave it, for the list as a whole; else let go of the filter. */
  #escape() {
    const open = this.#focused?.closest("details[open]");
    if (open) {
      open.open = false;
      open.firstElementChild.focus(); // not on a link that is hidden now
    } else if (this.#filter.isOn && !this.#list.isFocused) this.#filter.clear();
    else this.focus();
  }

  get #focused() {
    return this.element.getRootNode().activeElement;
  }
}
