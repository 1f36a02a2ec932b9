// Uses the types of <event-feed> as a page does. scripts/check compiles it.

import "../app/outfeed/static/event-feed/event-feed.js";
import type { EventFeedAttributes, FeedState } from "../app/outfeed/static/event-feed/event-feed.js";

const feed = document.createElement("event-feed");
const attributes: EventFeedAttributes = { types: "task.*", limit: 50, controls: "compact", "ticket-url": "/ticket" };
for (const [name, value] of Object.entries(attributes)) feed.setAttribute(name, String(value));

feed.addEventListener("event-feed:event", ({ detail }) => {
  const label: string | null = detail.replayed ? null : detail.event.event_type;
  console.log(label, detail.seq.toFixed(), feed.cursor - feed.waiting);
});
document.addEventListener("event-feed:received", ({ detail }) => detail.events.map(({ event }) => event.source));
feed.addEventListener("event-feed:verdict", ({ detail }) => console.log(detail.missing?.from, detail.verdict));
feed.addEventListener("event-feed:state", ({ detail }) => {
  const state: FeedState = detail.state;
  if (state === "stale") feed.title = detail.reason ?? "";
});
feed.addEventListener("click", ({ clientX }) => clientX);
feed.pause();
document.querySelector("event-feed")?.showNew();

// @ts-expect-error: no such state
const wrong: FeedState = "sleeping";
// @ts-expect-error: it is read-only
feed.cursor = 5;
// @ts-expect-error: no such value
attributes.controls = "tiny";
console.log(wrong);
