// Adjacent rows of one statement, or of one task within a second, are one row that opens: `Group` in log/live.py has the
// same rules.

import { NUMBER, make, momentOf } from "./elements.js";
import { rowOf } from "./row.js";

const MIN_BULK = 5;
const TASK_MS = 1000;
const LEVELS = ["info", "warning", "error"];
const STEP = /(?:^|[._])(?:tool[._](?:called|call|result)|user_prompt)$/; // the end of the type

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
    this.#fold(childrenFrom(this.#list.firstElementChild, count + MIN_BULK));
  }

  /** Fold the children from *first* on, with those before it that belong to the same run. */
  foldFrom(first) {
    let begin = first;
    for (let steps = 0; steps < MIN_BULK && begin.previousElementSibling; steps += 1) begin = begin.previousElementSibling;
    this.#fold(childrenFrom(begin, Infinity));
  }

  /** Fold *children*, which stand newest first: a run begins with its oldest row. */
  #fold(children) {
    let run = null;
    for (const child of children.reverse()) {
      if (this.#eventOf(rowsIn(child)[0]) === undefined) run = this.#close(run); // a notice
      else if (!run?.add(child)) {
        this.#close(run);
        run = new Run(child, this.#eventOf);
      }
    }
    this.#close(run);
  }

  /** Make the children of *run* one group if they are enough. */
  #close(run) {
    if (!run?.isFolded || run.children.length < 2) return null;
    const whole = run.children.find(isGroup) ?? groupOf(this.#eventOf(rowsIn(run.children[0])[0]));
    if (!whole.isConnected) run.children[0].before(whole);
    const place = run.children.indexOf(whole);
    const list = whole.querySelector("ol");
    list.prepend(...run.children.slice(0, Math.max(0, place)).flatMap(rowsIn));
    list.append(...run.children.slice(place + 1).flatMap(rowsIn));
    for (const child of run.children) if (isGroup(child) && child !== whole) child.remove();
    this.update(whole);
    return null;
  }

  /** Count the rows of *group* that are shown; a group without rows goes. */
  update(group) {
    const rows = rowsIn(group);
    if (!rows.length) return group.remove();
    const shown = rows.filter((row) => !row.hidden);
    const lead = this.#leadOf(shown.length ? shown : rows);
    this.#paint(group, this.#eventOf(lead));
    group.querySelector("time").replaceWith(lead.querySelector("time").cloneNode(true));
    this.#showCount(group, shown.length);
    group.hidden = !shown.length;
  }

  /** The row that stands for all: of the highest level, a step before the others, and then the newest. */
  #leadOf(rows) {
    const isStep = (row) => row.dataset.kind === "task" || STEP.test(String(this.#eventOf(row).event_type ?? ""));
    const rank = (row) => 2 * LEVELS.indexOf(row.dataset.level) + isStep(row);
    return rows.reduce((best, row) => (rank(row) > rank(best) ? row : best));
  }

  #showCount(group, count) {
    const sentence = group.querySelector(".sentence");
    const events = rowsIn(group).map((row) => statementOf(this.#eventOf(row)));
    if (events.every((each) => each === events[0])) {
      sentence.prepend(make("span", "many", `${NUMBER.format(count)} ${count === 1 ? "event" : "events"}`), " ");
    } else if (count > 1) {
      const more = make("span", "many", `+${NUMBER.format(count - 1)}`);
      more.title = `${NUMBER.format(count)} events of this task within a second`;
      sentence.append(" ", more);
    }
  }

  updateAll() {
    for (const group of this.#list.querySelectorAll(":scope > .group")) this.update(group);
  }
}

/** Children of the list that may be one row, the newest first. */
class Run {
  children;
  #oldest;
  #isBulk;
  #isOfTask;
  #eventOf;
  #count;

  constructor(child, eventOf) {
    const events = rowsIn(child).map(eventOf);
    this.children = [child];
    this.#eventOf = eventOf;
    this.#count = events.length;
    this.#oldest = events.at(-1);
    this.#isBulk = events.every((event) => this.#isOfStatement(event));
    this.#isOfTask = events.every((event) => this.#isOfSameTask(event));
  }

  get isFolded() {
    return this.#count >= (this.#isOfTask || !this.#isBulk ? 2 : MIN_BULK);
  }

  /** Add the next newer child if it belongs to the run; return whether it does. */
  add(child) {
    const events = rowsIn(child).map(this.#eventOf);
    const isBulk = this.#isBulk && events.every((event) => this.#isOfStatement(event));
    const isOfTask = this.#isOfTask && events.every((event) => this.#isOfSameTask(event));
    if (!isBulk && !isOfTask) return false;
    this.#isBulk = isBulk;
    this.#isOfTask = isOfTask;
    this.#count += events.length;
    this.children.unshift(child);
    return true;
  }

  #isOfStatement(event) {
    return statementOf(event) === statementOf(this.#oldest);
  }

  #isOfSameTask({ task_id: task, timestamp }) {
    if (!task || task !== this.#oldest.task_id) return false;
    const moments = [timestamp, this.#oldest.timestamp].map((text) => momentOf(String(text ?? "")));
    return moments.every(Boolean) && Math.abs(moments[0] - moments[1]) <= TASK_MS;
  }
}

function statementOf(event) {
  return JSON.stringify([event.event_type, event.source, event.timestamp]);
}

function childrenFrom(first, count) {
  const found = [];
  for (let child = first; child && found.length < count; child = child.nextElementSibling) found.push(child);
  return found;
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
