// What the server-rendered pages gain from a script: times in the reader's zone, and "/" for the filter.

import { clockOf } from "./event-feed.js";

for (const time of document.querySelectorAll("time[datetime]")) {
  time.textContent = clockOf(new Date(time.dateTime));
}

const zone = document.getElementById("zone");
if (zone) zone.textContent = `Times in ${Intl.DateTimeFormat().resolvedOptions().timeZone}`;

const filter = document.querySelector("form.filter input");
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || !filter || event.target.matches("input")) return;
  event.preventDefault();
  filter.focus();
});
