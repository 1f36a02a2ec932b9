// Selects the received events to show, and writes the notices about missing events.

import { NUMBER, linkTo, make } from "./elements.js";

// --- news ------------------------------------------------------------------------------------------------------------

// Audit events: actions of operators on permissions and history. The log has them; the feed shows them on request.
const AUDIT = /^(access\..*|system\.(pruned|restored))$/;

/**
 * Selects events that were not shown before, without audit events. An event that is older than the last connection is
 * replayed: it needs no notification.
 */
export class News {
  #isInterrupted = true; // the connection was lost since the last verdict
  #replayedUntil = 0; // events up to this seq are older than the connection
  #shownBefore = { ids: new Set(), until: 0 };
  #repeatedUntil = 0;

  /** The connection is lost. */
  interrupt() {
    this.#isInterrupted = true;
  }

  begin({ verdict, head }) {
    if (verdict === "reset") this.#repeatedUntil = 0;
    if (this.#isInterrupted || verdict === "reset") this.#replayedUntil = head;
    this.#isInterrupted = false;
  }

  /** Events up to the seq *until* come again. */
  repeat(until) {
    this.#repeatedUntil = Math.max(this.#repeatedUntil, until);
  }

  /** Events of *ids* up to the seq *until* come again. */
  skip(ids, until) {
    this.#shownBefore = { ids: new Set(ids), until };
  }

  /** Return {event, seq, replayed, isAgain} for each event to show. isAgain: it was shown before. */
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

/** The events of {from, to} have been pruned. Return the row, and the label of the button that leads to it. */
export function gapNotice({ from, to }, logHref) {
  const range = rangeOf(from, to);
  const text = "They were pruned while you were away.";
  const row = noticeRow(`Events ${range} are missing here.`, text, logLink(logHref));
  return { label: `Gap ${range}`, row };
}

/** The feed has another history. Return a row and a label as well. */
export function resetNotice(logHref) {
  const text = "The rows below show its current content.";
  return { label: "Database restored", row: noticeRow("The database was restored or replaced.", text, logLink(logHref)) };
}

/** The events between two visits are not replayed. Return the row about them. */
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
