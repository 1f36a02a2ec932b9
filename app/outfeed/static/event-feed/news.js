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
  #repeatedUntil = 0;

  /** There is no way in any more. */
  interrupt() {
    this.#isInterrupted = true;
  }

  begin({ verdict, head }) {
    if (verdict === "reset") this.#repeatedUntil = 0;
    if (this.#isInterrupted || verdict === "reset") this.#replayedUntil = head;
    this.#isInterrupted = false;
  }

  /** What comes up to the seq *until* has come before. */
  repeat(until) {
    this.#repeatedUntil = Math.max(this.#repeatedUntil, until);
  }

  /** So have those of *ids* that come up to the seq *until*. */
  skip(ids, until) {
    this.#shownBefore = { ids: new Set(ids), until };
  }

  /** Return {event, seq, replayed, isAgain} for each that is to be shown; isAgain: it has been before. */
  pick(events, isAudited) {
    const { ids, until } = this.#shownBefore;
    const picked = [];
    for (const event of events) {
      if (AUDIT.test(event.event_type) && !isAudited) continue;
      const isAgain = event.seq <= this.#repeatedUntil || (event.seq <= until && ids.has(event.id));
      picked.push({ event, seq: event.seq, replayed: event.seq <= this.#replayedUntil, isAgain });
    }
    return picked;
  }
}

// --- notices ---------------------------------------------------------------------------------------------------------

/** The events of {from, to} are not in the feed any more. Return the row, and the label of what leads to it. */
export function gapNotice({ from, to }, logHref) {
  const range = rangeOf(from, to);
  const text = "They were pruned while you were away.";
  const row = noticeRow(`Events ${range} are missing here.`, text, logLink(logHref));
  return { label: `Gap ${range}`, row };
}

/** The feed has another history now. Return the same two. */
export function resetNotice(logHref) {
  const text = "The rows below show its current content.";
  return { label: "Database restored", row: noticeRow("The database was restored or replaced.", text, logLink(logHref)) };
}

/** What happened between two visits is not replayed. */
export function awayNotice(from, to, logHref) {
  const title = `You missed events ${rangeOf(from, to)} while this page was closed.`;
  return noticeRow(title, "", logLink(logHref));
}

export function refusalNotice(message) {
  return noticeRow("The server refused the request.", String(message));
}

function noticeRow(title, text, link) {
  const row = make("li", "notice", make("b", "", title), make("span", "", ` ${text} `));
  if (link) row.append(link);
  row.tabIndex = -1;
  return row;
}

function logLink(href) {
  return linkTo(href, "Open the log");
}

function rangeOf(from, to) {
  return from === to ? NUMBER.format(from) : `${NUMBER.format(from)}–${NUMBER.format(to)}`;
}
