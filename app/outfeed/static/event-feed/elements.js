// Elements made and changed by text alone; times, dates and numbers as the reader writes them.

// --- elements --------------------------------------------------------------------------------------------------------

export function make(tag, className = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...children); // strings become text nodes: what an event holds is never read as HTML
  return element;
}

export function linkTo(href, text) {
  const link = make("a", "", text);
  link.href = href;
  return link;
}

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text; // the same text would be laid out and announced anew
}

// --- times, dates and numbers ----------------------------------------------------------------------------------------

const TIME = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const SHORT_TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const DAY_OF_YEAR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
export const NUMBER = new Intl.NumberFormat();
const DATE = /^\d{4}-\d\d-\d\d/; // Date also reads "1" as a day in 2001
const NO_ZONE = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/;

/** The moment that *text* names, or null; what has no zone is UTC, as SQLite's datetime() writes it. */
export function momentOf(text) {
  const moment = new Date(NO_ZONE.test(text) ? `${text}Z` : text);
  return DATE.test(text) && !Number.isNaN(moment.valueOf()) ? moment : null;
}

/** The name of the width that the times of a list need, whose longest has *chars*: see `--times` in outfeed.css. */
export function widthOf(chars) {
  if (chars <= 8) return "time";
  if (chars <= 15) return "date";
  return chars <= 20 ? "year" : "long";
}

/** The time of day in the reader's zone, with the date unless it is today's; to the minute where it is to be short. */
export function clockOf(moment, isShort = false) {
  const time = (isShort ? SHORT_TIME : TIME).format(moment);
  const now = new Date();
  if (moment.toDateString() === now.toDateString()) return time;
  const day = moment.getFullYear() === now.getFullYear() ? DAY : DAY_OF_YEAR;
  return `${day.format(moment)} ${time}`;
}
