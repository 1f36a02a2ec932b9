// The histogram: a text for the bar under the pointer, and a brush that selects a period.
//
// The table below it has the same periods as links, for the keyboard.

import { clockOf } from "../event-feed/elements.js";

const MIN_PIXELS = 5; // a shorter movement is a click on one bar
const NUMBER = new Intl.NumberFormat();

export function watchHistogram(section) {
  const area = section.querySelector(".area");
  if (area) new Brush(area);
}

class Brush {
  #area;
  #slots;
  #tip = Object.assign(document.createElement("span"), { className: "label", hidden: true });
  #brush = Object.assign(document.createElement("span"), { className: "brush", hidden: true });
  #start = null;

  constructor(area) {
    this.#area = area;
    this.#slots = [...area.querySelectorAll(".slot")];
    area.append(this.#tip, this.#brush);
    area.addEventListener("pointermove", (event) => this.#move(event));
    area.addEventListener("pointerleave", () => (this.#tip.hidden = true));
    area.addEventListener("pointerdown", (event) => this.#press(event));
    area.addEventListener("pointerup", (event) => this.#release(event));
    area.addEventListener("pointercancel", () => this.#cancel());
    addEventListener("keydown", ({ key }) => key === "Escape" && this.#cancel());
  }

  #press(event) {
    if (event.button !== 0) return;
    this.#area.setPointerCapture(event.pointerId);
    this.#start = this.#x(event);
  }

  #move(event) {
    const x = this.#x(event);
    const [first, last] = this.#start === null ? [x, x] : [Math.min(x, this.#start), Math.max(x, this.#start)];
    this.#describe(this.#slotAt(first), this.#slotAt(last), x);
    this.#brush.hidden = this.#start === null || last - first < MIN_PIXELS;
    Object.assign(this.#brush.style, { left: `${first}px`, width: `${last - first}px` });
  }

  #release(event) {
    if (this.#start === null) return;
    const x = this.#x(event);
    const [first, last] = [Math.min(x, this.#start), Math.max(x, this.#start)].map((each) => this.#slotAt(each));
    this.#cancel();
    const url = new URL(this.#area.dataset.href, location);
    const period = `since:${short(first.dataset.start)} until:${short(last.dataset.end)}`;
    url.searchParams.set("q", [url.searchParams.get("q"), period].filter(Boolean).join(" "));
    location.assign(url);
  }

  #cancel() {
    this.#start = null;
    this.#brush.hidden = true;
  }

  #describe(first, last, x) {
    const chosen = this.#slots.slice(this.#slots.indexOf(first), this.#slots.indexOf(last) + 1);
    const count = sum(chosen, "count");
    const failed = sum(chosen, "failed");
    const period = `${clockOf(new Date(first.dataset.start))} – ${clockOf(new Date(last.dataset.end))}`;
    const events = `${NUMBER.format(count)} event${count === 1 ? "" : "s"}`;
    this.#tip.textContent = `${period}: ${events}${failed ? `, ${NUMBER.format(failed)} failed` : ""}`;
    this.#tip.hidden = false;
    const space = this.#area.clientWidth - this.#tip.offsetWidth;
    this.#tip.style.left = `${Math.max(0, Math.min(space, x - this.#tip.offsetWidth / 2))}px`;
  }

  #x(event) {
    const { left, width } = this.#area.getBoundingClientRect();
    return Math.max(0, Math.min(width - 1, event.clientX - left));
  }

  #slotAt(x) {
    return this.#slots[Math.floor((x / this.#area.clientWidth) * this.#slots.length)];
  }
}

function sum(slots, name) {
  return slots.reduce((total, { dataset }) => total + Number(dataset[name]), 0);
}

/** Return the time in UTC, as a query writes it. */
function short(moment) {
  return new Date(moment).toISOString().replace(".000Z", "Z");
}
