// What the server-rendered pages gain from a script: times in the reader's zone, and "/" for the filter.

import { clockOf } from "./event-feed.js";

for (const time of document.querySelectorAll("time[datetime]")) {
  time.textContent = clockOf(new Date(time.dateTime));
}

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
