// The log, which is kept for longer than the feed: it has the events before the oldest of the feed and of the list.

import { make, setText } from "./elements.js";
import { parse } from "./numbers.js";

const ANSWER_MS = 10_000;
const PAGE = 100;

/** Return the newest events that match *wanted*, newest first; none if the log can't be read. */
export async function readLog(feedUrl, { last, ...filters }) {
  try {
    return (await readPage(feedUrl, { ...filters, limit: last })).events;
  } catch {
    return []; // the rows of the feed are shown without them
  }
}

/** Reads the log backwards, a page at a time, below the list. */
export class Past {
  element = make("p", "past");
  #more = make("button", "", "Show earlier events");
  #said = make("span");
  #last = null; // the id of the list's last row
  #cursor = null; // where the log goes on after it, if that is known
  #isReading = false;

  /** Calls *onmore* when the user asks for earlier events. */
  constructor(onmore) {
    this.#said.setAttribute("aria-live", "polite");
    this.#more.onclick = () => onmore();
    this.element.append(this.#said, this.#more);
    this.#say("", true);
  }

  /** Offer the events before the row with the id *last*. */
  offer(last) {
    if (last === this.#last) return;
    this.#last = last;
    this.#cursor = null;
    this.#say("", !last);
  }

  /** Return the next page of events; null at the end, after a failure, and while another page is read. */
  async read(feedUrl, { last: _, ...filters }) {
    if (this.#isReading || this.#more.hidden) return null;
    this.#isReading = true;
    const asked = this.#last;
    this.#say("Loading earlier events…", true);
    try {
      const place = this.#cursor === null ? { before: this.#last } : { cursor: this.#cursor };
      const { events, next } = await readPage(feedUrl, { ...filters, limit: PAGE, ...place });
      if (asked !== this.#last) return null; // the list was rebuilt in between
      this.#cursor = next;
      this.#say(next === null ? "This is the beginning of the log." : "", next === null);
      return events;
    } catch {
      this.#say("Earlier events can't be loaded. ", false);
      return null;
    } finally {
      this.#isReading = false;
    }
  }

  /** The page of before is in the list, and *last* is the id of its last row. */
  follow(last) {
    this.#last = last;
  }

  #say(text, isDone) {
    setText(this.#said, text);
    this.#more.hidden = isDone;
    this.element.hidden = isDone && !text;
  }
}

async function readPage(feedUrl, { types, ...query }) {
  const url = new URL("api/events", feedUrl.replace(/^ws/, "http"));
  url.search = new URLSearchParams({ ...(types && { event_type: types.join(",") }), ...query });
  const answer = await fetch(url, { credentials: "include", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  if (!answer.ok) throw new Error(`GET ${url}: ${answer.status}`);
  return parse(await answer.text());
}
