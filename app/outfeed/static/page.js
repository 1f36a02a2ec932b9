// Script of the server-rendered pages: times in the reader's zone, keys for the list, and a title and an icon that show
// new events and a failed connection.

import "./event-feed/event-feed.js"; // loaded together with the code that listens to it
import { clockOf, setText, widthOf, zoneName } from "./event-feed/elements.js";
import { showConnection, showUnread } from "./favicon.js";

/** Show the times in *root* in the reader's zone. */
export function localise(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    setText(time, clockOf(new Date(time.dateTime), "short" in time.dataset));
  }
  root.querySelectorAll(".events").forEach(align);
}

/** Give the times in *list* one width, so that the sentences form a column. */
export function align(list) {
  list.dataset.times = widthOf(Math.max(...Array.from(list.querySelectorAll("time"), (time) => time.textContent.length)));
}

localise(document);

const zone = document.getElementById("zone");
if (zone) zone.textContent = `Times in ${zoneName()}`;

const feed = document.querySelector("event-feed"); // an element that is added later belongs to another script
const field = document.querySelector("form.filter input:not([type=hidden])");
const STEPS = { j: 1, k: -1 };
document.addEventListener("keydown", (event) => {
  const isTyping = event.composedPath()[0].matches?.("input, textarea, select");
  if (isTyping || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
  if (feed && event.key in STEPS) feed.moveFocus(STEPS[event.key]);
  else if (event.key === "/" && (feed || field)) (feed ? feed.focusFilter() : field.focus());
  else return;
  event.preventDefault();
});

const { title } = document;
let unseen = 0;
let hasBeenLive = false; // the first events of a feed are not new

if (feed) {
  feed.addEventListener("event-feed:state", ({ detail }) => {
    hasBeenLive ||= ["live", "polling"].includes(detail.state);
    showConnection(detail.state);
  });
  feed.addEventListener("event-feed:received", ({ detail }) => {
    if (document.hidden && hasBeenLive) showUnseen(unseen + detail.events.length);
  });
  document.addEventListener("visibilitychange", () => document.hidden || showUnseen(0));
}

function showUnseen(count) {
  unseen = count;
  document.title = count ? `(${count > 999 ? "999+" : count}) ${title}` : title;
  showUnread(count > 0);
}
