// Day headings between the rows, in the reader's zone. Below a heading each row shows the time of day alone.

import { formatOf, IS_UTC } from "../event-feed/elements.js";

const TIME = formatOf({ hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const DAY = formatOf({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
const DAY_MS = 86_400_000;

/** Put a heading before the first row of each day in *list*. */
export function separateDays(list) {
  for (const heading of list.querySelectorAll(":scope > .day")) heading.remove();
  let before = null;
  for (const row of list.querySelectorAll(":scope > .event")) {
    for (const time of row.querySelectorAll("time[datetime]")) time.textContent = TIME.format(new Date(time.dateTime));
    const title = titleOf(row.querySelector("time"));
    if (title !== before) row.before(Object.assign(document.createElement("li"), { className: "day", textContent: title }));
    before = title;
  }
}

function titleOf({ dateTime }) {
  if (!dateTime) return "No date";
  const moment = new Date(dateTime);
  const days = Math.round((midnight(new Date()) - midnight(moment)) / DAY_MS);
  return { 0: "Today", 1: "Yesterday" }[days] ?? DAY.format(moment);
}

function midnight(moment) {
  if (IS_UTC) return new Date(moment).setUTCHours(0, 0, 0, 0);
  return new Date(moment.getFullYear(), moment.getMonth(), moment.getDate());
}
