// A connection that comes back: by WebSocket; where one can't be had though HTTP works (a proxy that forbids upgrades,
// that lets no frame through, or that cuts each), by long poll, trying the WebSocket again now and then.

import { parse } from "./numbers.js";

const SILENCE_MS = 45_000; // three of the server's heartbeats
const HANDSHAKE_MS = 10_000;
const ANSWER_MS = 10_000;
const PONG_MS = 3_000; // for each frame until it comes
const HELD_MS = 5_000; // a connection that lasted this long ends a row of failures
const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 20_000;
const MAX_TOLD_WAIT_MS = 60_000;
const LONG_POLL_SECS = 25; // less than what proxies allow a request to take
const MAX_CUTS = 3; // after so many sockets in a row that were cut before they held, long poll is the better way in
const FIRST_CLIMB_MS = 2_000;
const MAX_CLIMB_MS = 120_000;

const RESTARTING = 1012;
const SIGNED_OUT = 4001;
const UNAUTHORIZED = 401;

/**
 * Reports each change as (link, until, outage): connecting, open, polling, waiting, signed-out, closed; *outage* is why
 * a server that answers can't read its database, and *until* when the next try is due, in ms. Asks for the message
 * and the query that subscribe, and hands on frames and pages. A socket counts from its first frame on.
 */
export class Connection {
  #url;
  #ticketUrl;
  #on;
  #socket = null;
  #spokeAt = null;
  #silence = 0;
  #isAsked = false; // a pong is owed; a frame that comes before it may have been on its way for long
  #poll = null;
  #polledSince = 0;
  #retry = 0;
  #failures = 0;
  #climbs = 0;
  #link = "closed";

  constructor(url, ticketUrl, on) {
    this.#url = url;
    this.#ticketUrl = ticketUrl;
    this.#on = on;
  }

  connect() {
    this.close();
    this.#openSocket();
    this.#report("connecting");
  }

  /** Ask for what is wanted now, in place of what was. */
  subscribe() {
    if (this.#link === "open") this.#send(this.#on.request());
    if (this.#link === "polling") this.#ask(0);
  }

  /** The network or the reader is back: try now instead of later, and don't trust a connection that slept. */
  resume() {
    if (this.#link === "waiting" || this.#link === "signed-out") return this.connect();
    this.check();
    if (this.#link === "polling") this.#climb();
  }

  /** Somebody says that the network is gone, or was: have the server answer now, and drop what it doesn't answer. */
  check() {
    if (this.#link === "open") {
      this.#send({ action: "ping" });
      this.#isAsked = true;
      this.#expectFrameWithin(PONG_MS);
    }
    if (this.#link === "polling") this.#ask(0);
  }

  close() {
    this.#putDown();
    this.#report("closed");
  }

  // The WebSocket

  #openSocket() {
    if (this.#ticketUrl) this.#askForTicket();
    else this.#openSocketAt(this.#url);
  }

  /** On another site no cookie lets us in: the page's own server gets a ticket for each socket. */
  async #askForTicket() {
    const asking = (this.#poll = new AbortController());
    const signal = AbortSignal.any([asking.signal, AbortSignal.timeout(ANSWER_MS)]);
    const answer = await fetchAnswer(this.#ticketUrl, signal, "POST");
    if (asking.signal.aborted) return;
    if (answer.body?.ticket) this.#openSocketAt(`${this.#url}?ticket=${encodeURIComponent(answer.body.ticket)}`);
    else this.#turnedAway(answer);
  }

  #openSocketAt(url) {
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.onopen = () => {
      this.#stopPolling();
      clearTimeout(this.#retry);
      this.#expectFrameWithin(HANDSHAKE_MS);
      this.#report("open");
      this.subscribe();
    };
    socket.onmessage = ({ data }) => {
      const frame = parse(data);
      this.#spokeAt ??= performance.now();
      if (frame.type === "pong") this.#isAsked = false;
      this.#expectFrameWithin(this.#isAsked ? PONG_MS : SILENCE_MS);
      this.#on.frame(frame);
    };
    socket.onclose = ({ code, reason }) => this.#lost(code, reason);
    this.#expectFrameWithin(HANDSHAKE_MS);
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #expectFrameWithin(ms) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#lost(1006, ""), ms);
  }

  #dropSocket() {
    clearTimeout(this.#silence);
    this.#isAsked = false;
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = this.#spokeAt = null;
    socket.onopen = socket.onmessage = socket.onclose = null; // a dead peer's close event can take minutes
    socket.close();
  }

  #lost(code, reason) {
    const spokeAt = this.#spokeAt;
    this.#dropSocket();
    if (this.#link === "polling") return this.#climbLater(); // it was a try, and polling goes on
    if (spokeAt !== null && performance.now() - spokeAt >= HELD_MS) this.#failures = this.#climbs = 0;
    const told = code === RESTARTING && /retry_ms=(\d+)/.exec(reason);
    if (code === SIGNED_OUT) this.#signedOut();
    else if (told) this.#wait(Number(told[1]));
    else if (this.#ticketUrl || (spokeAt !== null && this.#failures < MAX_CUTS)) this.#backOff();
    else this.#stepDown();
  }

  // Long poll

  /** A browser doesn't say why a handshake failed, so ask over HTTP; where that works, stay with it. */
  #stepDown() {
    this.#report("waiting");
    this.#ask(0);
  }

  async #ask(wait) {
    this.#stopPolling();
    const poll = (this.#poll = new AbortController());
    const url = new URL("api/feed", this.#url.replace(/^ws/, "http"));
    url.search = this.#on.query(wait);
    const late = AbortSignal.timeout(wait * 1000 + ANSWER_MS);
    const answer = await fetchAnswer(url, AbortSignal.any([poll.signal, late]));
    if (poll.signal.aborted) return;
    if (answer.status !== 200) return this.#turnedAway(answer);
    this.#keepPolling();
    this.#on.page(answer.body);
    if (!poll.signal.aborted) this.#ask(LONG_POLL_SECS);
  }

  #keepPolling() {
    if (this.#link !== "polling") {
      this.#polledSince = performance.now();
      this.#report("polling");
      this.#climbLater();
    } else if (performance.now() - this.#polledSince >= HELD_MS) this.#failures = 0;
  }

  #turnedAway({ status, body, retryMs }) {
    if (status === UNAUTHORIZED) return this.#signedOut();
    const isRefusal = status >= 400 && status < 500 && retryMs === null && body?.detail;
    if (isRefusal) this.#on.frame({ type: "error", payload: { message: body.detail } });
    const outage = body?.code === "database_unavailable" ? body.detail : null;
    if (retryMs !== null) this.#wait(retryMs * (1 + Math.random() / 4), outage); // told to many at once
    else this.#backOff();
  }

  #stopPolling() {
    this.#poll?.abort();
    this.#poll = null;
  }

  #climbLater() {
    const ms = Math.min(MAX_CLIMB_MS, FIRST_CLIMB_MS * 2 ** this.#climbs);
    this.#climbs += 1;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => this.#climb(), ms * (0.5 + Math.random() / 2));
  }

  /** Try the WebSocket while polling goes on, which ends when the socket opens. */
  #climb() {
    clearTimeout(this.#retry);
    this.#dropSocket();
    this.#openSocket();
  }

  // Neither

  #backOff() {
    this.#wait(Math.random() * Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** this.#failures));
    this.#failures += 1;
  }

  #wait(wanted, outage = null) {
    const ms = Math.min(wanted, MAX_TOLD_WAIT_MS);
    this.#putDown();
    this.#retry = setTimeout(() => this.connect(), ms);
    this.#report("waiting", Date.now() + ms, outage);
  }

  #signedOut() {
    this.#putDown();
    this.#report("signed-out");
  }

  #putDown() {
    this.#dropSocket();
    this.#stopPolling();
    clearTimeout(this.#retry);
  }

  #report(link, until = 0, outage = null) {
    if (link === this.#link && !until) return;
    this.#link = link;
    this.#on.link(link, until, outage);
  }
}

/** Return {status, body, retryMs}; the status is 0 where nobody answers, or something that speaks no JSON. */
async function fetchAnswer(url, signal, method = "GET") {
  try {
    const answer = await fetch(url, { method, credentials: "include", cache: "no-store", signal });
    const body = await answer.text().then(parse).catch(() => null);
    return { status: answer.ok && !body ? 0 : answer.status, body, retryMs: retryMsOf(answer) };
  } catch {
    return { status: 0, body: null, retryMs: null };
  }
}

/** What Retry-After asks for, in seconds or as a date; null where it asks for nothing. */
function retryMsOf({ headers }) {
  const told = headers.get("Retry-After");
  const ms = /^\d+$/.test(told) ? Number(told) * 1000 : Date.parse(told) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}
