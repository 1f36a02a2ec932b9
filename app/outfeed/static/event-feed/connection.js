// A connection that comes back: by WebSocket; where one can't be had though HTTP works (a proxy that forbids upgrades,
// that lets no frame through, or that cuts each), by long poll, trying the WebSocket again now and then.

import { parse } from "./numbers.js";
import { Turn } from "./turn.js";

const SILENCE_MS = 45_000; // three of the server's heartbeats
const HANDSHAKE_MS = 10_000;
const ANSWER_MS = 10_000;
const PONG_MS = 3_000; // for each frame until it comes
const HELD_MS = 5_000; // a connection that lasted this long ends a row of failures
const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 20_000;
const MAX_TOLD_WAIT_MS = 60_000;
const LONG_POLL_SECS = 25; // less than what proxies allow a request to take
const REST_MS = 2_000; // between two polls while another tab holds one
const HIDDEN_REST_MS = 10_000;
const MAX_NEWS_MS = 200; // the tabs that hear of news ask one after another
const MAX_CUTS = 3; // after so many sockets in a row that were cut before they held, long poll is the better way in
const FIRST_CLIMB_MS = 2_000;
const MAX_CLIMB_MS = 120_000;

const RESTARTING = 1012;
const SIGNED_OUT = 4001;
const UNAUTHORIZED = 401;
const TEMPORARY = [408, 425, 429]; // of the answers from 400 to 499
const NO_TICKET = "This page can't open the feed: set ticket-url";

/**
 * Reports each change as (link, {until, outage, refusal}): connecting, open, polling, waiting, signed-out, refused,
 * closed; *outage* is why a server that answers can't read its database, *until* when the next try is due, in ms, and
 * *refusal* why there will be none. Asks for the message and the query that subscribe, and hands on frames and pages.
 * A socket counts from its first frame on. An exception in any step ends in the back-off.
 */
export class Connection {
  #url;
  #ticketUrl;
  #on;
  #socket = null;
  #spokeAt = null;
  #silence = 0;
  #isAsked = false; // a pong is owed; a frame that comes before it may have been on its way for long
  #call = null; // the request that is under way
  #rest = 0;
  #turn;
  #polledSince = 0;
  #retry = 0;
  #failures = 0;
  #climbs = 0;
  #link = "closed";
  #isWanted = false;
  #isWarned = false;

  constructor(url, ticketUrl, on) {
    this.#url = url;
    this.#ticketUrl = ticketUrl;
    this.#on = on;
    this.#turn = new Turn(url);
  }

  connect() {
    this.#isWanted = true;
    this.#run(() => {
      this.#putDown();
      this.#report("connecting");
      return this.#openSocket();
    });
  }

  /** Ask for what is wanted now, in place of what was. */
  subscribe() {
    this.#run(() => this.#subscribe());
  }

  #subscribe() {
    if (this.#link === "open") this.#send(this.#on.request());
    if (this.#link === "polling") return this.#ask(0);
  }

  /** The network or the reader is back: try now instead of later, and don't trust a connection that slept. */
  resume() {
    if (["waiting", "signed-out", "refused"].includes(this.#link)) return this.connect();
    this.check();
    if (this.#link === "polling") this.#climb();
  }

  /** Somebody says that the network is gone, or was: have the server answer now, and drop what it doesn't answer. */
  check() {
    this.#run(() => {
      if (this.#link === "open") {
        this.#send({ action: "ping" });
        this.#isAsked = true;
        this.#expectFrameWithin(PONG_MS);
      }
      if (this.#link === "polling") return this.#ask(0);
    });
  }

  close() {
    this.#isWanted = false;
    this.#putDown();
    this.#report("closed");
  }

  /** The server has refused what was asked for, and would refuse it again. */
  giveUp() {
    this.#putDown();
    this.#report("refused");
  }

  /** Run *step*. If it throws, the connection is given up and tried again later. */
  async #run(step) {
    try {
      await step();
    } catch (error) {
      console.error("event-feed: trying again after", error);
      if (this.#isWanted) this.#backOff();
    }
  }

  // The WebSocket

  #openSocket() {
    return this.#ticketUrl ? this.#askForTicket() : this.#openSocketAt(this.#url);
  }

  /** On another site no cookie lets us in: the page's own server gets a ticket for each socket. */
  async #askForTicket() {
    const call = (this.#call = new Call());
    const answer = await call.answer(this.#ticketUrl, ANSWER_MS, "POST");
    if (call.isDropped) return;
    const { ticket } = answer.body ?? {};
    if (ticket) return this.#openSocketAt(`${this.#url}?ticket=${encodeURIComponent(ticket)}`);
    if (!isPermanent(answer)) return this.#turnedAway(answer);
    this.#refuse(NO_TICKET, `${this.#ticketUrl} answers ${answer.status} without a ticket`);
  }

  #openSocketAt(url) {
    const socket = madeSocket(url);
    if (!socket) return this.#lost(1006, "");
    this.#socket = socket;
    this.#expectFrameWithin(HANDSHAKE_MS);
    socket.onopen = () => this.#run(() => this.#opened());
    socket.onmessage = ({ data }) => this.#run(() => this.#heard(data));
    socket.onclose = ({ code, reason }) => this.#run(() => this.#lost(code, reason));
  }

  #opened() {
    this.#stopPolling();
    this.#turn.release();
    clearTimeout(this.#retry);
    this.#expectFrameWithin(HANDSHAKE_MS);
    this.#report("open");
    return this.#subscribe();
  }

  #heard(data) {
    const frame = parse(data);
    this.#spokeAt ??= performance.now();
    if (frame.type === "pong") this.#isAsked = false;
    this.#expectFrameWithin(this.#isAsked ? PONG_MS : SILENCE_MS);
    this.#on.frame(frame);
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #expectFrameWithin(ms) {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => this.#run(() => this.#lost(1006, "")), ms);
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
    else if (this.#isForeign && spokeAt === null) this.#refuse(NO_TICKET, `${this.#url} is another site's`);
    else if (this.#ticketUrl || (spokeAt !== null && this.#failures < MAX_CUTS)) this.#backOff();
    else return this.#stepDown();
  }

  // Long poll

  /** A browser doesn't say why a handshake failed, so ask over HTTP; where that works, stay with it. */
  #stepDown() {
    this.#report("waiting");
    return this.#ask(0);
  }

  /** Ask for what has come, waiting for it up to *wait* seconds, and go on. */
  async #ask(wait) {
    this.#stopPolling();
    const call = (this.#call = new Call());
    const url = new URL("api/feed", this.#url.replace(/^ws/, "http"));
    url.search = this.#on.query(wait);
    const answer = await call.answer(url, wait * 1000 + ANSWER_MS);
    if (call.isDropped) return;
    if (answer.status !== 200 || !answer.body) return this.#turnedAway(answer);
    this.#keepPolling();
    this.#on.page(answer.body);
    if (call.isDropped) return;
    this.#turn.tell(answer.body.cursor);
    this.#run(() => this.#askOn()); // not awaited: the promises of all polls would be kept
  }

  /** Hold the next request if no other tab holds one. Otherwise ask after a rest, or when that tab tells of news. */
  #askOn() {
    if (this.#turn.take(LONG_POLL_SECS * 1000 + ANSWER_MS)) return this.#ask(LONG_POLL_SECS);
    this.#call = null;
    this.#askAfter(document.hidden ? HIDDEN_REST_MS : REST_MS);
    this.#turn.listen(() => this.#askAfter(Math.random() * MAX_NEWS_MS));
  }

  #askAfter(ms) {
    clearTimeout(this.#rest);
    this.#rest = setTimeout(() => this.#run(() => this.#ask(0)), ms);
  }

  #keepPolling() {
    if (this.#link !== "polling") {
      this.#polledSince = performance.now();
      this.#report("polling");
      this.#climbLater();
    } else if (performance.now() - this.#polledSince >= HELD_MS) this.#failures = 0;
  }

  #turnedAway(answer) {
    const { status, body, retryMs } = answer;
    if (status === UNAUTHORIZED) return this.#signedOut();
    if (status >= 400 && isPermanent(answer)) return this.#refused(answer);
    const outage = body?.code === "database_unavailable" ? body.detail : null;
    if (retryMs !== null) this.#wait(retryMs * (1 + Math.random() / 4), outage); // told to many at once
    else this.#backOff();
  }

  /** What was asked for is refused, with the reason if it is the feed that answers. */
  #refused({ status, body }) {
    if (!body?.detail) return this.#refuse(`This page can't open the feed: the server returned ${status}`, this.#url);
    this.giveUp();
    this.#on.frame({ type: "error", payload: { message: body.detail } });
  }

  #stopPolling() {
    this.#call?.drop();
    this.#call = null;
    clearTimeout(this.#rest);
    this.#turn.ignore();
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
    this.#run(() => this.#openSocket());
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
    this.#report("waiting", { until: Date.now() + ms, outage });
  }

  #signedOut() {
    this.#putDown();
    this.#report("signed-out");
  }

  /** Stop trying: *refusal* tells the reader, *cause* tells the page's author, once. */
  #refuse(refusal, cause) {
    if (!this.#isWarned) console.warn(`event-feed: ${refusal} (${cause})`);
    this.#isWarned = true;
    this.#putDown();
    this.#report("refused", { refusal });
  }

  /** Another site's server knows no cookie of this page, and its answers can't be read. */
  get #isForeign() {
    return !this.#ticketUrl && new URL(this.#url.replace(/^ws/, "http")).origin !== location.origin;
  }

  #putDown() {
    this.#dropSocket();
    this.#stopPolling();
    this.#turn.release();
    clearTimeout(this.#retry);
  }

  #report(link, { until = 0, outage = null, refusal = null } = {}) {
    if (link === this.#link && !until) return;
    this.#link = link;
    this.#on.link(link, { until, outage, refusal });
  }
}

/** A request that ends after some time. Dropped, it ends at once, and its answer is nobody's. */
class Call {
  isDropped = false;
  #abort = new AbortController();

  async answer(url, ms, method = "GET") {
    const timer = setTimeout(() => this.#abort.abort(), ms);
    const answer = await fetchAnswer(url, this.#abort.signal, method);
    clearTimeout(timer);
    return answer;
  }

  drop() {
    this.isDropped = true;
    this.#abort.abort();
  }
}

/** Return the socket; null if the page's Content Security Policy forbids it, or the browser has none. */
function madeSocket(url) {
  try {
    return new WebSocket(url);
  } catch {
    return null;
  }
}

/** Whether the same request will be answered the same way, as far as a client can know. */
function isPermanent({ status, retryMs }) {
  const isRefusal = status > 0 && status < 500 && retryMs === null;
  return isRefusal && status !== UNAUTHORIZED && !TEMPORARY.includes(status);
}

/** Return {status, body, retryMs}; the status is 0 without an answer, the body null if it is no JSON. */
async function fetchAnswer(url, signal, method) {
  try {
    const answer = await fetch(url, { method, credentials: "include", cache: "no-store", signal });
    const text = await answer.text();
    return { status: answer.status, body: parsed(text), retryMs: retryMsOf(answer) };
  } catch {
    return { status: 0, body: null, retryMs: null };
  }
}

function parsed(text) {
  try {
    return parse(text);
  } catch {
    return null;
  }
}

/** What Retry-After asks for, in seconds or as a date; null where it asks for nothing. */
function retryMsOf({ headers }) {
  const told = headers.get("Retry-After");
  const ms = /^\d+$/.test(told) ? Number(told) * 1000 : Date.parse(told) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}
