// Times on the board that change without an event: the rest of an auction, and the age of an agent's heartbeat.

import { setText } from "../event-feed/elements.js";

/** Show the times in *root* at *now*, by the server's clock. An agent's heartbeat is at most *most* seconds old. */
export function showTimes(root, now, most) {
  for (const place of root.querySelectorAll("[data-until]")) {
    const secs = (Date.parse(place.dataset.until) - now) / 1000;
    if (place.localName === "progress") place.value = Math.max(0, Math.round(secs));
    else setText(place, secs > 0 ? lengthText(Math.ceil(secs)) : "closing");
  }
  for (const place of root.querySelectorAll("[data-since]")) {
    const secs = Math.max(0, Math.floor((now - Date.parse(place.dataset.since)) / 1000));
    setText(place, secs >= most ? `< ${lengthText(Math.floor(most))} ago` : `${lengthText(secs)} ago`);
  }
}

function lengthText(secs) {
  return secs < 120 ? `${secs} s` : `${Math.floor(secs / 60)} min`;
}
