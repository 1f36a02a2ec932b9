// When and where rows are rendered: with the next frame, in a scrolling box whose rows don't move while they are read.

import { make } from "./elements.js";

// --- the next frame --------------------------------------------------------------------------------------------------

const LATEST_MS = 250; // for a page that becomes hidden before its frame
const RETRY_MS = 1000;

/** Renders with the next frame. A hidden page gets no frames and slow timers, so it renders at once. */
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

  /** Render now instead of with the requested frame. */
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

/** Knows whether the list is being read, in which case no row may move. Handles the keys. */
export class Scroller {
  element = make("div", "scroller");
  isReading = false; // scrolled away from the top, or a row is open or has the keyboard's focus
  #list;
  #filter;
  #on;
  #fallback = make("slot");

  /**
   * Calls `on.reading` after each update of `isReading`, `on.end` near the end of the rows, `on.top` and `on.pause` when
   * the user asks for it. *past* stands below the rows.
   */
  constructor(list, filter, past, on) {
    this.#list = list;
    this.#filter = filter;
    this.#on = on;
    this.element.append(list.element, filter.nothing, past, this.#fallback);
    this.element.tabIndex = 0;
    this.element.setAttribute("role", "region");
    this.element.setAttribute("aria-label", "Events, newest first");
    this.element.onscroll = () => this.#scroll();
    this.element.addEventListener("toggle", () => this.updateReading(), true);
    for (const name of ["focusin", "focusout"]) this.element.addEventListener(name, () => this.updateReading());
    this.element.onkeydown = (event) => this.#press(event);
    filter.element.onkeydown = ({ key }) => {
      if (key === "Escape") this.#escape();
    };
  }

  /** Whether the end of the rows is near, and the reader has scrolled towards it. */
  get isAtEnd() {
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    return scrollTop > 0 && scrollHeight - scrollTop - clientHeight < clientHeight;
  }

  /** Whether all rows are visible, with space below them. */
  get hasSpace() {
    return this.element.scrollHeight <= this.element.clientHeight;
  }

  #scroll() {
    this.updateReading();
    if (this.isAtEnd) this.#on.end();
  }

  /** Update `isReading`. */
  updateReading() {
    this.isReading = this.element.scrollTop > 4 || this.#list.isOpen || this.#list.isFocused;
    this.#on.reading();
  }

  /** Scroll to the top and leave the rows. */
  toTop() {
    this.#list.close();
    this.element.scrollTop = 0;
    if (this.#list.isFocused) this.focus();
    this.isReading = false;
  }

  /** Hide the page's own children. */
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
    const steps = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 };
    if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input")) return;
    if (event.key === " " && event.target.closest("a, button")) return;
    if (event.key === " ") this.#on.pause();
    else if (event.key in steps) this.move(steps[event.key]);
    else if (event.key === "Home") this.#on.top();
    else if (event.key === "Escape") this.#escape();
    else if (event.key === "/") this.#filter.focus();
    else return;
    event.preventDefault();
  }

  /** Move the focus by *step* rows. Up from the first row, focus the list, which then shows waiting events. */
  move(step) {
    if (!this.#list.move(step)) this.focus();
  }

  /** Close the focused row, else clear the filter, else focus the list. */
  #escape() {
    const open = this.#focused?.closest("details[open]");
    if (open) {
      open.open = false;
      open.firstElementChild.focus(); // the focus must not stay on a link that is hidden now
    } else if (this.#filter.isOn && !this.#list.isFocused) this.#filter.clear();
    else this.focus();
  }

  get #focused() {
    return this.element.getRootNode().activeElement;
  }
}
