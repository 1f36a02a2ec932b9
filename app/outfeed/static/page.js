// Script of the server-rendered pages: times in the reader's zone, "/" for the filter, and a title with the number of
// events that came while the page was hidden.

import "./event-feed/event-feed.js"; // loaded together with the code that listens to it
import { clockOf, setText, widthOf, zoneName } from "./event-feed/elements.js";

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
document.addEventListener("keydown", (event) => {
  const isTyping = event.composedPath()[0].matches?.("input, textarea, select");
  if (event.key !== "/" || isTyping || event.defaultPrevented || !(feed || field)) return;
  event.preventDefault();
  if (feed) feed.focusFilter();
  else field.focus();
});

const { title } = document;
const icon = document.querySelector("link[rel=icon]");
let unseen = 0;
let hasBeenLive = false; // the first events of a feed are not new

if (feed) {
  feed.addEventListener("event-feed:state", ({ detail }) => {
    hasBeenLive ||= ["live", "polling"].includes(detail.state);
  });
  feed.addEventListener("event-feed:received", ({ detail }) => {
    if (document.hidden && hasBeenLive) showUnseen(unseen + detail.events.length);
  });
  document.addEventListener("visibilitychange", () => document.hidden || showUnseen(0));
}

function showUnseen(count) {
  unseen = count;
  document.title = count ? `(${count > 999 ? "999+" : count}) ${title}` : title;
  icon.href = icon.href.replace(/favicon(-unread)?\.svg$/, count ? "favicon-unread.svg" : "favicon.svg");
}
