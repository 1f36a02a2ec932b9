// Browsers allow six connections per host. So one tab holds a poll, and the other tabs poll when it tells of events.

const MAX_MS = 60_000; // a longer turn dates from before the clock was set back

/** The right to hold a request to *address*. One tab of a browser has it at a time. */
export class Turn {
  #id = crypto.getRandomValues(new Uint32Array(2)).join("-");
  #key;
  #listener = null;

  constructor(address) {
    this.#key = `event-feed poll ${address}`;
  }

  /** Return whether this tab may hold a request for *ms*. Without storage every tab may. */
  take(ms) {
    const turn = this.#read();
    const left = turn ? turn.until - Date.now() : 0;
    if (turn && turn.id !== this.#id && left > 0 && left < MAX_MS) return false;
    this.#write({ id: this.#id, until: Date.now() + ms });
    return true;
  }

  /** Tell the other tabs that events up to *cursor* have come, if this tab has the turn. */
  announce(cursor) {
    const turn = this.#read();
    if (turn?.id === this.#id && turn.cursor !== cursor) this.#write({ ...turn, cursor });
  }

  /** Release the turn, for another tab. */
  release() {
    if (this.#read()?.id === this.#id) this.#write(null);
  }

  /** Call *onnews* when another tab tells of events or has released its turn. */
  listen(onnews) {
    this.ignore();
    this.#listener = ({ key, oldValue, newValue }) => {
      if (key === this.#key && cursorIn(oldValue) !== cursorIn(newValue)) onnews();
    };
    addEventListener("storage", this.#listener);
  }

  ignore() {
    removeEventListener("storage", this.#listener);
  }

  #read() {
    try {
      return parsed(localStorage.getItem(this.#key));
    } catch {
      return null; // storage is forbidden
    }
  }

  #write(turn) {
    try {
      if (turn) localStorage.setItem(this.#key, JSON.stringify(turn));
      else localStorage.removeItem(this.#key);
    } catch {
      // Storage is full or forbidden: every tab then holds a request.
    }
  }
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // another program's value
  }
}

/** Return a turn's cursor: undefined if the turn has told none, null if there is no turn. */
function cursorIn(text) {
  const turn = parsed(text);
  return turn ? turn.cursor : null;
}
