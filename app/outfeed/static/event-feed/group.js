// A group of tabs and elements of one browser, of which one leads. The right to lead is a Web Lock, so the browser itself
// passes it on when a tab is closed, reloaded or crashes. A visible member leads if there is one.

const TICK_MS = 1_000;
const MAX_SILENT_TICKS = 3; // after this many the leader is frozen or hangs, and another member takes over
const ID = crypto.getRandomValues(new Uint32Array(2)).join("-");

let members = 0; // of this page

/**
 * Calls `on.lead` and `on.follow` when the role changes, and `on.fail` if members can't reach each other. `on.hear` gets
 * the messages of others, and `on.status` returns what the leader tells of itself. `on.isReady`: may this member lead?
 * A hidden page has slow timers but receives messages at once, so an idle leader is asked before it is replaced.
 */
export class Group {
  #name;
  #on;
  #id = `${ID}-${(members += 1)}`;
  #membership = null; // ends with an abort
  #channel = null;
  #timer = 0;
  #lead = null; // the lock that this member holds
  #queue = null; // ends the wait for the lock
  #silentTicks = 0;
  #hasHeard = false;
  #hasHanded = false; // the lead was offered to a member since the last tick

  /** Browsers have Web Locks only on pages of HTTPS and of the same machine. */
  static get isSupported() {
    return isSecureContext && "locks" in navigator && "BroadcastChannel" in window;
  }

  constructor(name, on) {
    this.#name = name;
    this.#on = on;
  }

  get isLeader() {
    return this.#lead !== null;
  }

  join() {
    this.leave();
    this.#membership = new AbortController();
    this.#hasHeard = this.#hasHanded = false;
    this.#silentTicks = 0;
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
    const { signal } = this.#membership;
    document.addEventListener("visibilitychange", () => this.#showVisibility(), { signal });
    this.#claim({ ifAvailable: true });
  }

  leave() {
    if (!this.#membership) return;
    this.post({ kind: "bye" });
    this.#membership.abort();
    this.#membership = null;
    this.#queue?.abort();
    this.#lead?.release();
    this.#lead = this.#queue = null;
    this.#channel.close();
    clearInterval(this.#timer);
  }

  /** Send *message*, an object of plain values, to the other members. */
  post(message) {
    const isLeading = this.isLeader;
    this.#channel?.postMessage({ ...message, id: this.#id, isLeading, isVisible: !document.hidden });
  }

  /** Tell the others at once what `on.status` returns. */
  beat() {
    if (this.isLeader) this.post({ kind: "beat", ...this.#on.status() });
  }

  /** Tell a hidden leader that this member can lead. */
  offer() {
    if (!this.isLeader && !document.hidden && this.#on.isReady()) this.post({ kind: "ask", isReady: true });
  }

  // The lock

  /** Request the lock by *options*. The request ends with the lead. */
  async #claim(options) {
    const membership = this.#membership;
    const claim = {};
    try {
      await navigator.locks.request(this.#name, options, (lock) => this.#settle(claim, lock, membership));
    } catch (error) {
      if (membership !== this.#membership) return; // left in the meantime
      if (this.#lead === claim) this.#lose();
      else if (error.name !== "AbortError") this.#on.fail();
    }
  }

  /** Lead with *lock* until its release. Without one, wait for it. */
  #settle(claim, lock, membership) {
    if (membership !== this.#membership) return null; // left in the meantime
    if (!lock) return this.#follow();
    return new Promise((resolve) => {
      claim.release = resolve;
      this.#lead = claim;
      this.#on.lead();
      this.beat();
    });
  }

  #follow() {
    this.#queue = new AbortController();
    this.#claim({ signal: this.#queue.signal });
    this.#on.follow();
  }

  /** Another member has taken the lead. If it can't be heard, it is in another part of the browser. */
  #lose() {
    this.#lead = null;
    this.#silentTicks = 0;
    if (this.#hasHeard) this.#follow();
    else this.#on.fail();
  }

  #takeOver() {
    if (this.isLeader) return;
    this.#silentTicks = 0;
    this.#queue?.abort();
    this.#claim({ steal: true });
  }

  // Messages

  #tick() {
    this.#hasHanded = false;
    if (this.isLeader) return this.beat();
    this.#silentTicks += 1;
    if (this.#silentTicks > MAX_SILENT_TICKS) this.#takeOver();
    else if (this.#silentTicks > 1) this.post({ kind: "ask" });
  }

  #hear(message) {
    this.#hasHeard = true;
    if (message.kind === "ask") return this.#answer(message);
    if (message.kind === "hand") return message.to === this.#id && this.#takeOver();
    if (message.isLeading) this.#silentTicks = 0;
    if (message.kind === "beat" && !message.isVisible) this.offer();
    this.#on.hear(message);
  }

  /** Hand the lead of a hidden page over to the member that asks, or tell it that this one leads. */
  #answer({ id, isReady, isVisible }) {
    if (!this.isLeader || this.#hasHanded) return;
    this.#hasHanded = document.hidden && isReady && isVisible;
    if (this.#hasHanded) this.post({ kind: "hand", to: id });
    else this.beat();
  }

  #showVisibility() {
    if (this.isLeader) this.beat();
    else this.offer();
  }
}
