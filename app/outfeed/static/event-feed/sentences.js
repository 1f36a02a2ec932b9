// The display of each type: the server's table, and the same rules as its `display_of` and `_fill`. Uses no DOM.

const TABLE_MS = 3_000;
const MAX_PART_CHARS = 200;
const OTHER = "other";
export const KINDS = ["task", "agent", "bid", "tool", "system", OTHER];
const EVENT_FIELDS = new Set(["id", "event_type", "source", "task_id", "agent_id", "timestamp"]);
// Matches the separators of Python's str.split(), which differ from \s: the page and the terminal show the same text.
export const SPACES = /[\t-\r\x1c- \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]+/;

/** Cut *text* to MAX_PART_CHARS for a row's one line. The opened row shows all of it. */
function cut(text) {
  const chars = [...text];
  return chars.length <= MAX_PART_CHARS ? text : `${chars.slice(0, MAX_PART_CHARS).join("")}…`;
}

export class Sentences {
  #table = {};
  #loading = null;

  /** Fetch the table once. If that fails, every type looks like an unlisted one until the next call. */
  load() {
    this.#loading ??= this.#fetch().catch(() => (this.#loading = null));
    return this.#loading;
  }

  async #fetch() {
    const url = new URL("../event-types.json", import.meta.url);
    const answer = await fetch(url, { signal: AbortSignal.timeout(TABLE_MS) });
    this.#table = await answer.json();
  }

  displayOf(type) {
    if (Object.hasOwn(this.#table, type)) return this.#table[type];
    const [prefix, ...rest] = type.split(".");
    const words = (rest.join(".") || prefix).replace(/[_.]/g, " ");
    const label = words.charAt(0).toUpperCase() + words.slice(1).toLowerCase() || "Event";
    const said = { keys: ["message", "description", "name", "reason"], fallback: label };
    const kind = KINDS.includes(prefix) ? prefix : OTHER;
    return { icon: "•", label, kind, error: false, sentence: [`${type}: `, said] };
  }

  /** Return the parts of the sentence in order, as [text, whether it is a name from the event]. */
  partsOf(event, display) {
    return display.sentence.flatMap((part) => {
      if (typeof part === "string") return [[part, false]];
      const text = cut(this.#fill(part, event));
      const around = text ? [[part.before, false], [text, true], [part.after, false]] : [];
      return around.filter(([found]) => found);
    });
  }

  #fill({ keys, fallback }, event) {
    const data = event.data instanceof Object && !Array.isArray(event.data) ? event.data : {};
    for (const key of keys) {
      const own = Object.hasOwn(data, key) ? data[key] : null;
      const value = own ?? (EVENT_FIELDS.has(key) ? event[key] : null);
      if (!["string", "number"].includes(typeof value) && !(value instanceof Number)) continue;
      const words = String(value).split(SPACES).filter(Boolean);
      if (words.length) return words.join(" ");
    }
    return fallback;
  }
}
