// The log, which is kept for longer than the feed: it has the events before the oldest of the feed.

import { parse } from "./numbers.js";

const ANSWER_MS = 10_000;

/** Return the newest events that match *wanted*, newest first; none if the log can't be read. */
export async function readLog(feedUrl, { last, types, ...filters }) {
  const url = new URL("api/events", feedUrl.replace(/^ws/, "http"));
  url.search = new URLSearchParams({ limit: last, ...(types && { event_type: types.join(",") }), ...filters });
  try {
    const answer = await fetch(url, { credentials: "include", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
    return answer.ok ? parse(await answer.text()).events : [];
  } catch {
    return []; // the rows of the feed are shown without them
  }
}
