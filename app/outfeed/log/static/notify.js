// Browser notifications of saved views, and a sound.
//
// The server decides which events match a view; the page asks for its news when the feed has received something. One page
// of all that are open does so: it holds a lock of the browser. When it closes, another page gets the lock and continues
// at the stored position. The position is stored before a notification is shown, so an event is shown once at most.

import { NUMBER, setText } from "./event-feed/elements.js";
import { ROOT } from "./event-feed/root.js";
import { createConnection } from "./event-feed/shared.js";
import { Subscription } from "./event-feed/subscription.js";

const EVERY_MS = 1_500; // between two requests; the events of that time are one notification if they are many
const ANSWER_MS = 10_000;
const MAX_SINGLE = 3; // with more events, one notification counts them
const KEEP_MS = 20_000; // so often the position is stored while nothing happens
const VALID_MS = 60_000; // an older position is of an earlier visit, whose events are not news
const LOCK = `outfeed notifications ${ROOT}`;
const VISIBLE = `outfeed visible ${ROOT}`; // a shared lock that each visible page holds
const STORED = `outfeed notified ${ROOT} `;
const TONES = [[660, 0], [880, 0.12]]; // hertz, and seconds from the start
const TONE_SECS = 0.18;

const dialog = document.getElementById("notifications");

// --- visible pages ---------------------------------------------------------------------------------------------------

let hide = null;

/** Hold the shared lock while this page is visible. */
function showVisibility() {
  if (document.hidden) {
    hide?.();
    hide = null;
  } else if (!hide) {
    navigator.locks.request(VISIBLE, { mode: "shared" }, () => new Promise((resolve) => (hide = resolve)));
  }
}

async function isAnyVisible() {
  const { held } = await navigator.locks.query();
  return !document.hidden || held.some(({ name }) => name === VISIBLE);
}

// --- sound -----------------------------------------------------------------------------------------------------------

let audio = null;

/** Make the sound possible: a browser allows it after a click on the page. */
function wakeAudio() {
  audio ??= new AudioContext();
  return audio.resume();
}

async function playSound() {
  await wakeAudio();
  for (const [hertz, delay] of TONES) playTone(hertz, audio.currentTime + delay);
  document.dispatchEvent(new CustomEvent("outfeed:sound"));
}

function playTone(hertz, from) {
  const tone = new OscillatorNode(audio, { frequency: hertz });
  const volume = new GainNode(audio, { gain: 0 });
  volume.gain.setValueAtTime(0.2, from);
  volume.gain.exponentialRampToValueAtTime(0.001, from + TONE_SECS);
  tone.connect(volume).connect(audio.destination);
  tone.start(from);
  tone.stop(from + TONE_SECS);
}

// --- one view --------------------------------------------------------------------------------------------------------

/** A saved view, its choice, and its position in the log. */
class WatchedView {
  constructor({ id, name, href, isOn, hasSound, isAlways }) {
    Object.assign(this, { id, name, href, isOn, hasSound, isAlways });
  }

  get #key() {
    return STORED + this.id;
  }

  /** Drop the position: the next request begins at the newest event. */
  begin() {
    localStorage.removeItem(this.#key);
  }

  /** Store that the position is still in use. */
  keep() {
    const place = this.#place;
    if (place) this.#store(place);
  }

  get #place() {
    try {
      const place = JSON.parse(localStorage.getItem(this.#key));
      return place && Date.now() - place.at < VALID_MS ? place : null;
    } catch {
      return null;
    }
  }

  #store({ after, epoch }) {
    localStorage.setItem(this.#key, JSON.stringify({ after, epoch, at: Date.now() }));
  }

  /** Request the events since the last request, and notify of them. Return whether more may follow at once. */
  async check() {
    const place = this.#place;
    const query = place ? `?${new URLSearchParams({ after: place.after, epoch: place.epoch })}` : "";
    const answer = await fetch(`${ROOT}api/views/${this.id}/news${query}`, { signal: AbortSignal.timeout(ANSWER_MS) });
    if (answer.status === 404) this.isOn = false; // the view was deleted
    if (!answer.ok) return;
    const news = await answer.json();
    this.#store({ after: news.position, epoch: news.epoch });
    if (!news.count || (!this.isAlways && (await isAnyVisible()))) return;
    this.#notify(news);
    if (this.hasSound) playSound();
  }

  #notify({ count, is_more: isMore, events }) {
    if (count > MAX_SINGLE) {
      const title = `${NUMBER.format(count)}${isMore ? "+" : ""} new events`;
      return show(title, `${this.name}: ${events.at(-1).sentence}`, `view ${this.id}`, this.href);
    }
    for (const { id, icon, sentence } of events) {
      const href = `${ROOT}swarm/events?${new URLSearchParams({ id })}`;
      show(`${icon} ${sentence}`.trim(), this.name, `event ${id}`, href);
    }
  }
}

function show(title, body, tag, href) {
  const shown = new Notification(title, { body, tag, icon: `${ROOT}static/icon-192.png`, silent: true });
  shown.onclick = () => {
    window.focus();
    location.assign(href);
    shown.close();
  };
}

// --- the page that notifies ------------------------------------------------------------------------------------------

/**
 * Follows the feed over the connection that all pages share, and checks the views that are on. Without such a view it
 * holds no lock, so that a browser can keep the page for the way back.
 */
class Notifier {
  #views;
  #hasJoined = false;
  #isLeading = false;
  #connection = null;
  #subscription = null;
  #timer = 0;
  #earliest = 0;

  constructor(views) {
    this.#views = views;
    this.update();
  }

  get #watched() {
    return [...this.#views.values()].filter(({ isOn }) => isOn);
  }

  /** Take part, and follow the feed if this page leads. */
  update() {
    if (Notification.permission !== "granted" || !this.#watched.length) return;
    if (!this.#hasJoined) this.#join();
    if (!this.#isLeading) return;
    if (!this.#connection) this.#connect();
    this.#schedule();
  }

  #join() {
    this.#hasJoined = true;
    showVisibility();
    document.addEventListener("visibilitychange", showVisibility);
    navigator.locks.request(LOCK, () => this.#lead());
  }

  /** Check until the page closes: the lock is released then. */
  #lead() {
    this.#isLeading = true;
    setInterval(() => this.#watched.forEach((view) => view.keep()), KEEP_MS);
    addEventListener("pagehide", () => this.#connection?.close());
    addEventListener("pageshow", ({ persisted }) => persisted && this.#connection?.connect());
    this.update();
    return new Promise(() => {});
  }

  #connect() {
    const address = new URL("ws", ROOT);
    address.protocol = address.protocol.replace("http", "ws");
    this.#subscription = new Subscription({}, true);
    this.#connection = createConnection(address.href, null, this.#subscription, {
      link: (link) => ["open", "polling"].includes(link) || this.#subscription.interrupt(),
      frame: (frame) => this.#handleFrame(frame),
      page: (page) => this.#handlePage(page),
    });
    this.#connection.connect();
  }

  #handleFrame({ type, seq, prev, payload, end }) {
    if (type === "subscribed") this.#subscription.accept(payload);
    else if (type === "event") this.#take(prev, [{ ...payload, seq }]);
    else if (type === "events") this.#take(prev, payload, end);
    else if (type === "heartbeat") return this.#subscription.reach(payload.cursor, payload.cursor);
    else return;
    this.#schedule();
  }

  #take(prev, events, end) {
    if (this.#subscription.take(prev, events, end) === null) this.#connection.subscribe();
  }

  #handlePage(page) {
    const verdict = this.#subscription.verdictOf(page);
    if (verdict) this.#subscription.accept(verdict);
    this.#subscription.take(this.#subscription.received, page.events);
    this.#subscription.reach(page.cursor, page.head);
    if (verdict || page.events.length) this.#schedule();
  }

  #schedule() {
    if (!this.#watched.length) return;
    this.#timer ||= setTimeout(() => this.#check(), Math.max(EVERY_MS / 3, this.#earliest - performance.now()));
  }

  async #check() {
    try {
      for (const view of this.#watched) await view.check();
    } catch {
      // The next frame checks again.
    }
    this.#earliest = performance.now() + EVERY_MS;
    this.#timer = 0;
  }
}

// --- the dialog ------------------------------------------------------------------------------------------------------

/** The switches of all views. A change is told to the other pages, of which one notifies. */
class Switches {
  #views = new Map();
  #rows = new Map(); // the inputs of each view by name
  #notifier;
  #channel = new BroadcastChannel(LOCK);
  #state = dialog.querySelector("[role=status]");

  constructor() {
    for (const row of dialog.querySelectorAll("[data-view]")) this.#add(row);
    this.#notifier = new Notifier(this.#views);
    this.#channel.onmessage = ({ data }) => this.#take(data);
    for (const button of document.querySelectorAll("[data-opens=notifications]")) {
      button.hidden = false;
      button.addEventListener("click", () => dialog.showModal());
    }
    this.#report();
  }

  #add(row) {
    const inputs = Object.fromEntries(Array.from(row.querySelectorAll("input"), (input) => [input.name, input]));
    const { id, name, href } = { id: row.dataset.view, name: row.dataset.name, href: row.dataset.href };
    const view = new WatchedView({ id, name, href, ...choiceIn(inputs) });
    this.#views.set(id, view);
    this.#rows.set(id, inputs);
    row.addEventListener("change", ({ target }) => this.#change(view, inputs, target));
  }

  async #change(view, inputs, target) {
    if (inputs.sound.checked) wakeAudio();
    const isAsked = target === inputs.on && target.checked && Notification.permission === "default";
    if (isAsked) await Notification.requestPermission();
    if (target === inputs.on && Notification.permission !== "granted") target.checked = false;
    if (target === inputs.on && target.checked) view.begin();
    Object.assign(view, choiceIn(inputs));
    this.#channel.postMessage({ ...view });
    this.#notifier.update();
    this.#report(await save(view));
  }

  /** Take the choice of another page, perhaps for a view that is newer than this page. */
  #take(choice) {
    const view = this.#views.get(choice.id) ?? new WatchedView(choice);
    Object.assign(view, choice);
    this.#views.set(choice.id, view);
    const inputs = this.#rows.get(choice.id);
    if (inputs) {
      Object.assign(inputs.on, { checked: choice.isOn });
      Object.assign(inputs.sound, { checked: choice.hasSound, disabled: !choice.isOn });
      Object.assign(inputs.always, { checked: choice.isAlways, disabled: !choice.isOn });
    }
    this.#notifier.update();
  }

  #report(problem = "") {
    const isBlocked = Notification.permission === "denied";
    setText(this.#state, problem || (isBlocked ? "The browser blocks notifications of this site. Allow them in its settings." : ""));
  }
}

function choiceIn({ on, sound, always }) {
  sound.disabled = always.disabled = !on.checked;
  return { isOn: on.checked, hasSound: sound.checked, isAlways: always.checked };
}

/** Store the choice. Return the problem for the reader; an empty text after a success. */
async function save({ id, isOn, hasSound, isAlways }) {
  const token = dialog.querySelector("[name=csrf_token]")?.value;
  const headers = { "Content-Type": "application/json", ...(token && { "X-CSRFToken": token }) };
  const body = JSON.stringify({ is_on: isOn, has_sound: hasSound, is_always: isAlways });
  const signal = AbortSignal.timeout(ANSWER_MS);
  try {
    const answer = await fetch(`${ROOT}api/views/${id}/notification`, { method: "PUT", headers, body, signal });
    return answer.ok ? "" : (await answer.json()).detail;
  } catch {
    return "The server didn't respond. Try again.";
  }
}

if (dialog && "Notification" in window && navigator.locks) new Switches();
