// Adjacent rows that one statement wrote are one row that opens: `Group` in log/live.py has the same rule.

import { NUMBER, make } from "./elements.js";
import { rowOf } from "./row.js";

const MIN_GROUP = 5;

/** Folds rows of a list; *eventOf* returns the event of a row, and *paint* gives a group the look of an event. */
export class Groups {
  #list;
  #eventOf;
  #paint;

  constructor(list, eventOf, paint) {
    this.#list = list;
    this.#eventOf = eventOf;
    this.#paint = paint;
  }

  /** Fold the first *count* children, with those after them that belong to the same run. */
  foldTop(count) {
    this.#foldFrom(this.#list.firstElementChild, count);
  }

  /** Fold the children from *first* on. */
  foldFrom(first) {
    this.#foldFrom(first, Infinity);
  }

  #foldFrom(first, count) {
    let child = first;
    for (let seen = 0; child && seen < count; ) {
      const run = this.#runFrom(child);
      seen += run.length;
      child = run.at(-1).nextElementSibling;
      this.#fold(run);
    }
  }

  #runFrom(first) {
    const run = [first];
    const key = this.#keyOf(first);
    let next = first.nextElementSibling;
    while (key !== null && next && this.#keyOf(next) === key) {
      run.push(next);
      next = next.nextElementSibling;
    }
    return run;
  }

  /** Null for a notice. */
  #keyOf(child) {
    const event = this.#eventOf(rowsIn(child)[0]);
    return event ? JSON.stringify([event.event_type, event.source, event.timestamp]) : null;
  }

  #fold(run) {
    const group = run.find(isGroup);
    if (group ? run.length === 1 : run.length < MIN_GROUP) return;
    const whole = group ?? groupOf(this.#eventOf(run[0]));
    if (!group) run[0].before(whole);
    const place = run.indexOf(group);
    const list = whole.querySelector("ol");
    list.prepend(...run.slice(0, Math.max(0, place)).flatMap(rowsIn));
    list.append(...run.slice(place + 1).flatMap(rowsIn));
    for (const child of run) if (isGroup(child) && child !== whole) child.remove();
    this.update(whole);
  }

  /** Count the rows of *group* that are shown; a group without rows goes. */
  update(group) {
    const rows = rowsIn(group);
    if (!rows.length) return group.remove();
    const shown = rows.filter((row) => !row.hidden);
    const [first] = shown.length ? shown : rows;
    this.#paint(group, this.#eventOf(first));
    const count = make("span", "many", `${NUMBER.format(shown.length)} ${shown.length === 1 ? "event" : "events"}`);
    group.querySelector(".sentence").prepend(count, " ");
    group.hidden = !shown.length;
  }

  updateAll() {
    for (const group of this.#list.querySelectorAll(":scope > .group")) this.update(group);
  }
}

export function isGroup(child) {
  return child.classList.contains("group");
}

/** The rows that *child* of the list stands for. */
export function rowsIn(child) {
  return isGroup(child) ? Array.from(child.querySelector("ol").children) : [child];
}

/** A group without rows, with the time of *event*. */
function groupOf(event) {
  const group = rowOf(event);
  group.classList.add("group");
  group.removeAttribute("data-seq");
  group.firstElementChild.append(make("ol", "members"));
  return group;
}
