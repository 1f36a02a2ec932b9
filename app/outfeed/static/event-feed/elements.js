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

const TIME = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
});
const SHORT_TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
const DAY = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const DAY_OF_YEAR = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric" });
export const NUMBER = new Intl.NumberFormat();
const DATE = /^\d{4}-\d\d-\d\d/; // Date also reads "1" as a day in 2001
const NO_ZONE = /^\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/;

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

/** Return the time of day in the reader's zone, with the date unless it is today; without seconds if *isShort*. */
export function clockOf(moment, isShort = false) {
  const time = (isShort ? SHORT_TIME : TIME).format(moment);
  const now = new Date();
  if (moment.toDateString() === now.toDateString()) return time;
  const day = moment.getFullYear() === now.getFullYear() ? DAY : DAY_OF_YEAR;
  return `${day.format(moment)} ${time}`;
}
