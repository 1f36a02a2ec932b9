// What of the events that come is to be shown, and what is said where some are missing.

import { NUMBER, linkTo, make } from "./elements.js";

// --- news ------------------------------------------------------------------------------------------------------------

// What operators do with rights and history. The log has it; here it shows where it is asked for.
const AUDIT = /^(access\..*|system\.(pruned|restored))$/;

/**
 * Picks what was not shown before, and what is not for operators alone. What had happened before the feed (again) went
 * live is replayed: nothing to notify anybody of.
 */
export class News {
  #isInterrupted = true; // between two verdicts there was no way in
  #replayedUntil = 0; // events up to here had happened before the feed went live
  #shownBefore = { ids: new Set(), until: 0 };

  /** There is no way in any more. */
  interrupt() {
    this.#isInterrupted = true;
  }

  begin({ verdict, head }) {
    if (this.#isInterrupted || verdict === "reset") this.#replayedUntil = head;
    this.#isInterrupted = false;
  }

  /** Those of *ids* that come once more, up to the seq *until*, are not shown again. */
  skip(ids, until) {
    this.#shownBefore = { ids: new Set(ids), until };
  }

  /** Return {event, seq, replayed} for each that is to be shown. */
  pick(events, isAudited) {
    const { ids, until } = this.#shownBefore;
    const picked = [];
    for (const event of events) {
      if (event.seq <= until && ids.has(event.id)) continue;
      if (AUDIT.test(event.event_type) && !isAudited) continue;
      picked.push({ event, seq: event.seq, replayed: event.seq <= this.#replayedUntil });
    }
    return picked;
  }
}

// --- notices ---------------------------------------------------------------------------------------------------------

/** The events of {from, to} are not in the feed any more. Return the row, and the label of what leads to it. */
export function gapNotice({ from, to }, logHref) {
  const range = rangeOf(from, to);
  const text = "They were pruned before this page could show them. The log is kept longer:";
  const row = noticeRow(`Gap: events ${range} are not in the feed any more.`, text, logLink(logHref));
  return { label: `Gap ${range}`, row };
}

/** The feed has another history now. Return the same two. */
export function resetNotice(logHref) {
  const text = "The database was replaced or restored; rows below this line are from before it. What it holds now:";
  return { label: "Feed began anew", row: noticeRow("Reset: the feed began anew.", text, logLink(logHref)) };
}

/** What happened between two visits is not replayed. */
export function awayNotice(from, to, logHref) {
  const title = `Events ${rangeOf(from, to)} went by while this page was closed.`;
  return noticeRow(title, "They are in the log:", logLink(logHref));
}

export function refusalNotice(message) {
  return noticeRow("The server refused this.", String(message));
}

function noticeRow(title, text, link) {
  const row = make("li", "notice", make("b", "", title), make("span", "", ` ${text} `));
  if (link) row.append(link);
  row.tabIndex = -1;
  return row;
}

function logLink(href) {
  return linkTo(href, "show all events");
}

function rangeOf(from, to) {
  return from === to ? NUMBER.format(from) : `${NUMBER.format(from)} to ${NUMBER.format(to)}`;
}
