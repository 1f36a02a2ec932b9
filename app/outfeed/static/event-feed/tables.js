// The two tables of displays, as the server has them: that of Outfeed's own types, and those that were set.

import { parse } from "./numbers.js";
import { IS_SERVED } from "./root.js";

const ANSWER_MS = 3_000;
const SPREAD_MS = 2_000; // a change is told to all pages at once

/** Fetches the tables for *sentences*, and calls *onchange* with whether it is the first time if the second changed. */
export class Tables {
  #sentences;
  #onchange;
  #own = null;
  #version = null; // of the displays
  #text = "";
  #timer = 0;
  #asking = null; // the request that is under way

  constructor(sentences, onchange) {
    this.#sentences = sentences;
    this.#onchange = onchange;
  }

  /** Fetch what is missing. Without a table its types read as any type, until the next call. */
  async load(source) {
    this.#own ??= this.#loadOwn(source()).catch(() => (this.#own = null));
    await Promise.all([this.#own, this.#version === null ? this.#asking ?? this.renew(source) : null]);
  }

  async #loadOwn({ feedUrl }) {
    const url = IS_SERVED ? new URL("../event-types.json", import.meta.url) : new URL("static/event-types.json", httpOf(feedUrl));
    const answer = await fetch(url, { signal: AbortSignal.timeout(ANSWER_MS) });
    this.#sentences.own = await answer.json();
  }

  /** The server says that the displays have changed so often: ask for them soon if it is another number. */
  note(version, source) {
    if (version === this.#version || this.#timer || this.#asking) return;
    this.#timer = setTimeout(() => this.renew(source), Math.random() * SPREAD_MS);
  }

  /** Ask for the displays now. The browser keeps the answer and sends its ETag. */
  renew(source) {
    this.stop();
    this.#asking = this.#ask(source).finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #ask(source) {
    try {
      const { feedUrl, ticketUrl } = source();
      const url = new URL("api/types", httpOf(feedUrl));
      if (ticketUrl) url.searchParams.set("ticket", await ticketFrom(ticketUrl));
      const answer = await fetch(url, { credentials: ticketUrl ? "omit" : "include", cache: "no-cache", signal: AbortSignal.timeout(ANSWER_MS) });
      if (answer.ok) this.#take(await answer.text());
    } catch {
      // The displays of before stay, and the next heartbeat asks again.
    }
  }

  #take(text) {
    const { types, displays } = parse(text);
    const isFirst = this.#version === null;
    this.#version = types;
    if (text === this.#text) return;
    this.#text = text;
    this.#sentences.displays = displays;
    this.#onchange(isFirst);
  }

  /** Do not ask for what was noted. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }
}

function httpOf(feedUrl) {
  return feedUrl.replace(/^ws/, "http");
}

async function ticketFrom(url) {
  const answer = await fetch(url, { method: "POST", credentials: "include", cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
  return (await answer.json()).ticket;
}
