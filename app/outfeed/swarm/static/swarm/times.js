// The times on the board that run on without an event: how long an auction is still open, and when an agent was heard of.

import { setText } from "../event-feed/elements.js";

/** Show the times in *root* at *now*, by the server's clock. No agent is silent for longer than *most* seconds. */
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
