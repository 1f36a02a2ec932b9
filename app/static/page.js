// What the server-rendered pages gain from a script: times in the reader's zone, and "/" for the filter.

import { clockOf } from "./event-feed.js";

/** Show the times in *root* in the reader's zone. */
export function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]")) time.textContent = clockOf(new Date(time.dateTime));
}

localise(document);

const zone = document.getElementById("zone");
if (zone) zone.textContent = `Times in ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;

const feed = document.querySelector("event-feed");
const field = document.querySelector("form.filter input");
document.addEventListener("keydown", (event) => {
  const isTyping = event.composedPath()[0].matches?.("input, textarea, select");
  if (event.key !== "/" || isTyping || event.defaultPrevented || !(feed || field)) return;
  event.preventDefault();
  if (feed) feed.focusFilter();
  else field.focus();
});
