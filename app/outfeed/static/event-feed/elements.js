// Creates elements and changes their text. Formats times, dates and numbers in the reader's locale.

// --- elements --------------------------------------------------------------------------------------------------------

export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children); // strings become text nodes: the content of an event is never parsed as HTML
  return element;
}

export function linkTo(href, text) {
  const link = make("a", "", text);
  link.href = href;
  return link;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // the same text would be laid out and announced again
}

// --- times, dates and numbers ----------------------------------------------------------------------------------------

export const IS_UTC = document.documentElement.dataset.zone === "utc"; // a reader's choice, of Outfeed's own pages
const TIME = formatOf({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const SHORT_TIME = formatOf({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = formatOf({ day: "numeric", month: "short" });
const DAY_OF_YEAR = formatOf({ day: "numeric", month: "short", year: "numeric" });
export const NUMBER = new Intl.NumberFormat();
const DATE = /^\d{4}-\d\d-\d\d/; // Date also reads "1" as a day in 2001
const NO_ZONE = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/;

export function formatOf(options) {
  return new Intl.DateTimeFormat(undefined, { ...options, timeZone: IS_UTC ? "UTC" : undefined });
}

/** Return the name of the zone in which times are shown. */
export function zoneName() {
  return TIME.resolvedOptions().timeZone;
}

/** Return the time in *text*, or null. A time without a zone is UTC, as SQLite's datetime() writes it. */
export function momentOf(text) {
  const moment = new Date(NO_ZONE.test(text) ? `${text}Z` : text);
  return DATE.test(text) && !Number.isNaN(moment.valueOf()) ? moment : null;
}

/** Return the name of the width for times of up to *chars* characters: see `--times` in outfeed.css. */
export function widthOf(chars) {
  if (chars <= 8) return "time";
  if (chars <= 15) return "date";
  return chars <= 20 ? "year" : "long";
}

/** Return the time of day in the reader's zone or in UTC, with the date unless it is today; without seconds if *isShort*. */
export function clockOf(moment, isShort = false) {
  const time = (isShort ? SHORT_TIME : TIME).format(moment);
  const now = new Date();
  if (dateOf(moment) === dateOf(now)) return time;
  const day = yearOf(moment) === yearOf(now) ? DAY : DAY_OF_YEAR;
  return `${day.format(moment)} ${time}`;
}

function dateOf(moment) {
  return IS_UTC ? moment.toISOString().slice(0, 10) : moment.toDateString();
}

function yearOf(moment) {
  return IS_UTC ? moment.getUTCFullYear() : moment.getFullYear();
}
