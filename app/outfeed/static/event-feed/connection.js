// A connection that reconnects, by WebSocket. If a WebSocket fails though HTTP works (a proxy that forbids upgrades,
// that passes no frame, or that cuts each socket), it uses long poll and retries the WebSocket from time to time.

import { parse } from "./numbers.js";
import { Turn } from "./turn.js";

const SILENCE_MS = 45_000; // three of the server's heartbeats
const HANDSHAKE_MS = 10_000;
const ANSWER_MS = 10_000;
const PONG_MS = 3_000; // restarted by each frame until the pong
const STABLE_MS = 5_000; // a connection that lasted this long resets the count of failures
const FIRST_BACKOFF_MS = 500;
const MAX_BACKOFF_MS = 20_000;
const MAX_REQUESTED_WAIT_MS = 60_000;
const LONG_POLL_SECS = 25; // less than what proxies allow a request to take
const POLL_PAUSE_MS = 2_000; // between two polls while another tab holds a request
const HIDDEN_POLL_PAUSE_MS = 10_000;
const MAX_NEWS_MS = 200; // spreads the requests of the tabs that are told of events
const MAX_CUTS = 3; // after this many sockets in a row that were cut early, it uses long poll
const FIRST_SOCKET_RETRY_MS = 2_000;
const MAX_SOCKET_RETRY_MS = 120_000;

const RESTARTING = 1012;
const SIGNED_OUT = 4001;
const UNAUTHORIZED = 401;
const OUTAGES = ["database_unavailable", "engine_unavailable"]; // the server answers, and can't read the feed
const TEMPORARY = [408, 425, 429]; // of the answers from 400 to 499
const NO_TICKET = "This page can't open the feed: set ticket-url";

/**
 * Reports each change as (link, {until, outage, refusal}): connecting, open, polling, waiting, signed-out, refused,
 * closed. *outage* is why a responding server can't read its database. *until* is the time of the next try, in ms.
 * *refusal* is why there will be none. It asks for the message and the query that subscribe, and passes on frames and
 * pages with their texts. A socket counts from its first frame on. An exception in any step leads to the back-off. After
 * it, `on.retry` is called.
 */
export class Connection {
  #url;
  #ticketUrl;
  #on;
  #socket = null;
  #firstFrameAt = null;
  #silenceTimer = 0;
  #isPongDue = false; // a pong is due; a frame before it may have been sent long ago
  #call = null; // the current request
  #pollTimer = 0;
  #turn;
  #polledSince = 0;
  #retryTimer = 0;
  #failures = 0;
  #socketRetries = 0;
  #link = "closed";
  #isWanted = false;
  #isWarned = false;
  #asksOrigin = false; // the next socket is to be the origin's
  #hasAsked = false; // the origin was asked, and no connection was stable since

  constructor(url, ticketUrl, on) {
    this.#url = url;
    this.#ticketUrl = ticketUrl;
    this.#on = on;
    this.#turn = new Turn(url);
  }

  connect() {
    this.#isWanted = true;
    this.#run(() => {
      this.#closeAll();
      this.#report("connecting");
      return this.#openSocket();
    });
  }

  /**
   * Request the events after the position over HTTP, without a connection. `on.caughtUp` is called at the end, and
   * `on.unanswered` if the server has no such answer for this page.
   */
  catchUp() {
    this.#isWanted = true;
    this.#run(() => {
      this.#closeAll();
      return this.#readToHead();
    });
  }

  async #readToHead() {
    for (;;) {
      const { call, answer } = await this.#fetchPage(0);
      if (call.isDropped) return;
      if (!isPage(answer)) return isPermanent(answer) ? this.#on.unanswered() : this.#handleFailure(answer);
      this.#failures = 0;
      this.#on.page(answer.body, answer.text);
      if (call.isDropped) return;
      if (answer.body.cursor >= answer.body.head) return this.#on.caughtUp();
    }
  }

  /** Send the current request in place of the former one. */
  subscribe() {
    this.#run(() => this.#subscribe());
  }

  #subscribe() {
    if (this.#link === "open") this.#send(this.#on.request());
    if (this.#link === "polling") return this.#poll(0);
  }

  /** Connect to the origin of an edge that lacks events. Return false if the origin has been asked already. */
  askOrigin() {
    if (this.#hasAsked) return false;
    this.#hasAsked = this.#asksOrigin = true;
    this.connect();
    return true;
  }

  /** Try now instead of later: the network or the reader is back. A connection that was suspended is checked. */
  resume() {
    if (["waiting", "signed-out", "refused"].includes(this.#link)) return this.connect();
    this.check();
    if (this.#link === "polling") this.#retrySocket();
  }

  /** Have the server answer now, and drop the connection if it doesn't: the network may have failed. */
  check() {
    this.#run(() => {
      if (this.#link === "open") {
        this.#send({ action: "ping" });
        this.#isPongDue = true;
        this.#expectFrameWithin(PONG_MS);
      }
      if (this.#link === "polling") return this.#poll(0);
    });
  }

  close() {
    this.#isWanted = false;
    this.#closeAll();
    this.#report("closed");
  }

  /** Stop trying: the server has refused the request and would refuse it again. */
  giveUp() {
    this.#closeAll();
    this.#report("refused");
  }

  /** Run *step*. If it throws, close the connection and retry later. */
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
    return this.#ticketUrl ? this.#fetchTicket() : this.#openSocketAt(this.#url);
  }

  /** Get a ticket from the page's own server for each socket: on another site no cookie is sent. */
  async #fetchTicket() {
    const call = (this.#call = new Call());
    const answer = await call.answer(this.#ticketUrl, ANSWER_MS, "POST");
    if (call.isDropped) return;
    const { ticket } = answer.body ?? {};
    if (ticket) return this.#openSocketAt(`${this.#url}?ticket=${encodeURIComponent(ticket)}`);
    if (!isPermanent(answer)) return this.#handleFailure(answer);
    this.#refuse(NO_TICKET, `${this.#ticketUrl} answers ${answer.status} without a ticket`);
  }

  #openSocketAt(url) {
    const origin = this.#asksOrigin ? `${url.includes("?") ? "&" : "?"}origin=1` : ""; // a proxy can tell by it
    this.#asksOrigin = false;
    const socket = createSocket(url + origin);
    if (!socket) return this.#handleClose(1006, "");
    this.#socket = socket;
    this.#expectFrameWithin(HANDSHAKE_MS);
    socket.onopen = () => this.#run(() => this.#handleOpen());
    socket.onmessage = ({ data }) => this.#run(() => this.#handleMessage(data));
    socket.onclose = ({ code, reason }) => this.#run(() => this.#handleClose(code, reason));
  }

  #handleOpen() {
    this.#stopPolling();
    this.#turn.release();
    clearTimeout(this.#retryTimer);
    this.#expectFrameWithin(HANDSHAKE_MS);
    this.#report("open");
    return this.#subscribe();
  }

  #handleMessage(data) {
    const frame = parse(data);
    this.#firstFrameAt ??= performance.now();
    if (frame.type === "pong") this.#isPongDue = false;
    this.#expectFrameWithin(this.#isPongDue ? PONG_MS : SILENCE_MS);
    this.#on.frame(frame, data);
  }

  #send(message) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #expectFrameWithin(ms) {
    clearTimeout(this.#silenceTimer);
    this.#silenceTimer = setTimeout(() => this.#run(() => this.#handleClose(1006, "")), ms);
  }

  #dropSocket() {
    clearTimeout(this.#silenceTimer);
    this.#isPongDue = false;
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = this.#firstFrameAt = null;
    socket.onopen = socket.onmessage = socket.onclose = null; // the close event of a dead peer can take minutes
    socket.close();
  }

  #handleClose(code, reason) {
    const firstFrameAt = this.#firstFrameAt;
    this.#dropSocket();
    if (this.#link === "polling") return this.#retrySocketLater(); // the socket was a try, and polling continues
    if (firstFrameAt !== null && performance.now() - firstFrameAt >= STABLE_MS) {
      this.#failures = this.#socketRetries = 0;
      this.#hasAsked = false;
    }
    const requested = code === RESTARTING && /retry_ms=(\d+)/.exec(reason);
    if (code === SIGNED_OUT) this.#reportSignedOut();
    else if (requested) this.#wait(Number(requested[1]));
    else if (this.#isForeign && firstFrameAt === null) this.#refuse(NO_TICKET, `${this.#url} is another site's`);
    else if (this.#ticketUrl || (firstFrameAt !== null && this.#failures < MAX_CUTS)) this.#backOff();
    else return this.#switchToPolling();
  }

  // Long poll

  /** Poll over HTTP: a browser does not say why a handshake failed. If HTTP works, stay with it. */
  #switchToPolling() {
    this.#report("waiting");
    return this.#poll(0);
  }

  /** Request new events, waiting up to *wait* seconds for one, and continue. */
  async #poll(wait) {
    const { call, answer } = await this.#fetchPage(wait);
    if (call.isDropped) return;
    if (!isPage(answer)) return this.#handleFailure(answer);
    this.#recordPoll();
    this.#on.page(answer.body, answer.text);
    if (call.isDropped) return;
    this.#turn.announce(answer.body.cursor);
    this.#run(() => this.#pollNext()); // not awaited, else the promises of all polls would be kept
  }

  /** Request a page. Another step may replace the request, and drop the call, before its answer comes. */
  async #fetchPage(wait) {
    this.#stopPolling();
    const call = (this.#call = new Call());
    const url = new URL("api/feed", this.#url.replace(/^ws/, "http"));
    url.search = this.#on.query(wait);
    const answer = await call.answer(url, wait * 1000 + ANSWER_MS);
    return { call, answer };
  }

  /** Hold the next request if no other tab holds one. Else poll after a pause, or when that tab tells of events. */
  #pollNext() {
    if (this.#turn.take(LONG_POLL_SECS * 1000 + ANSWER_MS)) return this.#poll(LONG_POLL_SECS);
    this.#call = null;
    this.#pollAfter(document.hidden ? HIDDEN_POLL_PAUSE_MS : POLL_PAUSE_MS);
    this.#turn.listen(() => this.#pollAfter(Math.random() * MAX_NEWS_MS));
  }

  #pollAfter(ms) {
    clearTimeout(this.#pollTimer);
    this.#pollTimer = setTimeout(() => this.#run(() => this.#poll(0)), ms);
  }

  #recordPoll() {
    if (this.#link !== "polling") {
      this.#polledSince = performance.now();
      this.#report("polling");
      this.#retrySocketLater();
    } else if (performance.now() - this.#polledSince >= STABLE_MS) this.#failures = 0;
  }

  #handleFailure(answer) {
    const { status, body, retryMs } = answer;
    if (status === UNAUTHORIZED) return this.#reportSignedOut();
    if (status >= 400 && isPermanent(answer)) return this.#reportRefusal(answer);
    const outage = OUTAGES.includes(body?.code) ? body.detail : null;
    if (retryMs !== null) this.#wait(retryMs * (1 + Math.random() / 4), outage); // many clients get the same answer
    else this.#backOff();
  }

  /** Report a refused request, with the reason if the answer is Outfeed's. */
  #reportRefusal({ status, body }) {
    if (!body?.detail) return this.#refuse(`This page can't open the feed: the server returned ${status}`, this.#url);
    this.giveUp();
    this.#on.frame({ type: "error", payload: { message: body.detail } });
  }

  #stopPolling() {
    this.#call?.drop();
    this.#call = null;
    clearTimeout(this.#pollTimer);
    this.#turn.ignore();
  }

  #retrySocketLater() {
    const ms = Math.min(MAX_SOCKET_RETRY_MS, FIRST_SOCKET_RETRY_MS * 2 ** this.#socketRetries);
    this.#socketRetries += 1;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.#retrySocket(), ms * (0.5 + Math.random() / 2));
  }

  /** Try the WebSocket while polling continues. Polling ends when the socket opens. */
  #retrySocket() {
    clearTimeout(this.#retryTimer);
    this.#dropSocket();
    this.#run(() => this.#openSocket());
  }

  // Waiting and refusal

  #backOff() {
    this.#wait(Math.random() * Math.min(MAX_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** this.#failures));
    this.#failures += 1;
  }

  #wait(wanted, outage = null) {
    const ms = Math.min(wanted, MAX_REQUESTED_WAIT_MS);
    this.#closeAll();
    this.#retryTimer = setTimeout(() => this.#on.retry(), ms);
    this.#report("waiting", { until: Date.now() + ms, outage });
  }

  #reportSignedOut() {
    this.#closeAll();
    this.#report("signed-out");
  }

  /** Stop trying. The reader sees *refusal*; the page's author gets *cause* in the console, once. */
  #refuse(refusal, cause) {
    if (!this.#isWarned) console.warn(`event-feed: ${refusal} (${cause})`);
    this.#isWarned = true;
    this.#closeAll();
    this.#report("refused", { refusal });
  }

  /** Whether the server is of another site: it gets no cookie of this page, and its answers can't be read. */
  get #isForeign() {
    return !this.#ticketUrl && new URL(this.#url.replace(/^ws/, "http")).origin !== location.origin;
  }

  #closeAll() {
    this.#dropSocket();
    this.#stopPolling();
    this.#turn.release();
    clearTimeout(this.#retryTimer);
  }

  #report(link, { until = 0, outage = null, refusal = null } = {}) {
    if (link === this.#link && !until) return;
    this.#link = link;
    this.#on.link(link, { until, outage, refusal });
  }
}

/** A request with a timeout. After `drop` it ends at once, and its answer is ignored. */
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

/** Return a socket; null if the page's Content Security Policy forbids it or the browser has none. */
function createSocket(url) {
  try {
    return new WebSocket(url);
  } catch {
    return null;
  }
}

/** Whether the server would answer the same request in the same way, as far as a client knows. */
function isPermanent({ status, retryMs }) {
  const isRefusal = status > 0 && status < 500 && retryMs === null;
  return isRefusal && status !== UNAUTHORIZED && !TEMPORARY.includes(status);
}

function isPage({ status, body }) {
  return status === 200 && body !== null;
}

/** Return {status, text, body, retryMs}. The status is 0 without an answer; the body is null if it is not JSON. */
async function fetchAnswer(url, signal, method) {
  try {
    const answer = await fetch(url, { method, credentials: "include", cache: "no-store", signal });
    const text = await answer.text();
    return { status: answer.status, text, body: parsed(text), retryMs: retryMsOf(answer) };
  } catch {
    return { status: 0, text: "", body: null, retryMs: null };
  }
}

function parsed(text) {
  try {
    return parse(text);
  } catch {
    return null;
  }
}

/** Return the pause of Retry-After, given in seconds or as a date; null without one. */
function retryMsOf({ headers }) {
  const requested = headers.get("Retry-After");
  const ms = /^\d+$/.test(requested) ? Number(requested) * 1000 : Date.parse(requested) - Date.now();
  return Number.isNaN(ms) ? null : Math.max(0, ms);
}
